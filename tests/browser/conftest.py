"""The console as people see it: a real role on a real ledger, the dispatcher beside it, and Chromium windows."""

from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, sync_playwright

from tests.support.chromium import Window, Windows, start_chromium
from tests.support.console_site import HAN_MEIMEI, LI_LEI, SHORT_IDLE_SECONDS, Site, fill_a_day, open_site
from tests.support.ledger import LedgerDatabases, make_sqlite_ledger
from tests.support.postgresql import PostgreSQL


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The console on SQLite that most tests share: each has orders of its own."""
    folder = tmp_path_factory.mktemp("console")
    with open_site(database_url=make_sqlite_ledger(folder / "ledger.db"), folder=folder) as opened:
        yield opened


@pytest.fixture(scope="session")
def day(site: Site) -> Site:
    """The same console in the midst of a day."""
    fill_a_day(site)
    return site


@pytest.fixture(scope="session")
def site_on_postgresql(
    tmp_path_factory: pytest.TempPathFactory, ledger_databases: LedgerDatabases, postgresql_cluster: PostgreSQL
) -> Iterator[Site]:
    """The same on PostgreSQL."""
    url = ledger_databases.make(postgresql_cluster)
    with open_site(database_url=url, folder=tmp_path_factory.mktemp("console-on-postgresql")) as opened:
        yield opened


@pytest.fixture(scope="session")
def hasty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A console whose sessions end after SHORT_IDLE_SECONDS without a request."""
    folder = tmp_path_factory.mktemp("hasty-console")
    database_url = make_sqlite_ledger(folder / "ledger.db")
    with open_site(database_url=database_url, folder=folder, max_idle_seconds=SHORT_IDLE_SECONDS) as opened:
        yield opened


@pytest.fixture(scope="session")
def chromium() -> Iterator[Browser]:
    """The browser that all tests share."""
    with sync_playwright() as playwright:
        browser = start_chromium(playwright)
        yield browser
        browser.close()


@pytest.fixture
def windows(chromium: Browser) -> Iterator[Windows]:
    """Windows of the browser, which are closed after the test."""
    opened = Windows(chromium)
    yield opened
    opened.close()


@pytest.fixture
def li_lei(windows: Windows, site: Site) -> Window:
    """The window of Li Lei, who may do everything."""
    return windows.open(site.url, LI_LEI)


@pytest.fixture
def han_meimei(windows: Windows, site: Site) -> Window:
    """The window of Han Meimei, who may do everything, too."""
    return windows.open(site.url, HAN_MEIMEI)
