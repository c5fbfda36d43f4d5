"""One browser for the tests of the page."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support import chromium
from support.chromium import Tab


@pytest.fixture(scope="session")
def site() -> Iterator[str]:
    from support.play import served

    with served() as url:
        yield url


@pytest.fixture(scope="session")
def browser() -> Iterator[Tab]:
    with chromium.chromium() as tab:
        yield tab


@pytest.fixture
def page(browser: Tab, site: str) -> Tab:
    """The page at work: its first pictures are drawn. It is opened once, but where a test has left it."""
    from support.play import open_page, status

    if not browser.js("location.href").startswith(site):
        browser.look(1280, 900)
        open_page(browser, site)
        assert browser.js("started.then((network) => typeof network)") == "function", status(browser)
    return browser
