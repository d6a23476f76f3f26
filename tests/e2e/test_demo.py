"""`payment-callbacks demo` as a newcomer runs it."""

import json
import os
import re
import shlex
import signal
from pathlib import Path
from typing import Any
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import urllib3

from tests.support.processes import Process, Processes
from tests.support.waiting import eventually


def children_of(pid: Any) -> Any:
    """Process ids of all descendants."""
    found = []
    for task in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = task.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        if int(fields[1]) == pid:
            child = int(task.parent.name)
            found += [child, *children_of(child)]
    return found


def lives(pid: Any) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def forge(demo: Any) -> Any:
    """Follow the demo's offer; the receiver's answer."""
    (command,) = [line for line in demo.output.splitlines() if line.startswith("  curl ")]
    body, url = shlex.split(command)[-2:]
    return urllib3.request("POST", url, body=body.encode(), headers={"Content-Type": "application/json"}).data


def events_of_the_first_order(demo: Any) -> Any:
    return re.findall("shop heard .* DEMO-00001-success ", demo.output)


def show(processes: Any, settings: Any, order_no: Any) -> Any:
    """What `orders show` knows of an order."""
    return ask(processes, settings, "orders", "show", "demo", order_no)


def ask(processes: Any, settings: Any, *command: Any) -> Any:
    """What a command prints with --json."""
    ended = processes.start("--config", str(settings), *command, "--json")
    assert ended.wait() == 0, ended.describe()
    # What is logged to stderr, a line each, comes first.
    return json.loads(ended.output[ended.output.index("{\n") :])


def start_at_rest(processes: Any, tmp_path: Path, *options: str) -> Any:
    """A demo that has printed everything, and its settings."""
    demo = processes.start("demo", *options, environment={"TMPDIR": str(tmp_path), "COLUMNS": "80"})
    demo.wait_until(lambda: "things to try" in demo.output)
    (settings,) = tmp_path.glob("payment-callbacks-demo-*/payment-callbacks.toml")
    return demo, settings


def test_the_demo_takes_no_broker_or_database_from_its_surroundings_ends_well_and_reports_what_it_measured(
    processes: Processes, tmp_path: Path
) -> None:
    report_path = tmp_path / "report.json"
    elsewhere = {"AMQP_URL": "amqp://nobody@127.0.0.1:1/", "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/none"}
    demo = processes.start("demo", "--exit", "--orders", "60", "--report", str(report_path), environment=elsewhere)
    assert demo.wait() == 0, demo.describe()
    report = json.loads(report_path.read_text())
    assert report["orders"] == 60
    assert report["forged_believed"] == 0
    assert report["orders_with_wrong_final_status"] == 0
    assert report["orders_with_more_than_one_terminal_event"] == 0
    assert report["orders_missing"] == 0
    assert report["orders_still_open"] == 0
    assert report["never_called_back"] > 0
    assert report["recovered_by_inquiry"] == report["never_called_back"]
    assert report["lies_sent"] > 0
    assert report["orders_with_believed_lie"] == 0
    assert report["withholds_unknown"] > 0
    assert report["forged_acknowledged"] > 0
    assert report["forged_refused"] > 0
    assert report["duplicates_sent"] > 0
    assert report["acknowledged"] >= 60
    assert report["events_delivered"] >= 60
    assert report["seconds"] > 0
    assert "What happened in" in demo.output


def test_the_figures_notice_a_service_that_believes_the_sign(processes: Processes, tmp_path: Path) -> None:
    report_path = tmp_path / "report.json"
    trusting = ["--required-trust", "checksum"]
    demo = processes.start("demo", "--exit", "--orders", "40", "--report", str(report_path), *trusting)
    assert demo.wait() == 1, demo.describe()
    report = json.loads(report_path.read_text())
    assert report["forged_acknowledged"] > 0
    assert report["forged_believed"] > 0


def test_a_merchant_that_believes_its_notify_urls_keeps_forgers_out_and_lets_liars_through(
    processes: Processes, tmp_path: Path
) -> None:
    report_path = tmp_path / "report.json"
    trusting = ["--required-trust", "capability"]
    demo = processes.start("demo", "--exit", "--orders", "40", "--report", str(report_path), *trusting)
    assert demo.wait() == 1, demo.describe()
    report = json.loads(report_path.read_text())
    assert (report["forged_acknowledged"], report["forged_believed"]) == (0, 0)
    assert 0 < report["orders_with_wrong_final_status"] <= report["orders_with_believed_lie"]
    assert report["recovered_by_inquiry"] == report["never_called_back"] > 0
    assert report["orders_still_open"] == 0


def test_the_forgery_that_it_offers_is_taken_and_not_believed(processes: Processes, tmp_path: Path) -> None:
    demo, settings = start_at_rest(processes, tmp_path, "--orders", "3")
    heard = events_of_the_first_order(demo)
    assert forge(demo) == b"success"
    forged = eventually(
        lambda: [
            claim
            for claim in show(processes, settings, "DEMO-00001-success")["claims"]
            if claim["pay_order_no"] == "FORGED1"
        ],  # each look starts a process
    )
    assert [(claim["trust"], claim["verdict"]) for claim in forged] == [("checksum", "untrusted")]
    assert show(processes, settings, "DEMO-00001-success")["order"]["status"] == "succeeded"
    assert events_of_the_first_order(demo) == heard
    end(demo, signal.SIGTERM)
    assert not list(tmp_path.glob("payment-callbacks-demo-*"))


