"""The pages in a real browser: one node and one Chromium for all of it."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import aio_pika
import pytest
import pytest_asyncio
from aio_pika.abc import AbstractChannel

from tests.suite.seeds import is_night
from tests.support.browser import Browser, Page, browser
from tests.support.management import Api, management

pytestmark = [
    pytest.mark.interop,
    pytest.mark.slow("a Chromium starts and draws every page"),
    pytest.mark.asyncio(loop_scope="module"),
]

MARKUP = '<img src="x" onerror="document.title=1">&amp;'
"""A name that must not become an element."""
QUEUES = 10_000 if is_night() else 2_000

PAGES = {
    "overview": "Messages a second",
    "connections": "a client of the test",
    "channels": "confirm",
    "sessions": "No MQTT client has a session.",
    "exchanges": "What leads where",
    "exchange/%2F/events": "order.#",
    "queues": "orders",
    "queue/%2F/orders": "Who holds messages",
    "queue/%2F/three": "Committed",
    "explain?vhost=%2F&exchange=events": "Which bindings a message would match",
    "policies": "short",
    "users": "administrator",
    "vhosts": "Limits of virtual hosts",
    "cluster": "Memory",
    "definitions": "no messages",
    "nothing": "There is no such page",
}
"""Text on each page."""

CONTROLS = ("button", "link", "textbox", "searchbox", "combobox", "checkbox", "spinbutton")
"""Roles of controls, as a screen reader names them."""

CONTRAST = """(() => {
  const context = new OffscreenCanvas(1, 1).getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = colour;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (colour) => rgba(colour).slice(0, 3)
    .map((part) => part / 255)
    .map((part) => part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4)
    .reduce((sum, part, at) => sum + part * [0.2126, 0.7152, 0.0722][at], 0);
  const ground = (element) => {
    for (let at = element; at; at = at.parentElement) {
      const colour = getComputedStyle(at).backgroundColor;
      if (rgba(colour)[3] === 255) return colour;
    }
  };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const isText = [...element.childNodes].some((each) => each.nodeType === 3 && each.data.trim());
    if (!isText || element.closest("svg, noscript, :disabled, option")) continue;
    if (!element.checkVisibility()) continue;
    const pair = [getComputedStyle(element).color, ground(element)].map(luminance);
    const ratio = (Math.max(...pair) + 0.05) / (Math.min(...pair) + 0.05);
    if (ratio < 4.5) found.push(`${element.tagName} "${element.textContent}" ${ratio.toFixed(2)}`);
  }
  return found;
})()"""
"""Texts that are hard to read: WCAG 2.2, 1.4.3."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def api(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Api]:
    async with management(tmp_path_factory.mktemp("node")) as served:
        yield served


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def chromium(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    async with browser(tmp_path_factory.mktemp("chromium")) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def channel(api: Api) -> AsyncIterator[AbstractChannel]:
    """Channel of a client that has declared something, and holds a message."""
    connection = await aio_pika.connect(
        f"amqp://guest:guest@127.0.0.1:{api.amqp_port}/",
        client_properties={"connection_name": "a client of the test"},
    )
    async with connection:
        channel = await connection.channel()
        events = await channel.declare_exchange("events", "topic")
        orders = await channel.declare_queue("orders")
        await orders.bind(events, "order.#")
        quorum: dict[str, Any] = {"x-queue-type": "quorum"}
        await channel.declare_queue("three", durable=True, arguments=quorum)
        assert (await api.ask("PUT", f"queues/%2F/{quote(MARKUP, safe='')}", json={}))[0] == 201
        await publish(channel, "orders", "held", "kept")
        await orders.get()
        policy = {"pattern": "^short", "definition": {"max-length": 9}, "apply-to": "queues"}
        status, _reported = await api.ask("PUT", "policies/%2F/short", json=policy)
        assert status == 201
        yield channel


async def publish(channel: AbstractChannel, queue: str, *bodies: str) -> None:
    for body in bodies:
        await channel.default_exchange.publish(aio_pika.Message(body.encode()), queue)


@pytest_asyncio.fixture(loop_scope="module")
async def stranger(api: Api, chromium: Browser) -> AsyncIterator[Page]:
    """A tab in which nobody has logged in; nothing may go wrong in it."""
    page = await chromium.page(f"{api.base}/")
    await page.until("document.activeElement.id === 'name'")
    yield page
    assert page.errors == []
    assert {url for url in page.requests if not url.startswith((api.base, "blob:"))} == set()
    await page.close()


async def log_in(page: Page, password: str = "guest") -> None:
    await page.type("#name", "guest")
    await page.type("#password", password)
    await page.press("Enter")


@pytest_asyncio.fixture(loop_scope="module")
async def page(stranger: Page, channel: AbstractChannel) -> Page:
    """A tab of who has logged in."""
    await log_in(stranger)
    await drawn(stranger, "overview")
    return stranger


async def drawn(page: Page, name: str) -> None:
    """Return once that page is there."""
    name = name.partition("/")[0].partition("?")[0]
    await page.until(
        f"document.querySelector('#main[data-page={name}]:not([aria-busy]) > h1') !== null"
    )


async def go(page: Page, name: str) -> None:
    await page.value(f"location.hash = '#/{name}'")
    await drawn(page, name)


async def unfold(page: Page, title: str) -> None:
    """Show what is folded."""
    await page.until(
        f"[...document.querySelectorAll('summary')].some((it) => it.innerText === '{title}')"
    )
    await page.value(f"document.querySelector('details[data-key=\"{title}\"]').open = true")


async def test_who_gives_a_wrong_password_stays_where_he_is(stranger: Page) -> None:
    await log_in(stranger, "wrong")
    assert await stranger.text("#failed:not(:empty)") == "Login failed"
    assert await stranger.value("document.activeElement.id") == "password"
    assert await stranger.value("sessionStorage.length") == 0
    await log_in(stranger)
    await drawn(stranger, "overview")


async def test_who_logs_out_is_forgotten(page: Page) -> None:
    assert await page.value("document.cookie") == ""
    await page.click("#logout")
    await page.until("document.querySelector('form.login') && !document.querySelector('#nav a')")
    assert await page.value("sessionStorage.length") == 0


async def test_every_page_shows_what_there_is(page: Page) -> None:
    for name, expected in PAGES.items():
        await go(page, name)
        assert expected in await page.text("#main"), name
        assert await page.value("document.getElementById('failed').textContent") == "", name
        assert page.errors == [], name


async def test_what_clients_call_things_is_text(page: Page) -> None:
    await go(page, "queues")
    assert MARKUP in await page.text("#main")
    assert await page.value("document.querySelectorAll('#main img').length") == 0
    await go(page, f"queue/%2F/{quote(MARKUP, safe='')}")
    assert await page.text("h1 code") == MARKUP


async def test_messages_are_published_seen_moved_and_purged(
    page: Page, api: Api, channel: AbstractChannel
) -> None:
    for name in ("from", "onto"):
        await channel.declare_queue(name)
    await go(page, "queue/%2F/from")
    await unfold(page, "Publish a message")
    await page.type("#publish-payload", "hello <b>there</b>")
    await page.type("#publish-headers", "n = 1")
    await page.click("form[data-key=publish] button")
    assert await page.text("#done:not(:empty)") == "Published, and routed."
    await page.click("#peek")
    assert await page.text(".messages pre") == "hello <b>there</b>"
    assert "n=1" in await page.text(".messages li")
    assert (await api.get("queues/%2F/from"))["messages_ready"] == 1
    await unfold(page, "Move messages")
    await page.type("#move-to", "onto")
    await page.click("form[data-key=move] button")
    await page.until("document.getElementById('done').innerText === '1 moved to “onto”.'")
    await go(page, "queue/%2F/onto")
    await page.click("#purge")
    await page.press("Escape")
    await page.until("document.querySelector('dialog') === null")
    assert (await api.get("queues/%2F/onto"))["messages_ready"] == 1
    await page.click("#purge")
    await page.click("dialog button.danger")
    await page.until("document.getElementById('done').innerText === '“onto” is purged.'")
    assert (await api.get("queues/%2F/onto"))["messages_ready"] == 0


async def test_a_queue_comes_and_goes(page: Page, api: Api) -> None:
    await go(page, "queues")
    await unfold(page, "Add a queue")
    await page.type("#declare-name", "brief")
    await page.type("#declare-arguments", "x-max-length = 5")
    await page.click("form[data-key=declare] button")
    await page.until("document.getElementById('done').innerText === 'Queue “brief” is there.'")
    assert (await api.get("queues/%2F/brief"))["arguments"]["x-max-length"] == 5
    await go(page, "queue/%2F/brief")
    await page.click("#delete")
    await page.click("dialog button.danger")
    await drawn(page, "queues")
    assert (await api.ask("GET", "queues/%2F/brief"))[0] == 404


async def test_an_error_is_shown_as_the_api_says_it(page: Page) -> None:
    await go(page, "queues")
    await unfold(page, "Add a queue")
    await page.type("#declare-name", "orders")
    await page.click("form[data-key=declare] button")
    assert "inequivalent arg 'durable'" in await page.text("#failed:not(:empty)")


async def test_what_cannot_be_loaded_is_not_the_page_before_it(page: Page) -> None:
    await go(page, "queues")
    await go(page, "queue/%2F/nowhere")
    assert await page.text("#main > h1") == "nowhere"
    assert await page.text("#main > h1 + p") == await page.text("#failed:not(:empty)")


async def test_a_list_without_a_match_has_one_page(page: Page) -> None:
    await go(page, "queues?name=nowhere")
    assert "page 1 of 1" in await page.text(".pager")


async def test_why_a_message_goes_nowhere(page: Page) -> None:
    await go(page, "explain")
    await page.type("#explain-exchange", "events")
    await page.type("#explain-routing_key", "user.new")
    await page.press("Enter")
    answer = await page.text("#explanation")
    assert "Nowhere" in answer
    assert "'order'" in answer


async def test_by_the_keyboard_alone(page: Page) -> None:
    await page.value("document.activeElement.blur()")
    await page.press("g")
    await page.press("q")
    await drawn(page, "queues")
    await page.press("/")
    assert await page.value("document.activeElement.id") == "filter"
    await page.ask("Input.insertText", text="three")
    await page.until("document.querySelectorAll('#main tbody tr').length === 1")
    assert await page.value("document.activeElement.id") == "filter"
    for _ in range(30):
        await page.press("Tab")
        if await page.value("document.activeElement.matches('tbody a')"):
            break
    await page.press("Enter")
    await drawn(page, "queue")
    await page.value("document.activeElement.blur()")
    await page.press("?")
    await page.until("document.querySelector('dialog[open]') !== null")
    await page.press("Escape")
    await page.until("document.querySelector('dialog') === null")


async def test_the_way_past_the_navigation(page: Page) -> None:
    await page.value("document.querySelector('.skip').focus()")
    assert await page.value("document.querySelector('.skip').getBoundingClientRect().left >= 0")
    await page.press("Enter")
    await page.until("document.activeElement.id === 'main'")
    assert await page.value("document.getElementById('main').dataset.page") == "overview"


async def test_what_is_typed_survives_a_refresh(page: Page, channel: AbstractChannel) -> None:
    await channel.declare_queue("refreshed")
    await go(page, "queue/%2F/refreshed")
    await unfold(page, "Publish a message")
    await page.type("#publish-payload", "half a mess")
    await page.value("window.field = document.activeElement, scrollTo(0, 200), 0")
    await publish(channel, "refreshed", "news")
    await page.value("document.dispatchEvent(new Event('visibilitychange'))")
    await page.until("document.querySelector('.legend b').innerText === '1'")
    assert await page.value("document.activeElement === window.field && window.field.value") == (
        "half a mess"
    )
    assert await page.value("scrollY") == 200
    assert await page.value("document.querySelector('details[open]') !== null")


async def test_who_has_no_tag_but_management_sees_what_he_may(
    stranger: Page, api: Api, channel: AbstractChannel
) -> None:
    reader = {"password": "secret", "tags": "management"}
    rights = {"configure": "", "write": "", "read": ".*"}
    assert (await api.ask("PUT", "users/reader", json=reader))[0] == 201
    assert (await api.ask("PUT", "permissions/%2F/reader", json=rights))[0] == 201
    await stranger.type("#name", "reader")
    await stranger.type("#password", "secret")
    await stranger.press("Enter")
    await drawn(stranger, "overview")
    await go(stranger, "queue/%2F/three")
    assert "Add a member" not in await stranger.text("#main")
    await go(stranger, "cluster")
    assert "needs the tag monitoring" in await stranger.text("#main[data-page=cluster]")
    await go(stranger, "queues")
    assert (await api.ask("DELETE", "users/reader"))[0] == 204
    await stranger.value("document.dispatchEvent(new Event('visibilitychange'))")
    assert "not valid any more" in await stranger.text("form.login")


async def test_on_a_phone_nothing_is_beside_the_screen_and_all_controls_have_names(
    page: Page,
) -> None:
    await page.resize(320, 640)
    for name in PAGES:
        await go(page, name)
        assert await page.value("document.documentElement.scrollWidth") <= 320, name
        tree = (await page.ask("Accessibility.getFullAXTree"))["nodes"]
        controls = [each for each in tree if each.get("role", {}).get("value") in CONTROLS]
        assert controls
        assert [each for each in controls if not each["name"]["value"]] == [], name


@pytest.mark.parametrize("colours", ["dark", "light"])
async def test_texts_can_be_read(page: Page, colours: str) -> None:
    await page.prefer(prefers_color_scheme=colours, prefers_reduced_motion="reduce")
    for name in PAGES:
        await go(page, name)
        await page.value("document.querySelectorAll('details').forEach((it) => (it.open = true))")
        assert await page.value(CONTRAST) == [], name


async def test_dark_or_light_is_remembered(page: Page, api: Api) -> None:
    await page.prefer(prefers_color_scheme="light")
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light = await page.value(ground)
    await page.click("#header [aria-label='Dark or light']")
    dark = await page.value(ground)
    assert dark != light
    await page.open(f"{api.base}/")
    await drawn(page, "overview")
    assert await page.value(ground) == dark


async def test_of_many_queues_only_those_of_a_page_are_asked_for(page: Page, api: Api) -> None:
    queues = [
        {
            "name": f"q{number:05}",
            "vhost": "/",
            "durable": True,
            "auto_delete": False,
            "arguments": {},
        }
        for number in range(QUEUES)
    ]
    status, answer = await api.ask("POST", "definitions", json={"queues": queues})
    assert status == 204, answer
    await page.value("window.began = performance.now(), location.hash = '#/queues?name=q'")
    await page.until("document.querySelectorAll('#main tbody tr').length === 100")
    took_ms = await page.value("performance.now() - window.began")
    print(f"first 100 of {QUEUES:,} queues after {took_ms:.0f} ms")
    assert f"page 1 of {QUEUES // 100}" in await page.text(".pager")
    assert "page_size=100" in [url for url in page.requests if "/api/queues" in url][-1]
    await page.click("button[aria-label='Last page']")
    await page.until(f"document.querySelector('#main tbody td').innerText === 'q{QUEUES - 100:05}'")
