"""One merchant's gateway settings cannot be used: it is named, its orders wait, and nobody else's do."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
import urllib3

from service.ledger.announcements import Announcement
from tests.support.api import TOKEN, ApiCaller
from tests.support.deployment import Deployment, Place
from tests.support.gateway import AES_KEY, AskedGateway
from tests.support.processes import answers, find_free_port

SETTINGS = """
[inquirer]
poll_seconds = 0.1
metrics_bind = "127.0.0.1:{metrics_port}"

[api]
bind = "127.0.0.1:{api_port}"
[[api.tokens]]
name = "shop"
token = "{token}"
scopes = ["announce", "cards"]
"""
MERCHANT = """
[merchants.{slug}]
pay_types = ["bank"]
amount_unit = "yuan"
gateway = {{ url = "{url}", ua = "ASKED", aes_key = "{key}", timeout_seconds = 5.0 }}
"""
WRONG_KEY = "no AES key"
CARD = {
    "pay_type": "bank",
    "name": "张三丰",
    "id_card_number": "11010519491231002X",
    "mobile": "13800138000",
    "bank_card_number": "6222021234567890128",
}


class Site:
    """The merchants "right" and "wrong", at one gateway that knows every order as paid; each has an order "DK" due."""

    def __init__(self, *, folder: Path, gateway: AskedGateway) -> None:
        self._ports = {"metrics_port": find_free_port(), "api_port": find_free_port()}
        self.api_url = f"http://127.0.0.1:{self._ports['api_port']}"
        merchants = "".join(
            MERCHANT.format(slug=slug, url=gateway.url, key=key)
            for slug, key in (("right", AES_KEY), ("wrong", WRONG_KEY))
        )
        self.deployment = Deployment(
            folder=folder,
            place=Place(),
            downstreams={},
            more_settings=SETTINGS.format(**self._ports, token=TOKEN) + merchants,
        )
        self.deployment.prepare()
        self.deployment.announce(
            Announcement(merchant=slug, biz_order_no=f"DK-{slug}", answer_due_at=datetime.now(UTC))
            for slug in ("right", "wrong")
        )

    def rewrite(self, old: str, new: str) -> None:
        file = self.deployment.settings_file
        file.write_text(file.read_text().replace(old, new))

    def status(self, slug: str) -> str:
        order = self.deployment.ledger.order(f"DK-{slug}")
        return "" if order is None else str(order.status)

    def unusable(self, url: str) -> dict[str, float]:
        text = urllib3.request("GET", url, retries=urllib3.Retry(50, backoff_factor=0.1)).data.decode()
        lines = re.findall(r'^payment_callbacks_gateway_unusable\{merchant="(\w+)"\} (\S+)$', text, re.MULTILINE)
        return {merchant: float(value) for merchant, value in lines}

    @property
    def metrics_url(self) -> str:
        return f"http://127.0.0.1:{self._ports['metrics_port']}/metrics"


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with AskedGateway(lambda _order: "success") as gateway:
        site = Site(folder=tmp_path, gateway=gateway)
        with site.deployment:
            yield site


def test_config_check_names_it_as_a_mistake(site: Site) -> None:
    checked = site.deployment.command("config", "check")
    assert checked.returncode == 1
    assert re.search(
        r"payment-callbacks\.toml: merchants\.wrong\.gateway: key = 'aes_key' makes 10 bytes", checked.stderr
    )
    assert "merchants.right" not in checked.stderr
    site.rewrite(WRONG_KEY, AES_KEY)
    assert site.deployment.command("config", "check").returncode == 0


def test_the_inquirer_asks_for_everybody_else_and_for_it_once_it_is_mended(site: Site) -> None:
    deployment = site.deployment
    deployment.start("inquirer")
    inquirer = deployment.role("inquirer")
    inquirer.wait_until(lambda: site.status("right") == "succeeded")
    assert '"event": "gateway_unusable"' in inquirer.output
    assert site.unusable(site.metrics_url) == {"right": 0, "wrong": 1, "ask": 0}
    (waiting,) = deployment.ledger.inquiries_about("DK-wrong")
    assert (waiting.state, waiting.last_asked_at) == ("open", None)
    assert inquirer.terminate() == 0

    site.rewrite(WRONG_KEY, AES_KEY)
    deployment.start("inquirer")
    inquirer.wait_until(lambda: site.status("wrong") == "succeeded")
    assert site.unusable(site.metrics_url) == {"right": 0, "wrong": 0, "ask": 0}
    assert "Traceback" not in deployment.output


def test_the_api_serves_everybody_else_and_says_why_it_cannot_send_for_it(site: Site) -> None:
    deployment = site.deployment
    deployment.start("api")
    deployment.role("api").wait_until(lambda: answers(f"{site.api_url}/healthz"))
    assert deployment.role("api").output.count('"event": "gateway_unusable"') == 1
    assert site.unusable(f"{site.api_url}/metrics") == {"right": 0, "wrong": 1, "ask": 0}
    api = ApiCaller(url=site.api_url)
    for slug in ("right", "wrong"):
        assert api.announce({"merchant": slug, "biz_order_no": "DK1"}).status == 200
    refused = api.post("/v1/cards", {"merchant": "wrong", **CARD})
    assert (refused.status, refused.value["outcome"]) == (503, "not-done")
    assert refused.value["type"].endswith(":gateway-unusable")
    assert "merchants.wrong.gateway: key =" in refused.value["detail"]
    api.close()


def test_where_no_merchant_is_left_no_role_that_asks_starts_and_each_is_named(site: Site) -> None:
    text = site.deployment.settings_file.read_text()
    kept = re.sub(r"\n\[merchants\.(?!right|wrong).*?(?=\n\n|\Z)", "\n", text, flags=re.DOTALL)
    site.deployment.settings_file.write_text(kept.replace(AES_KEY, WRONG_KEY))
    for role in ("inquirer", "api"):
        refused = site.deployment.command("run", role)
        assert refused.returncode == 1
        for slug in ("right", "wrong"):
            assert f"merchants.{slug}.gateway: key = 'aes_key'" in refused.stderr
