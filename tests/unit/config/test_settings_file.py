from pathlib import Path

import pytest

from service.config.endpoints import WebhookSettings
from service.config.reading import SettingsError, load_settings, parse_settings
from service.config.secrets import Secret
from service.config.settings import Settings
from service.domain.claims import Trust
from service.domain.events import DEFAULT_EVENT_TYPES, EventType

MERCHANT = """
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
"""
GATEWAY = """
[merchants.acme.gateway]
url = "https://gateway.example"
ua = "ACME"
aes_key = "0123456789abcdef"
"""
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def parse(text: str, environment: dict[str, str] | None = None, folder: Path = Path("/etc/pc")) -> Settings:
    return parse_settings(text, environment or {}, name="pc.toml", folder=folder)


def mistakes(text: str, environment: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse(text, environment)
    return str(caught.value).splitlines()


def test_a_byte_order_mark_is_ignored_in_settings_and_secrets(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text(WEBHOOK_SECRET, encoding="utf-8-sig")
    file = tmp_path / "pc.toml"
    endpoint = 'name = "shop"\nkind = "webhook"\nurl = "https://shop.example"\nsecrets = [{ file = "secret" }]\n'
    file.write_text(f"[[endpoints]]\n{endpoint}{MERCHANT}", encoding="utf-8-sig")
    (shop,) = load_settings(file, {}).endpoints
    assert isinstance(shop, WebhookSettings)
    assert [secret.reveal() for secret in shop.secrets] == [WEBHOOK_SECRET]


def test_one_merchant_is_enough() -> None:
    settings = parse(MERCHANT)
    assert settings.merchants["acme"].pay_types == {"baofoo_001"}
    assert settings.data_directory == Path("/etc/pc/data")
    assert not settings.broker.urls


def test_the_example_is_valid() -> None:
    example = Path(__file__).parents[3] / "service" / "cli" / "example.toml"
    environment = {"ACME_TOKEN_KEY": "k" * 43, "SHOP_WEBHOOK_SECRET": WEBHOOK_SECRET}
    assert load_settings(example, environment).warnings() == []


def test_a_merchant_with_a_gateway_requires_query_trust_by_default() -> None:
    assert parse(MERCHANT + GATEWAY).merchants["acme"].required_trust is Trust.QUERIED


def test_a_merchant_without_a_gateway_requires_capability_by_default() -> None:
    assert parse(MERCHANT).merchants["acme"].required_trust is Trust.CAPABILITY


KEYS = f'token_keys = [{{ kid = "k1", key = "{"k" * 43}" }}]\n'


@pytest.mark.parametrize(
    ("more", "least"),
    [(KEYS, Trust.CAPABILITY), ("", Trust.CHECKSUM), (KEYS + 'required_trust = "checksum"', Trust.CHECKSUM)],
)
def test_with_token_keys_only_a_callback_with_a_token_proves_that_the_gateway_is_up(more: str, least: Trust) -> None:
    assert parse(MERCHANT + more + GATEWAY).merchants["acme"].liveness_trust is least


def test_a_merchant_with_a_gateway_and_nothing_else_gives_no_warning() -> None:
    assert parse(MERCHANT + GATEWAY).warnings() == []


def test_checksum_trust_gives_a_warning() -> None:
    (warning,) = parse(MERCHANT + 'required_trust = "checksum"').warnings()
    assert "anyone who can reach the receiver" in warning


def test_an_endpoint_without_corrections_gives_a_warning() -> None:
    endpoint = f"""
[[endpoints]]
name = "shop"
kind = "webhook"
url = "https://shop.example"
secrets = ["{WEBHOOK_SECRET}"]
types = ["payment.succeeded"]
"""
    settings = parse(MERCHANT + endpoint)
    assert settings.endpoints[0].types == {EventType.SUCCEEDED}
    assert any("payment.corrected" in warning for warning in settings.warnings())


def token_keys(*kids: str) -> str:
    keys = [f'{{ kid = "{kid}", key = "{kid * 16}" }}' for kid in kids]
    return f"token_keys = [{', '.join(keys)}]"


def test_conflicts_go_only_to_endpoints_that_name_them() -> None:
    assert EventType.CONFLICTED not in DEFAULT_EVENT_TYPES


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        (MERCHANT + "amount_unt = 'fen'", "merchants.acme.amount_unt: unknown key; did you mean `amount_unit`?"),
        (MERCHANT + "[reciever]", "reciever: unknown key; did you mean `receiver`?"),
        (MERCHANT + "[api]\nthread = 3", "api.thread: unknown key; did you mean `threads`?"),
        (MERCHANT + GATEWAY + "uaa = 'x'", "merchants.acme.gateway.uaa: unknown key; did you mean `ua`?"),
        (MERCHANT + "[[endpoints]]\nnme = 'x'", "endpoints.0.nme: unknown key; did you mean `name`?"),
        (MERCHANT + "token_keys = [{kod = 'k'}]", "merchants.acme.token_keys.0.kod: unknown key; did you mean `kid`?"),
    ],
)
def test_an_unknown_key_is_an_error_that_names_the_nearest_known_one(text: str, mistake: str) -> None:
    assert f"pc.toml: {mistake}" in mistakes(text)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "merchants: Missing data for required field."),
        ("merchants = 3 4", "not TOML"),
        ('[merchants."A B"]\npay_types = ["x"]\namount_unit = "fen"', "merchants.A B: must be a slug"),
        (MERCHANT.replace("yuan", "dollar"), "merchants.acme.amount_unit: Must be one of: yuan, fen."),
        (MERCHANT + 'token_keys = [{ kid = "k1", key = "short" }]', "at least 32 bytes"),
        (MERCHANT + token_keys("k1", "k1"), "merchants.acme.token_keys: two keys have the same kid"),
        (MERCHANT + token_keys("k1", "k2", "k3"), "merchants.acme.token_keys: Longer than maximum length 2."),
        (MERCHANT + "require_token = true", "merchants.acme.require_token: without token_keys no callback has a token"),
        (MERCHANT + 'time_zone = "Mars/Base"', "merchants.acme.time_zone: is not a time zone"),
        (MERCHANT + '[[endpoints]]\nname = "bus"\nkind = "amqp"', "no broker.urls are set"),
        (MERCHANT + '[[endpoints]]\nname = "x"\nkind = "webhook"\nurl = "ftp://x"', "needs an http:// or https:// URL"),
        (MERCHANT + "max_inquiries_per_day = 1", "merchants.acme.max_inquiries_per_day"),
        (MERCHANT + "overdue_share = 1.0", "merchants.acme.overdue_share"),
        (MERCHANT + GATEWAY + "timeout_seconds = 40.0", "inquirer.lease_seconds: must be at least twice"),
        (
            MERCHANT
            + '[[endpoints]]\nname = "x"\nkind = "webhook"\nurl = "https://x/"\ntimeout_seconds = 40.0\n'
            + f'secrets = ["whsec_{"A" * 32}"]',
            "dispatcher.lease_seconds: must be at least twice",
        ),
        (MERCHANT + "[inquirer]\nmetrics_bind = '9100'", "inquirer.metrics_bind: must be host:port"),
        (MERCHANT + "[receiver]\nbind = '8080'", "receiver.bind: must be host:port"),
        (MERCHANT + "[receiver]\npublic_url = 'https://pay.example.com/'", "receiver.public_url: must be http(s)://"),
        (
            MERCHANT + "[receiver]\npublic_url = 'https://u:p@pay.example.com'",
            "receiver.public_url: must be http(s)://",
        ),
        (
            MERCHANT + "[receiver]\npublic_url = 'https://pay.example.com:99999'",
            "receiver.public_url: must be http(s)://",
        ),
        (MERCHANT + "[receiver]\npublic_url = 'https://pay example.com'", "receiver.public_url: must be http(s)://"),
        (MERCHANT + "[database]\npooled = true", "database: has no effect without database_url"),
        (MERCHANT + "[receiver]\nbind = '0.0.0.0:65536'", "receiver.bind: must be host:port"),
        (MERCHANT + "[receiver]\nbind = '0.0.0.0:80\u0663'", "receiver.bind: must be host:port"),
        (MERCHANT + "[receiver]\nbind = 'a host:8080'", "receiver.bind: must be host:port"),
        (MERCHANT + "[api]\nbind = '8081'", "api.bind: must be host:port"),
        (MERCHANT + "[spool]\nenabled = 'yes'", "spool.enabled: Not a valid boolean."),
        (MERCHANT + "[receiver]\nconfirm_timeout_seconds = 60", "receiver.confirm_timeout_seconds"),
    ],
)
def test_a_wrong_value_is_an_error_that_says_where_and_what_is_allowed(text: str, part: str) -> None:
    assert any(part in line for line in mistakes(text))


