"""docs/attention.md explains each kind of item, and each alert about one leads to it."""

import re
from pathlib import Path

import pytest

from service.ledger.attention import AttentionKind

_REPOSITORY = Path(__file__).parents[3]
_PAGE = (_REPOSITORY / "docs" / "attention.md").read_text(encoding="utf-8")
_ALERTS = (_REPOSITORY / "docs" / "alerts.md").read_text(encoding="utf-8")
_RULES = (_REPOSITORY / "helm" / "payment-callbacks" / "files" / "alerts.yaml").read_text(encoding="utf-8")


def test_the_page_explains_each_kind_and_no_other() -> None:
    assert re.findall(r"^## ([a-z-]+)$", _PAGE, re.MULTILINE) == [kind.value for kind in AttentionKind]


@pytest.mark.parametrize("kind", AttentionKind)
def test_each_kind_says_what_it_means_what_is_at_stake_what_to_do_and_when_it_ends(kind: AttentionKind) -> None:
    section = _PAGE.partition(f"\n## {kind}\n")[2].partition("\n## ")[0]
    assert re.findall(r"^- \*\*([^*]+)\*\*", section, re.MULTILINE) == ["It means", "At stake", "Do", "It ends"]


@pytest.mark.parametrize("kind", AttentionKind)
def test_each_kind_has_an_alert_whose_page_leads_to_it(kind: AttentionKind) -> None:
    rules = _RULES.split("- alert: ")[1:]
    (alert,) = [rule.split()[0] for rule in rules if f'attention_items{{kind="{kind}", acknowledged="false"}}' in rule]
    section = _ALERTS.partition(f"### {alert}\n")[2].partition("\n### ")[0]
    assert f"`payment-callbacks orders attention --kind {kind}` ([attention.md](attention.md#{kind}))" in section
