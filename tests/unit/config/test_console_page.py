"""The settings that docs/console.md shows are taken as they stand there."""

import re
from pathlib import Path

import pytest

from service.config.reading import parse_settings

_PAGE = (Path(__file__).parents[3] / "docs" / "console.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```toml\n(.*?)```", _PAGE, re.DOTALL)
_MERCHANT = """
[merchants.acme]
pay_types = ["baofoo_001"]
amount_unit = "yuan"
required_trust = "capability"
token_keys = [{ kid = "k1", key = "a token key of 32 bytes, for tests only" }]
"""


@pytest.mark.parametrize("block", _BLOCKS)
def test_every_example_is_taken_without_a_warning(block: str, tmp_path: Path) -> None:
    environment = dict.fromkeys(re.findall(r'env = "(\w+)"', block), "a-secret-of-32-characters-for-tests")
    settings = parse_settings(block + _MERCHANT, environment, name="console.md", folder=tmp_path)
    assert settings.console.session_keys
    assert settings.warnings() == []


def test_every_way_to_sign_in_has_an_example() -> None:
    text = "".join(_BLOCKS)
    assert all(section in text for section in ("[[api.tokens]]", "[console.openid]", "[console.proxy]"))
