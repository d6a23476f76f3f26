"""The pictures of the console in README and docs. `make screenshots` writes them to docs/images."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.support.chromium import Windows
from tests.support.console_site import LI_LEI, Site

#: Who reads a page on a slow line waits for each picture.
_MOST_BYTES = 150_000
_PAGES = {
    "today": "/",
    "order": "/order?merchant=acme&number=DK202611260100",
    "endpoint": "/endpoints/crm",
}


@pytest.mark.parametrize("name", _PAGES)
def test_a_picture_of_a_page_is_small(windows: Windows, day: Site, tmp_path: Path, name: str) -> None:
    window = windows.open(day.url, LI_LEI)
    window.page.set_viewport_size({"width": 1200, "height": 640})
    window.open(_PAGES[name])
    expect(window.page.locator(".uplot")).to_have_count(5 if name == "today" else 0)
    file = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"console-{name}.png"
    file.parent.mkdir(exist_ok=True)
    window.page.screenshot(path=file)
    assert file.stat().st_size < _MOST_BYTES
