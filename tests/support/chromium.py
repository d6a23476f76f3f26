"""People at the console, each in a window of Debian's Chromium, which Playwright drives."""

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, ConsoleMessage, Dialog, Locator, Playwright, Request, expect

from tests.support.waiting import HANGS_AFTER_SECONDS

_CHROMIUM = "/usr/bin/chromium"
_AXE = Path(__file__).parents[1] / "browser" / "axe.min.js"
#: The rules that each page has to keep: WCAG 2.1, levels A and AA.
_RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
_REPORT_VIOLATIONS = """
document.addEventListener("securitypolicyviolation", (event) =>
  console.error(`Content-Security-Policy: ${event.violatedDirective} forbids ${event.blockedURI}`));
"""
_REFUSED = re.compile(r"Failed to load resource: the server responded with a status of (\d+)")
_MOST_TABS = 200
_HANGS_AFTER_MILLISECONDS = HANGS_AFTER_SECONDS * 1000


def start_chromium(playwright: Playwright) -> Browser:
    """Start Debian's Chromium without a screen."""
    expect.set_options(timeout=_HANGS_AFTER_MILLISECONDS)
    # Chromium has no sandbox of its own for root, as which CI runs.
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
    return playwright.chromium.launch(executable_path=_CHROMIUM, args=["--disable-gpu", *arguments])


class Window:
    """One person's browser, with cookies of its own.

    It notes whatever must never happen: an error in the browser's console, a violation of the Content-Security-Policy,
    a dialog, a request to another server.
    """

    def __init__(self, browser: Browser, *, url: str, javascript: bool = True) -> None:
        self._url = url
        self._context = browser.new_context(
            base_url=url, java_script_enabled=javascript, viewport={"width": 1200, "height": 900}
        )
        self._context.set_default_timeout(_HANGS_AFTER_MILLISECONDS)
        self._context.add_init_script(_REPORT_VIOLATIONS)
        self._faults: list[str] = []
        #: Statuses other than success that the test asks for: Chromium reports each as an error.
        self.expected_statuses: set[int] = set()
        self.page = self._context.new_page()
        self.page.on("console", self._on_message)
        self.page.on("pageerror", lambda error: self._faults.append(f"{self.page.url}: {error}"))
        self.page.on("dialog", self._on_dialog)
        self.page.on("request", self._on_request)

    @property
    def main(self) -> Locator:
        """What the page says, without what every page has."""
        return self.page.locator("main")

    def open(self, path: str) -> None:
        """Open a page of the console."""
        self.page.goto(path)

    def sign_in(self, token: str) -> None:
        """Sign in; the window is then where it wanted to be."""
        if "/sign-in" not in self.page.url:
            self.open("/sign-in")
        self.page.get_by_label("Your API token").fill(token)
        self.page.get_by_role("button", name="Sign in").click()

    def search(self, number: str) -> None:
        """Search for an order, with the field that every page has."""
        self.page.get_by_role("searchbox", name="Order number").fill(number)
        self.page.get_by_role("search").get_by_role("button", name="Find").click()

    def tab_to(self, target: Locator) -> None:
        """Press Tab until the keyboard is at `target`."""
        for _ in range(_MOST_TABS):
            self.page.keyboard.press("Tab")
            if target.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"the keyboard does not reach {target}")

    def accessibility_faults(self) -> Sequence[str]:
        """What axe-core finds wrong with the page as it is now."""
        self.page.evaluate(_AXE.read_text())
        found: Any = self.page.evaluate("rules => axe.run({ runOnly: rules })", _RULES)
        return [
            f"{self.page.url}: {fault['id']}: {fault['help']}: {[node['html'][:300] for node in fault['nodes']]}"
            for fault in found["violations"]
        ]

    def close(self) -> None:
        """Close it. Raises AssertionError where something happened that must never happen."""
        self._context.close()
        assert not self._faults, "\n".join(self._faults)

    def describe(self) -> str:
        """What the page says, and what went wrong."""
        text = "(closed)" if self.page.is_closed() else self.page.locator("body").inner_text()
        return "\n".join([self.page.url, text, *self._faults])

    def _on_message(self, message: ConsoleMessage) -> None:
        refused = _REFUSED.match(message.text)
        if refused and int(refused[1]) in self.expected_statuses:
            return
        if message.type in ("error", "warning"):
            self._faults.append(f"{self.page.url}: {message.type}: {message.text}")

    def _on_dialog(self, dialog: Dialog) -> None:
        self._faults.append(f"{self.page.url}: a dialog: {dialog.message}")
        dialog.dismiss()

    def _on_request(self, request: Request) -> None:
        if not request.url.startswith((self._url, "data:")):
            self._faults.append(f"{self.page.url}: a request to {request.url}")


class Windows:
    """Opens windows, and holds each of them to what must never happen."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser
        self._opened: list[Window] = []

    def open(self, url: str, token: str = "", *, javascript: bool = True) -> Window:
        """A new window on the console at this address; with a token, somebody has signed in."""
        window = Window(self._browser, url=url, javascript=javascript)
        self._opened.append(window)
        if token:
            window.sign_in(token)
        return window

    def close(self) -> None:
        """Close them all."""
        for window in self._opened:
            window.close()

    def describe(self) -> str:
        """What each shows."""
        return "\n\n".join(window.describe() for window in self._opened)
