"""Whatever a password holds, either it is what reaches the server, or the URL is refused without showing any of it."""

import string
from pathlib import Path
from urllib.parse import quote, unquote

import pika
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from psycopg.conninfo import conninfo_to_dict

from service.bootstrap.urls import find_unusable_urls
from service.config.reading import SettingsError, parse_settings
from service.config.settings import Settings
from service.ledger.database import make_engine
from service.ledger.errors import UnusableDatabaseUrl
from service.messaging.errors import UnusableBrokerUrl
from service.messaging.rabbitmq.parameters import connection_parameters

_MERCHANT = '[merchants.acme]\npay_types = ["x"]\namount_unit = "yuan"\n'
_PASSWORDS = st.text(
    st.one_of(st.sampled_from("@:/?#%[]&=,; \\'\"\n\t\0é中" + string.digits), st.characters()), min_size=1
)


def load(**environment: str) -> Settings:
    return parse_settings(
        _MERCHANT, environment, name="pc.toml", folder=Path("/nowhere"), find_mistakes=find_unusable_urls
    )


def mistake(**environment: str) -> str:
    with pytest.raises(SettingsError) as caught:
        load(**environment)
    (line,) = str(caught.value).splitlines()
    return line


@given(password=_PASSWORDS)
@example(password="geh@eim")
@example(password="12/geh@eim")
@example(password="a?user=b&password=c@d")
def test_a_raw_password_is_read_as_it_was_meant_or_refused(password: str) -> None:
    for variable, url, read in (
        ("DATABASE_URL", f"postgresql://user:{password}@host/name", read_by_libpq),
        ("AMQP_URL", f"amqp://user:{password}@host/vhost", read_by_pika),
    ):
        try:
            settings = load(**{variable: url})
        except SettingsError as error:
            said = str(error)
        else:
            used = settings.database_url or settings.broker.urls[0]
            assert read(used.reveal()) == ("user", unquote(password), "host")
            continue
        assert "percent-encode" in said


@given(password=_PASSWORDS.filter(str.isprintable))
def test_a_percent_encoded_password_is_always_good(password: str) -> None:
    encoded = quote(password, safe="")
    load(DATABASE_URL=f"postgresql://user:{encoded}@host/name", AMQP_URL=f"amqp://user:{encoded}@host/vhost")
    assert read_by_libpq(f"postgresql://user:{encoded}@host/name") == ("user", password, "host")
    assert read_by_pika(f"amqp://user:{encoded}@host/vhost") == ("user", password, "host")


def read_by_libpq(url: str) -> tuple[object, ...]:
    read = conninfo_to_dict(url)
    return read["user"], read["password"], read["host"]


def read_by_pika(url: str) -> tuple[object, ...]:
    read = pika.URLParameters(url)
    assert isinstance(read.credentials, pika.PlainCredentials)
    return read.credentials.username, read.credentials.password, read.host


