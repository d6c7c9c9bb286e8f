"""Chromium without a window, driven by the DevTools protocol over a WebSocket.

    async with browser(folder) as chromium:
        page = await chromium.page("http://127.0.0.1:15672/")
        await page.type("#name", "guest")
        await page.until("document.querySelector('h1')?.textContent === 'Overview'")

Nothing sleeps: a waiting test hears from the page itself when it has changed.
"""

from __future__ import annotations

import asyncio
import base64
import json
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType

from tests.support.deadlines import DEADLINE_S
from tests.support.require import require

FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-extensions",
    "--disable-sync", "--remote-debugging-port=0", "--hide-scrollbars", "--mute-audio",
)  # fmt: skip
LISTENS = b"DevTools listening on "
KEYS = {"Enter": ("Enter", 13, "\r"), "Tab": ("Tab", 9, ""), "Escape": ("Escape", 27, "")}
"""Keys by name: code, number, and what is typed by them."""

WAIT = """new Promise((resolve) => {
  const observer = new MutationObserver(look);
  const options = {subtree: true, childList: true, attributes: true, characterData: true};
  observer.observe(document, options);
  addEventListener("focusin", look);
  function look() {
    const found = (%s);
    if (!found) return;
    observer.disconnect();
    removeEventListener("focusin", look);
    resolve(found);
  }
  look();
})"""


class Browser:
    """Running browser; every message to it has a number, and so has its answer."""

    __slots__ = ("_answers", "_numbers", "_pages", "_socket")

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._pages: dict[str, Page] = {}

    async def ask(self, method: str, session: str | None = None, **params: Any) -> Any:
        """Answer to a message.  RuntimeError for what it cannot do, TimeoutError."""
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        message = {"id": number, "method": method, "params": params}
        await self._socket.send_json(message | ({"sessionId": session} if session else {}))
        try:
            async with asyncio.timeout(DEADLINE_S):
                return await answer
        except TimeoutError:
            raise TimeoutError(f"no answer to {method} {params}") from None

    async def listen(self) -> None:
        """Hear it until it hangs up."""
        async for message in self._socket:
            if message.type is not WSMsgType.TEXT:
                break
            result = json.loads(message.data)
            answer = self._answers.pop(result.get("id", 0), None)
            if answer is not None and not answer.done():
                if "error" in result:
                    answer.set_exception(RuntimeError(result["error"]["message"]))
                else:
                    answer.set_result(result["result"])
            elif page := self._pages.get(result.get("sessionId", "")):
                page.hear(result["method"], result["params"])

    async def page(self, url: str, *, width: int = 1280, height: int = 900) -> Page:
        """A tab that remembers nothing of others, once it is loaded."""
        context = (await self.ask("Target.createBrowserContext"))["browserContextId"]
        about = {"url": "about:blank", "browserContextId": context}
        target = (await self.ask("Target.createTarget", **about))["targetId"]
        attached = await self.ask("Target.attachToTarget", targetId=target, flatten=True)
        session = attached["sessionId"]
        page = self._pages[session] = Page(self, session, context)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await page.ask(f"{domain}.enable")
        await page.resize(width, height)
        await page.open(url)
        return page


