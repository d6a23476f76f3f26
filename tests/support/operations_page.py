"""docs/operations.md as what it gives to be typed."""

import re
from pathlib import Path

import yaml

#: All of it.
PAGE = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
_BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
#: Its values, in the order of the page.
VALUES = [yaml.safe_load(text) for language, text in _BLOCKS if language == "yaml"]
#: Its commands.
SHELL = [text for language, text in _BLOCKS if language == "sh"]