@pytest.mark.parametrize("raw", ["@", "/", "?", "#", "%", " ", "\n", "\t", "\0", "[", "%00", "%0a", "%ff"])
@pytest.mark.parametrize(
    ("variable", "place", "url"),
    [
        ("DATABASE_URL", "database_url", "postgresql://user:geh{}eim@host/name"),
        ("AMQP_URL", "broker.urls.0", "amqp://user:geh{}eim@host/vhost"),
    ],
)
def test_characters_that_parsers_disagree_on_must_be_percent_encoded(
    variable: str, place: str, url: str, raw: str
) -> None:
    said = mistake(**{variable: url.format(raw)})
    assert said.startswith(f"pc.toml: {place}: ")
    assert "percent-encode" in said
    assert f"(given by the environment variable {variable})" in said
    assert "geh" not in said
    assert "eim" not in said


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("postgresql://u:geheim@h:99999/d", "invalid port number"),
        ("postgresql://u:geheim@h:eim/d", "invalid integer value"),
        ("postgresql://u:geheim@/d", "names no host"),
        ("postgresql://u:geheim@:5432/d", "names no host"),
        ("postgresql://u:geheim@a,,b/d", "one of its hosts is empty"),
        ("postgresql://u:geheim@a..b/d", "names a host that is none"),
        ("postgresql://u:geheim@[::1/d", "cannot read it"),
        ("postgresql://u:geheim@h/d?geheim=1", "invalid URI query parameter"),
        ("postgresql://u:geheim@h/d?geheim", "missing key/value separator"),
        ("postgresql://u:geheim@h/d?sslmode=geheim", "invalid sslmode value"),
        ("postgresql://u:geheim@h/d?target_session_attrs=geheim", "invalid target_session_attrs value"),
        ("postgresql://u:geheim@h/d?host=a,b&port=1,2,3", "could not match 3 port numbers to 2 hosts"),
        ("postgresql+asyncpg://u:geheim@h/d", "let it begin with postgresql://"),
        ("mysql://u:geheim@h/d", "must look like postgresql://"),
        ("geheim", "must look like postgresql://"),
        ("sqlite://geheim/file", "name a sqlite:/// file"),
        ("sqlite:///file?timeout=geheim", "names a file and nothing else"),
        ("sqlite:///file:name?uri=true&mode=geheim", "names a file and nothing else"),
        ("sqlite://:geheim@/file", "names a file and nothing else"),
        ("sqlite+pysqlcipher://:geheim@/file", "names a file and nothing else"),
    ],
)
def test_a_database_url_that_nothing_can_connect_to_says_why_and_shows_no_secret(url: str, part: str) -> None:
    said = mistake(DATABASE_URL=url)
    assert said.startswith("pc.toml: database_url: ")
    assert part in said
    assert "eheim" not in said


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("amqp://user@h/v", "lacks the user or the password"),
        ("amqp://user:@h/v", "lacks the user or the password"),
        ("amqp://:geheim@h/v", "lacks the user or the password"),
        ("amqp:///v", "names no host"),
        ("amqp://u:geheim@/v", "names no host"),
        ("amqp://u:geheim@h:0/v", "a port that is none"),
        ("amqp://u:geheim@h:99999/v", "its host or its port cannot be read"),
        ("amqp://u:geheim@h:eim/v", "its host or its port cannot be read"),
        ("amqp://u:geheim@[::1/v", "its host or its port cannot be read"),
        ("amqp://u:geheim@a..b/v", "its host or its port cannot be read"),
        ("amqp://u:geheim@h/a/b", "its virtual host has a raw /"),
        ("amqp://u:geheim@h/v?geheim=1", "a parameter that pika does not know"),
        ("amqp://u:geheim@h/v?geheim", "a parameter that pika does not know"),
        ("amqps://u:geheim@h/v?ssl_options=geheim", "cannot read a value of its parameters (ssl_options)"),
        (
            "amqps://u:geheim@h/v?ssl_options={'cafile':'/geheim'}",
            "cannot read a value of its parameters (ssl_options)",
        ),
        ("amqp://u:geheim@h/v?frame_max=5", "cannot read a value of its parameters (frame_max)"),
        ("amqp://u:geheim@h/v?heartbeat=geheim", "cannot read a value of its parameters (heartbeat)"),
        ("amqp://u:geheim@h/v?client_properties={'geheim':{1}}", "AMQP cannot carry"),
        ("amqp://u:geheim@h/v?client_properties={'geheim':1.5}", "AMQP cannot carry"),
        ("amqp://u:geheim@h/v?client_properties={1:'geheim'}", "AMQP cannot carry"),
        (f"amqp://u:geheim@h/v?client_properties={{'geheim':{10**30}}}", "AMQP cannot carry"),
        (f"amqp://u:geheim@h/v?locale={'geheim' * 50}", "AMQP cannot carry"),
        (f"amqp://u:geheim@h/{'geheim' * 50}", "AMQP cannot carry"),
        ("http://u:geheim@h/v", "must look like amqp://"),
        ("amqp+tls://u:geheim@h/v", "must begin with amqp://"),
    ],
)
def test_a_broker_url_that_nothing_can_connect_to_says_why_and_shows_no_secret(url: str, part: str) -> None:
    said = mistake(AMQP_URL=url)
    assert said.startswith("pc.toml: broker.urls.0: ")
    assert part in said
    assert "eheim" not in said


