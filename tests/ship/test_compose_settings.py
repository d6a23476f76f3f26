"""What compose.yaml mounts: settings that the service takes, secrets that are made, and names that lead somewhere."""

import stat
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.config.endpoints import WebhookSettings
from service.config.reading import parse_settings
from service.config.settings import Settings
from service.sandbox.settings import load_sandbox_settings
from tests.support.compose import FOLDER, SECRETS, load_compose, make_secrets, own_services, settings_with


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return make_secrets(tmp_path)


@pytest.fixture
def settings(secrets: Path, tmp_path: Path) -> Settings:
    return parse_settings(settings_with(secrets), {}, name="compose", folder=tmp_path)


def test_config_check_takes_the_settings(secrets: Path, tmp_path: Path) -> None:
    file = tmp_path / "payment-callbacks.toml"
    file.write_text(settings_with(secrets), encoding="utf-8")
    command = [sys.executable, "-m", "service.cli", "--config", str(file), "config", "check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("warning:") == done.stderr.count("allow_plain_http") == 1


def test_the_sandbox_and_the_merchant_know_each_other(settings: Settings) -> None:
    (account,) = load_sandbox_settings(FOLDER / "sandbox.toml").accounts
    merchant = settings.merchants["acme"]
    assert merchant.gateway is not None
    assert (account.ua, account.aes_key) == (merchant.gateway.ua, merchant.gateway.aes_key)
    assert (account.pay_types, account.amount_unit) == (merchant.pay_types, merchant.amount_unit)


def test_every_role_is_given_every_secret_that_the_settings_name() -> None:
    text = (FOLDER / "payment-callbacks.toml").read_text(encoding="utf-8")
    named = {part.partition('"')[0] for part in text.split(f"{SECRETS}/")[1:]}
    roles = {
        name: service for name, service in own_services().items() if service["command"][:1] in (["run"], ["migrate"])
    }
    assert {name: set(service["secrets"]) for name, service in roles.items()} == dict.fromkeys(roles, named)


def test_every_secret_of_the_file_is_made_and_only_its_owner_gets_to_it(secrets: Path) -> None:
    wanted = {Path(secret["file"]).name for secret in load_compose()["secrets"].values()}
    assert {file.name for file in secrets.iterdir()} == wanted
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # Containers see each file by itself, as a user who is nobody out here.
    assert {stat.S_IMODE(file.stat().st_mode) for file in secrets.iterdir()} == {0o644}


def test_making_secrets_again_changes_none_and_elsewhere_makes_others(secrets: Path, tmp_path: Path) -> None:
    before = _contents(secrets)
    assert _contents(make_secrets(tmp_path)) == before
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    others = _contents(make_secrets(elsewhere))
    assert not set(others.values()) & set(before.values())


def test_the_servers_are_told_the_passwords_that_the_roles_use(secrets: Path) -> None:
    contents = _contents(secrets)
    assert urlsplit(contents["database_url"]).password == contents["postgresql_password"].strip()
    assert contents["rabbitmq_user"].splitlines() == [
        f"default_user = {urlsplit(contents['amqp_url']).username}",
        f"default_pass = {urlsplit(contents['amqp_url']).password}",
    ]


def test_everything_that_calls_another_service_shares_a_network_with_it(settings: Settings) -> None:
    services = load_compose()["services"]
    merchant, (endpoint,) = settings.merchants["acme"], settings.endpoints
    assert merchant.gateway is not None
    assert settings.database_url is not None
    assert isinstance(endpoint, WebhookSettings)
    (broker,) = settings.broker.urls
    calls = {
        settings.receiver.public_url: {"sandbox"},
        merchant.gateway.url: {"inquirer", "api"},
        endpoint.url: {"dispatcher"},
        broker.reveal(): {"receiver", "ledger"},
        settings.database_url.reveal(): {"migrate", "ledger", "inquirer", "dispatcher", "api", "console"},
    }
    for url, callers in calls.items():
        called = str(urlsplit(url).hostname)
        for caller in callers:
            assert set(services[caller]["networks"]) & set(services[called]["networks"]), f"{caller} to {called}"


def test_receiving_cannot_reach_the_database_nor_downstream() -> None:
    networks = load_compose()["services"]["receiver"]["networks"]
    assert not {"database", "downstream"} & set(networks)


def test_the_console_is_opened_where_its_forms_are_accepted(settings: Settings) -> None:
    ((_, port, _),) = [mapping.split(":") for mapping in load_compose()["services"]["console"]["ports"]]
    assert settings.console.public_url == f"http://127.0.0.1:{port}"
    assert settings.console.session_keys


def test_no_role_is_killed_while_it_drains(settings: Settings) -> None:
    longest = max(settings.receiver.drain_seconds, settings.api.drain_seconds, settings.console.drain_seconds)
    assert {service["stop_grace_period"] for service in own_services().values()} == {"30s"}
    assert longest < 30


def _contents(folder: Path) -> dict[str, str]:
    return {file.name: file.read_text() for file in folder.iterdir()}