class Page:
    """Tab of the browser, and its errors."""

    __slots__ = ("_browser", "_context", "_loaded", "_session", "errors", "requests")

    def __init__(self, browser: Browser, session: str, context: str) -> None:
        self._browser = browser
        self._session = session
        self._context = context
        self._loaded = asyncio.Event()
        self.errors: list[str] = []
        """Errors in the console: exceptions, and what the policy of the page forbids."""
        self.requests: list[str] = []

    def hear(self, event: str, params: Any) -> None:
        """Something has happened."""
        if event == "Page.loadEventFired":
            self._loaded.set()
        elif event == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif event == "Runtime.exceptionThrown":
            self.errors.append(json.dumps(params["exceptionDetails"]))
        elif event == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
            self.errors.append(json.dumps(params["args"]))
        elif event == "Log.entryAdded":
            entry = params["entry"]
            if entry["level"] in ("error", "warning") and entry["source"] != "network":
                self.errors.append(entry["text"])

    async def ask(self, method: str, **params: Any) -> Any:
        return await self._browser.ask(method, self._session, **params)

    async def close(self) -> None:
        """With all that it remembers."""
        await self._browser.ask("Target.disposeBrowserContext", browserContextId=self._context)

    async def open(self, url: str) -> None:
        """Another document, once it is loaded."""
        self._loaded.clear()
        await self.ask("Page.navigate", url=url)
        async with asyncio.timeout(DEADLINE_S):
            await self._loaded.wait()

    async def value(self, expression: str) -> Any:
        """Value of an expression of JavaScript, or of the promise that it is."""
        result = await self.ask(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(f"{expression}: {json.dumps(result['exceptionDetails'])}")
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        """Its value, once that is true.  TimeoutError with what is shown instead."""
        try:
            return await self.value(WAIT % expression)
        except TimeoutError:
            shown = await self.value("document.body.innerText")
            raise TimeoutError(f"never: {expression}\n{shown}") from None

    async def text(self, selector: str) -> str:
        """Text of an element, once it exists."""
        found: str = await self.until(f"document.querySelector({selector!r})?.innerText")
        return found

    async def click(self, selector: str) -> None:
        """Once it is there."""
        await self.until(f"document.querySelector({selector!r})")
        await self.value(f"document.querySelector({selector!r}).click()")

    async def type(self, selector: str, text: str) -> None:
        """Instead of what stands in a field."""
        await self.until(f"document.querySelector({selector!r})")
        await self.value(f"(() => {{const it = document.querySelector({selector!r});"
                         "it.focus(); it.select(); })()")  # fmt: skip
        await self.ask("Input.insertText", text=text)

    async def press(self, key: str, *, shift: bool = False) -> None:
        """A key, where the focus is."""
        code, number, text = KEYS.get(key, (f"Key{key.upper()}", ord(key.upper()[0]), key))
        common = {
            "key": key, "code": code, "windowsVirtualKeyCode": number, "modifiers": 8 * shift,
        }  # fmt: skip
        await self.ask("Input.dispatchKeyEvent", type="keyDown", text=text, **common)
        await self.ask("Input.dispatchKeyEvent", type="keyUp", **common)

    async def resize(self, width: int, height: int) -> None:
        await self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=width < 600,
        )  # fmt: skip

    async def prefer(self, **features: str) -> None:
        """Emulate features of the user's system: `prefers_color_scheme="dark"`."""
        result = [
            {"name": key.replace("_", "-"), "value": value} for key, value in features.items()
        ]
        await self.ask("Emulation.setEmulatedMedia", features=result)

    async def screenshot(self) -> bytes:
        """PNG."""
        result = await self.ask("Page.captureScreenshot", format="png")
        return base64.b64decode(result["data"])


@asynccontextmanager
async def browser(folder: Path) -> AsyncIterator[Browser]:
    """Chromium, as long as the block lasts; skipped where it is not installed."""
    command = require("chromium")
    process = await asyncio.create_subprocess_exec(
        command, *FLAGS, f"--user-data-dir={folder}", "about:blank",
        stdin=DEVNULL, stdout=DEVNULL, stderr=PIPE,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        async with asyncio.timeout(DEADLINE_S):
            address = await address_in(process.stderr)
        draining = asyncio.create_task(drain(process.stderr))
        async with ClientSession() as session, session.ws_connect(address, max_msg_size=0) as ws:
            found = Browser(ws)
            listening = asyncio.create_task(found.listen())
            yield found
            await found.ask("Browser.close")
            await listening
        await draining
    finally:
        if process.returncode is None:
            async with asyncio.timeout(DEADLINE_S):
                await ended(process)


async def address_in(log: asyncio.StreamReader) -> str:
    said = []
    while line := await log.readline():
        if line.startswith(LISTENS):
            return line.removeprefix(LISTENS).decode().strip()
        said.append(line.decode(errors="replace"))
    raise RuntimeError("the browser does not start: " + "".join(said))


async def drain(log: asyncio.StreamReader) -> None:
    while await log.read(1 << 16):
        pass


async def ended(process: asyncio.subprocess.Process) -> None:
    """Wait for the end of a process that was asked to end or has failed; kill it if it is late."""
    try:
        async with asyncio.timeout(DEADLINE_S):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