def test_the_forgery_that_it_offers_is_refused_where_its_notify_url_is_required(
    processes: Processes, tmp_path: Path
) -> None:
    demo, settings = start_at_rest(processes, tmp_path, "--orders", "1", "--required-trust", "capability")
    assert forge(demo) == b"fail"
    log = settings.with_name("receiver.log")
    assert eventually(lambda: "missing-token" in log.read_text()), "refused for another reason"
    end(demo, signal.SIGINT)
    assert not list(tmp_path.glob("payment-callbacks-demo-*"))


def test_the_console_that_it_offers_shows_its_orders_to_either_person(processes: Processes, tmp_path: Path) -> None:
    demo, _ = start_at_rest(processes, tmp_path, "--orders", "1")
    # It is offered before the run, to watch it, and again at the end.
    before, _, offer = demo.output.rpartition("The operators' console 控制台: ")
    url, *_ = offer.split()
    assert url in before
    tokens = re.findall(r"^  (li\.lei|han\.meimei) +(\S+)$", offer, re.MULTILINE)
    assert [person for person, _ in tokens] == ["li.lei", "han.meimei"]
    for person, token in tokens:
        browser = build_opener(HTTPCookieProcessor())
        csrf = re.search(r'name="csrf" value="([^"]+)"', read(browser, f"{url}/sign-in"))
        assert csrf is not None
        assert person in read(browser, f"{url}/sign-in", csrf=csrf[1], token=token)
        assert "Event: succeeded" in read(browser, f"{url}/orders?q=DEMO-00001-success")
    end(demo, signal.SIGINT)


def test_it_leaves_to_a_person_two_orders_and_an_endpoint_that_fails(processes: Processes, tmp_path: Path) -> None:
    demo, settings = start_at_rest(processes, tmp_path, "--orders", "1")
    below, above = "DEMO-00002-stuck", "DEMO-00003-stuck"
    assert f"{below} (20 yuan) and {above} (80 yuan) are not final" in demo.output
    items = eventually(lambda: waiting_orders(processes, settings, count=2), within_seconds=120)
    assert items == {("parked-inquiry", below), ("parked-inquiry", above)}
    decision = ["failed", "--by", "li.lei", "--reason", "the bank has no such payment", "--yes"]
    settled = ask(processes, settings, "orders", "resolve", "demo", below, *decision)
    proposed = ask(processes, settings, "orders", "resolve", "demo", above, *decision)
    assert (settled["order"]["status"], proposed["order"]["status"]) == ("failed", "processing")
    assert waiting_orders(processes, settings) == {("parked-inquiry", above), ("proposal", above)}
    states = {state["endpoint"]: state for state in ask(processes, settings, "endpoints", "list")["endpoints"]}
    assert states["shop"]["last_error"] == ""
    assert states["crm"]["last_error"] == "the endpoint answered 503"
    assert states["crm"]["open"] == 3, "one of each change of the two orders"
    assert states["crm"]["last_delivered_at"] is not None
    end(demo, signal.SIGTERM)


def waiting_orders(processes: Any, settings: Any, *, count: int = 0) -> Any:
    """The kind and the order of each item of the attention list, if there are at least `count`."""
    items = ask(processes, settings, "orders", "attention")["items"]
    return len(items) >= count and {(item["kind"], item["biz_order_no"]) for item in items}


def test_it_prints_how_many_events_the_shop_hears_again(processes: Processes, tmp_path: Path) -> None:
    demo, settings = start_at_rest(processes, tmp_path, "--orders", "1")
    event = "demo/DEMO-00001-success/1"
    replay = ("replay", "--endpoint", "shop", "--reason", "the shop has lost it", event)
    assert processes.start("--config", str(settings), *replay).wait() == 0
    demo.wait_until(lambda: "shop heard 1 event again" in demo.output)
    end(demo, signal.SIGTERM)


def read(browser: OpenerDirector, url: str, **form: str) -> str:
    """A page, or the one after a form that is sent to it."""
    with browser.open(url, urlencode(form).encode() if form else None) as response:
        return str(response.read().decode())


def test_no_child_outlives_a_demo_that_was_killed(processes: Processes, tmp_path: Path) -> None:
    demo = processes.start("demo", "--orders", "3", environment={"TMPDIR": str(tmp_path)})
    demo.wait_until(lambda: "Still up" in demo.output)
    end(demo, signal.SIGKILL)


def end(demo: Process, number: signal.Signals) -> None:
    """Send it the signal, and wait until no child of it is left."""
    children = children_of(demo.pid)
    assert len(children) >= 5
    demo.signal(number)
    demo.wait()
    eventually(lambda: not any(lives(child) for child in children))


def test_a_role_that_dies_ends_the_demo_with_the_end_of_its_log(processes: Processes, tmp_path: Path) -> None:
    demo = processes.start("demo", "--orders", "3", environment={"TMPDIR": str(tmp_path)})
    demo.wait_until(lambda: "Still up" in demo.output)
    dispatcher = next(child for child in children_of(demo.pid) if _is(child, "dispatcher"))
    os.kill(dispatcher, signal.SIGKILL)
    assert demo.wait() == 1
    assert "dispatcher ended with -9" in demo.output
    assert "Its log" in demo.output


def _is(pid: Any, role: Any) -> Any:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").endswith(role.encode())
