"""The pictures of docs/pages.md: a node with something to see, and what a browser shows of it.

python -m tests.screenshots docs/images
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import aio_pika
from aio_pika.abc import AbstractChannel

from tests.support.browser import Page, browser
from tests.support.management import management

BYTES_MAX = 150_000
QUORUM: dict[str, Any] = {"x-queue-type": "quorum"}
QUEUES: dict[str, dict[str, Any]] = {
    "billing": {**QUORUM, "x-dead-letter-exchange": "dead"},
    "shipping": QUORUM,
    "audit-log": QUORUM,
    "mail": {"x-message-ttl": 3_600_000, "x-max-length": 10_000},
    "dead-letters": {},
    "thumbnails": {"x-max-priority": 5},
}
EXCHANGES = {"events": "topic", "orders": "direct", "dead": "fanout", "audit": "fanout"}
BINDINGS = (
    ("events", "billing", "order.#"), ("events", "shipping", "order.paid"),
    ("events", "mail", "*.created"), ("orders", "billing", "eu"), ("orders", "thumbnails", "eu"),
    ("dead", "dead-letters", ""), ("audit", "audit-log", ""),
)  # fmt: skip
KEYS = ("order.created", "order.paid", "user.created")


class Shot(NamedTuple):
    """Settings of one picture."""

    name: str
    page: str
    colours: str = "light"
    width: int = 1200
    height: int = 800
    click: str = ""
    """Selector of an element that is clicked first."""


SHOTS = (
    Shot("overview", "overview", height=720),
    Shot("overview-dark", "overview", colours="dark", height=720),
    Shot("queue", "queue/%2F/billing", height=1180, click="#peek"),
    Shot("exchanges", "exchanges?name=e", height=760),
    Shot("explain", "explain?vhost=%2F&exchange=events&key=order.created", height=900,
         click="form[data-key=explain] button"),
    Shot("queues-phone", "queues", width=360, height=720),
)  # fmt: skip


async def main(folder: Path, data: Path, profile: Path) -> None:
    """Write all of them; a node keeps its data there, and a browser what it knows."""
    async with management(data) as api, browser(profile) as chromium:
        connection = await aio_pika.connect(
            f"amqp://guest:guest@127.0.0.1:{api.amqp_port}/",
            client_properties={"connection_name": "orders-service"},
        )
        async with connection:
            channel = await connection.channel()
            await furnish(channel)
            page = await chromium.page(f"{api.base}/")
            await page.type("#name", "guest")
            await page.type("#password", "guest")
            await page.press("Enter")
            await page.until("document.querySelector('#main h1')")
            await work(channel, page)
            for shot in SHOTS:
                await take(page, shot, folder)


async def furnish(channel: AbstractChannel) -> None:
    """Make queues and messages to be seen."""
    exchanges = {
        name: await channel.declare_exchange(name, kind) for name, kind in EXCHANGES.items()
    }
    queues = {
        name: await channel.declare_queue(name, durable=True, arguments=arguments)
        for name, arguments in QUEUES.items()
    }
    for exchange, queue, key in BINDINGS:
        await queues[queue].bind(exchanges[exchange], key)
    await exchanges["audit"].bind(exchanges["events"], "#")


async def work(channel: AbstractChannel, page: Page) -> None:
    """Publish and consume while a page is refreshed some times, so that charts show something."""
    events = await channel.get_exchange("events")
    billing = await channel.get_queue("billing")
    for turn in range(6):
        for number in range(60 + 40 * (turn % 3)):
            body = f'{{"order": {number}, "total": {number * 3.5}}}'.encode()
            message = aio_pika.Message(
                body, content_type="application/json", headers={"region": "eu"}
            )
            await events.publish(message, KEYS[number % 3])
        for _ in range(20 + 15 * turn):
            got = await billing.get(fail=False)
            if got is not None and turn < 5:
                await got.ack()
        drawn = int(await page.value("document.getElementById('main').dataset.drawn"))
        await page.until(f"document.getElementById('main').dataset.drawn > {drawn}")


async def take(page: Page, shot: Shot, folder: Path) -> None:
    """Take one picture."""
    await page.resize(shot.width, shot.height)
    await page.prefer(prefers_color_scheme=shot.colours, prefers_reduced_motion="reduce")
    await page.value(f"location.hash = '#/{shot.page}'")
    name = shot.page.partition("/")[0].partition("?")[0]
    await page.until(f"document.querySelector('#main[data-page={name}]:not([aria-busy]) > h1')")
    if shot.click:
        await page.click(shot.click)
        await page.until("document.querySelector('.messages li, #explanation')")
        await page.value("document.getElementById('done').textContent = ''")
    picture = await page.screenshot()
    assert len(picture) <= BYTES_MAX, (shot.name, len(picture))
    (folder / f"{shot.name}.png").write_bytes(picture)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the pictures go")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory() as data, TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        asyncio.run(main(arguments.folder, Path(data), Path(profile)))
