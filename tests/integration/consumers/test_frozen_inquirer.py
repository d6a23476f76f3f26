"""An inquirer that was frozen until its lease ran out does not ask what another may have asked."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine

from service.domain.claims import OrderKey, OrderStatus, Trust
from service.ledger.announcements import Announcement
from service.ledger.inquiry_questions import AskedQuestion, QuestionOutcome
from service.ledger.store import LedgerStore
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.ledger import make_store
from tests.support.processes import Process, Processes
from tests.support.waiting import eventually

ORDER = OrderKey("acme", "DK1")
#: Of the one that is frozen: it wakes after it.
SHORT_LEASE_SECONDS = 1.0
#: Of all others. It outlasts the slowest machine.
LEASE_SECONDS = 240.0

SETTINGS = f"""\
data_directory = "{{folder}}"
database_url = "{{database_url}}"

[merchants.acme]
pay_types = ["bank"]
amount_unit = "yuan"
min_inquiry_interval_seconds = 0.1
first_inquiry_repeat_seconds = 0.1

[merchants.acme.gateway]
url = "{{gateway_url}}"
ua = "ACME"
aes_key = "{AES_KEY}"
timeout_seconds = 60.0

[inquirer]
poll_seconds = 0.05
lease_seconds = {LEASE_SECONDS}
"""


@pytest.fixture
def store(ledger_engine: Engine) -> LedgerStore:
    """One order, overdue."""
    store = make_store(
        ledger_engine, clock=lambda: datetime.now(UTC), required=Trust.QUERIED, answer_due_seconds=1, endpoints=[]
    )
    store.announce(Announcement(merchant="acme", biz_order_no=ORDER.biz_order_no, answer_due_at=datetime.now(UTC)))
    return store


@pytest.fixture
def gateway() -> Iterator[AskedGateway]:
    with AskedGateway(lambda _order: "success") as gateway:
        yield gateway


@pytest.fixture
def settings_file(ledger_engine: Engine, gateway: AskedGateway, tmp_path: Path) -> Path:
    file = tmp_path / "settings.toml"
    url = ledger_engine.url.render_as_string(hide_password=False)
    file.write_text(SETTINGS.format(folder=tmp_path, database_url=url, gateway_url=gateway.url))
    return file


@pytest.fixture
def freeze(store: LedgerStore, settings_file: Path, processes: Processes) -> Callable[[float], Process]:
    """Starts an inquirer that leases the order's question for so many seconds, and freezes before it sends it."""

    def start(lease_seconds: float) -> Process:
        arguments = ("inquirer", settings_file, str(lease_seconds))
        process = processes.start_module("tests.support.faulty_roles", *arguments, name="frozen")
        process.wait_until(lambda: process.frozen)
        assert len(questions(store)) == 1
        return process

    return start


@pytest.fixture
def frozen(freeze: Callable[[float], Process]) -> Process:
    """One whose lease soon runs out."""
    return freeze(SHORT_LEASE_SECONDS)


def test_what_another_has_asked_meanwhile_is_not_asked_again_by_who_wakes(
    store: LedgerStore, gateway: AskedGateway, settings_file: Path, frozen: Process, processes: Processes
) -> None:
    processes.start("--config", str(settings_file), "run", "inquirer", environment={"AMQP_URL": ""})
    eventually(lambda: status(store) is OrderStatus.SUCCEEDED)
    frozen.thaw()
    eventually(lambda: questions(store)[0].outcome)
    assert frozen.terminate() == 0
    outcomes = [question.outcome for question in questions(store)]
    assert outcomes == [QuestionOutcome.NO_ANSWER, QuestionOutcome.ANSWERED]
    assert questions(store)[0].detail.startswith("not sent")
    assert gateway.count() == 1
    assert status(store) is OrderStatus.SUCCEEDED


def test_what_it_did_not_send_is_asked_by_a_question_of_its_own(
    store: LedgerStore, gateway: AskedGateway, frozen: Process
) -> None:
    claimed_at = questions(store)[0].asked_at
    eventually(lambda: (datetime.now(UTC) - claimed_at).total_seconds() > SHORT_LEASE_SECONDS)
    frozen.thaw()
    eventually(lambda: status(store) is OrderStatus.SUCCEEDED)
    assert frozen.terminate() == 0
    assert [question.outcome for question in questions(store)] == [QuestionOutcome.NO_ANSWER, QuestionOutcome.ANSWERED]
    assert gateway.count() == 1


def test_who_wakes_within_its_lease_sends_what_it_has_claimed(
    store: LedgerStore, gateway: AskedGateway, freeze: Callable[[float], Process]
) -> None:
    frozen = freeze(LEASE_SECONDS)
    frozen.thaw()
    eventually(lambda: status(store) is OrderStatus.SUCCEEDED)
    assert frozen.terminate() == 0
    assert [question.outcome for question in questions(store)] == [QuestionOutcome.ANSWERED]
    assert gateway.count() == 1


def questions(store: LedgerStore) -> list[AskedQuestion]:
    return list(store.order_history(ORDER).questions)


def status(store: LedgerStore) -> OrderStatus | None:
    order = store.load_order(ORDER)
    return None if order is None else order.state.status