@pytest.mark.parametrize("slug", ["key", "value", "env", "file", "section", "load"])
def test_no_name_of_a_merchant_changes_where_a_mistake_is(slug: str) -> None:
    text = MERCHANT.replace("acme", slug)
    assert parse(text).merchants[slug].pay_types == {"baofoo_001"}
    assert mistakes(text.replace("yuan", "dollar")) == [
        f"pc.toml: merchants.{slug}.amount_unit: Must be one of: yuan, fen."
    ]


def test_a_key_that_marshmallow_uses_itself_is_like_any_other() -> None:
    assert mistakes(MERCHANT + "[receiver]\n_schema = 1")[0].startswith("pc.toml: receiver._schema: unknown key;")
    assert mistakes(MERCHANT + "[merchants._schema]") == [
        "pc.toml: merchants._schema: must be a slug: a-z, 0-9 and inner hyphens, at most 64",
        "pc.toml: merchants._schema.pay_types: Missing data for required field.",
        "pc.toml: merchants._schema.amount_unit: Missing data for required field.",
    ]


@pytest.mark.parametrize(
    "url",
    [
        "https:///path",
        "https://shop:99999/",
        "https://shop:port/",
        "https://[::1/",
        "https://user:hidden@shop/",
        "https://shop/a b",
        "https://shop/é",
        "https://shop/%zz",
        "https://shop/#part",
        "https://a..shop/",
    ],
)
def test_a_webhook_url_that_no_request_can_be_sent_to_is_an_error_that_does_not_quote_it(url: str) -> None:
    secret = "whsec_" + "QUJD" * 8
    endpoint = f'[[endpoints]]\nname = "x"\nkind = "webhook"\nurl = "{url}"\nsecrets = ["{secret}"]'
    (mistake,) = mistakes(MERCHANT + endpoint)
    assert "endpoints.0.url: a webhook needs an http:// or https:// URL" in mistake
    assert url not in mistake


