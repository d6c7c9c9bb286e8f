"""The pages in a real browser: one node and one Chromium for all of it."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.support.browser import Browser, Page, browser
from tests.support.management import Api, management

pytestmark = [pytest.mark.interop, pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with management(tmp_path_factory.mktemp("node")) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(api: Api, chromium: Browser) -> AsyncIterator[Page]:
    """A tab in which nobody has logged in; nothing may go wrong in it."""
    page = await chromium.page(f"{api.base}/")
    await page.until("document.activeElement.id === 'name'")
    yield page
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith(api.base)} <= {"about:blank"}
    await page.close()


async def log_in(page: Page, password: str = "guest") -> None:
    await page.type("#name", "guest")
    await page.type("#password", password)
    await page.press("Enter")


@pytest_asyncio.fixture(loop_scope="module")
async def page(stranger: Page) -> Page:
    """A tab of who has logged in."""
    await log_in(stranger)
    await stranger.until("document.querySelector('#nav a[aria-current]')")
    return stranger


async def test_who_gives_a_wrong_password_stays_where_he_is(stranger: Page) -> None:
    await log_in(stranger, "wrong")
    assert await stranger.text("#failed:not(:empty)") == "Login failed"
    assert await stranger.value("document.activeElement.id") == "password"
    assert await stranger.value("sessionStorage.length") == 0
    await log_in(stranger)
    await stranger.until("document.querySelector('#nav a[aria-current]')")


async def test_who_logs_out_is_forgotten(page: Page) -> None:
    assert await page.value("document.cookie") == ""
    await page.click("#logout")
    await page.until("document.querySelector('form.login') && !document.querySelector('#nav a')")
    assert await page.value("sessionStorage.length") == 0