def test_each_broker_needs_a_url_of_its_own() -> None:
    text = _MERCHANT + '[broker]\nurls = ["amqp://u:geheim@a,b/v"]\n'
    with pytest.raises(SettingsError, match="give each node a URL of its own"):
        parse_settings(text, {}, name="pc.toml", folder=Path("/nowhere"), find_mistakes=find_unusable_urls)
    assert len(load(AMQP_URL="amqp://u:p@a/v, amqp://u:p@b/v\n").broker.urls) == 2


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@h/d",
        "postgres://u:p@h/d",
        "postgresql+psycopg://u:p@h/d",
        "postgresql://u:p@a:5433,b/d?target_session_attrs=read-write",
        "postgresql://u:p@[::1]:5432/d?sslmode=require&application_name=shop",
        "postgresql:///d?host=/run/postgresql",
        "postgresql:///d",
        "postgresql://u:p@h/d?connect_timeout=5&client_encoding=utf-8&options=-c%20lock_timeout%3D3s",
        "sqlite:///a/file",
    ],
)
def test_common_postgresql_urls_are_accepted(url: str) -> None:
    load(DATABASE_URL=url)


@pytest.mark.parametrize(
    "url",
    [
        "amqp://h",
        "amqp://h/",
        "amqps://u:p@h/%2F",
        "amqp://u:p@[::1]:5672/v?heartbeat=10&frame_max=8192",
        "amqp://u:p@h/v\n",
    ],
)
def test_common_rabbitmq_urls_are_accepted(url: str) -> None:
    load(AMQP_URL=url)


@pytest.mark.parametrize(
    ("query", "theirs", "ours"),
    [
        ("connect_timeout=30", "connect_timeout=30", "connect_timeout=5"),
        ("keepalives=0", "keepalives=0", "keepalives=1"),
        ("tcp_user_timeout=1", "tcp_user_timeout=1", "tcp_user_timeout=10000"),
        ("client_encoding=latin1", "client_encoding=latin1", "client_encoding=UTF8"),
        ("options=-cstatement_timeout%3D0", "statement_timeout=0", "statement_timeout=10s"),
        ("options=-c%20Lock_Timeout%3D1s", "lock_timeout=1s", "lock_timeout=3s"),
        ("options=--idle-in-transaction-session-timeout%3D0", "timeout=0", "timeout=15s"),
        (r"options=-csearch_path%3Da%5C%20b%20-cTimeZone%3DAsia/Shanghai", "timezone=Asia/Shanghai", "timezone=UTC"),
    ],
)
@pytest.mark.parametrize("pooled", [False, True])
def test_a_parameter_that_clashes_with_one_of_ours_is_an_error_that_names_both(
    query: str, theirs: str, ours: str, pooled: bool
) -> None:
    with pytest.raises(UnusableDatabaseUrl) as caught:
        make_engine(f"postgresql://u:geheim@h/d?{query}", pooled=pooled)
    assert theirs in str(caught.value)
    assert ours in str(caught.value)


def test_pgoptions_of_the_environment_clash_like_the_urls_options(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=0")
    with pytest.raises(UnusableDatabaseUrl, match="statement_timeout=0 clashes with statement_timeout=10s"):
        make_engine("postgresql://u:p@h/d")


def test_a_broker_parameter_that_clashes_with_one_of_ours_is_an_error_that_names_both() -> None:
    with pytest.raises(UnusableBrokerUrl, match="heartbeat=30 clashes with heartbeat=10"):
        connection_parameters(["amqp://u:geheim@h/v?heartbeat=30"], connection_name="test")


def test_a_pooler_passes_no_options_but_settings() -> None:
    with pytest.raises(UnusableDatabaseUrl, match="-c name=value"):
        make_engine("postgresql://u:p@h/d?options=-e", pooled=True)
    make_engine("postgresql://u:p@h/d?options=-e")