@pytest.mark.parametrize(
    ("endpoint", "mistake"),
    [
        ('name = "x"', "endpoints.0.kind: Missing data for required field."),
        ('name = "x"\nkind = "kafka"', "endpoints.0.kind: Must be one of: webhook, amqp"),
        ('name = "x"\nkind = ["amqp"]', "endpoints.0.kind: Not a valid string."),
        ('kind = "amqp"', "endpoints.0.name: Missing data for required field."),
        ('name = "x"\nkind = "amqp"\nurl = "https://x/"', "endpoints.0.url: belongs to kind webhook"),
        ('name = "x"\nkind = "amqp"\ntimeout_secnds = 3', "endpoints.0.timeout_secnds: unknown key; did you mean"),
        ('name = "x"\nkind = "webhook"\nurls = "https://x/"', "endpoints.0.urls: unknown key; did you mean `url`?"),
        ('name = "x"\nkind = "webhook"\nurl = "https://x/"', "endpoints.0.secrets: a webhook needs secrets"),
        ('name = "x"\nkind = "webhook"\nurl = "https://x/"\nsecrets = []', "endpoints.0.secrets: Length must be"),
        (
            'name = "x"\nkind = "webhook"\nurl = "https://x/"\nsecrets = ["whsec_QUJD"]',
            "endpoints.0.secrets.0: a webhook needs secrets",
        ),
    ],
)
def test_an_endpoint_has_the_keys_of_its_kind_and_no_others(endpoint: str, mistake: str) -> None:
    assert any(line.startswith(f"pc.toml: {mistake}") for line in mistakes(f"{MERCHANT}[[endpoints]]\n{endpoint}"))


def test_an_endpoint_that_is_no_table_is_an_error() -> None:
    assert mistakes(MERCHANT.replace("[", "endpoints = [3]\n[", 1)) == ["pc.toml: endpoints.0: Invalid input type."]


def test_every_mistake_is_named_at_once() -> None:
    assert len(mistakes("[merchants.a]\npay_types = []\n[merchants.b]\namount_unit = 'x'")) == 4


def test_a_secret_comes_from_the_environment() -> None:
    text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', '{ env = "AES" }')
    gateway = parse(text, {"AES": "fedcba9876543210"}).merchants["acme"].gateway
    assert gateway is not None
    assert gateway.aes_key.reveal() == "fedcba9876543210"


def test_a_secret_comes_from_a_file_beside_the_settings(tmp_path: Path) -> None:
    (tmp_path / "aes").write_text("fedcba9876543210\n")
    text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', '{ file = "aes" }')
    gateway = parse(text, folder=tmp_path).merchants["acme"].gateway
    assert gateway is not None
    assert gateway.aes_key.reveal() == "fedcba9876543210"


@pytest.mark.parametrize("end", ["\n", "\r\n", "\n\n"])
def test_line_ends_at_the_end_of_a_secret_are_ignored_for_every_source(tmp_path: Path, end: str) -> None:
    (tmp_path / "aes").write_bytes(f"fedcba9876543210{end}".encode())
    inline = '"fedcba9876543210' + end.replace("\r", "\\r").replace("\n", "\\n") + '"'
    for given in ('{ file = "aes" }', '{ env = "AES" }', inline):
        text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', given)
        gateway = parse(text, {"AES": f"fedcba9876543210{end}"}, folder=tmp_path).merchants["acme"].gateway
        assert gateway is not None
        assert gateway.aes_key.reveal() == "fedcba9876543210"


@pytest.mark.parametrize(
    "key", ["fedcba98\n76543210", "fedcba98\t76543210", "fedcba98\x0076543210", " fedcba9876543210", "\udcff"]
)
def test_a_secret_with_a_control_character_is_an_error_that_names_its_source(tmp_path: Path, key: str) -> None:
    (tmp_path / "aes").write_bytes(key.encode(errors="surrogateescape"))
    for given, origin in (('{ env = "AES" }', "the environment variable AES"), ('{ file = "aes" }', "the file aes")):
        text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', given)
        with pytest.raises(SettingsError) as caught:
            parse(text, {"AES": key}, folder=tmp_path)
        (line,) = str(caught.value).splitlines()
        assert line.startswith("pc.toml: merchants.acme.gateway.aes_key: ")
        assert "must hold no control character" in line or "is not UTF-8" in line
        assert origin in line or "aes is not UTF-8" in line
        assert "fedc" not in line


def test_a_byte_order_mark_in_a_secrets_file_is_ignored(tmp_path: Path) -> None:
    (tmp_path / "aes").write_text("fedcba9876543210", encoding="utf-8-sig")
    text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', '{ file = "aes" }')
    gateway = parse(text, folder=tmp_path).merchants["acme"].gateway
    assert gateway is not None
    assert gateway.aes_key.reveal() == "fedcba9876543210"


def test_a_secret_whose_variable_is_not_set_is_one_error_that_names_it() -> None:
    text = MERCHANT + GATEWAY.replace('"0123456789abcdef"', '{ env = "NOPE" }')
    assert mistakes(text) == ["pc.toml: merchants.acme.gateway.aes_key: the environment variable NOPE is not set"]


def test_urls_of_the_environment_override_those_of_the_file() -> None:
    text = 'database_url = "sqlite:///x"\n' + MERCHANT + '[broker]\nurls = ["amqp://file"]'
    settings = parse(text, {"AMQP_URL": "amqp://a,amqp://b", "DATABASE_URL": "postgresql+psycopg://db"})
    assert [url.reveal() for url in settings.broker.urls] == ["amqp://a", "amqp://b"]
    assert settings.database_url is not None
    assert settings.database_url.reveal() == "postgresql+psycopg://db"


def test_no_secret_shows_in_a_dump_of_the_settings() -> None:
    assert "0123456789abcdef" not in repr(parse(MERCHANT + GATEWAY))
    assert Secret("x") == Secret("x")


def test_an_order_number_that_matches_the_merchants_pattern_is_no_card_number() -> None:
    plain = parse(MERCHANT).merchants["acme"]
    patterned = parse(f"{MERCHANT}order_number_pattern = '4\\d{{15}}'\n")
    assert plain.may_be_card_number("4111111111111111")
    assert not plain.may_be_card_number("1745678901234567897")
    assert not patterned.merchants["acme"].may_be_card_number("4111111111111111")
    assert patterned.merchants["acme"].may_be_card_number("5500000000000004")
    assert [*patterned.order_number_patterns] == ["acme"]


def test_a_pattern_that_cannot_be_read_is_a_mistake() -> None:
    (mistake,) = mistakes(f"{MERCHANT}order_number_pattern = '('\n")
    assert "merchants.acme.order_number_pattern: is not a regular expression: " in mistake


@pytest.mark.parametrize("amount", ["1e4", "-1", "10.001", "ten", ""])
def test_an_amount_above_which_a_second_person_is_needed_is_exact(amount: str) -> None:
    assert parse(f'{MERCHANT}second_person_above = "10000.50"\n').merchants["acme"].second_person_above == "10000.50"
    (mistake,) = mistakes(f'{MERCHANT}second_person_above = "{amount}"\n')
    assert "merchants.acme.second_person_above: must be an exact amount in yuan, as text" in mistake
