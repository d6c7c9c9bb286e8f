"""A node that serves the management API, and a client of it, for tests."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import ClientSession
from yarl import URL

from fluffle.broker.config.config import Config, ListenAddress
from fluffle.broker.node import Node

HERE = ListenAddress("127.0.0.1", 0)
GUEST = ("guest", "guest")


def authorization(user: tuple[str, str]) -> dict[str, str]:
    """The header of a name and a password."""
    return {"authorization": f"Basic {base64.b64encode(':'.join(user).encode()).decode()}"}


class Api:
    """Client of the management API of a node."""

    __slots__ = ("_session", "base", "node")

    def __init__(self, node: Node, session: ClientSession) -> None:
        self.node = node
        self._session = session
        host, port = node.addresses["management"]
        self.base = f"http://{host}:{port}"

    @property
    def amqp_port(self) -> int:
        return self.node.addresses["amqp"][1]

    async def ask(
        self,
        method: str,
        path: str,
        *,
        user: tuple[str, str] | None = GUEST,
        headers: Mapping[str, str] | None = None,
        **more: Any,
    ) -> tuple[int, Any]:
        """A status, and what is answered: JSON as a value, nothing as None.

        The path as it is sent; a user is a name and a password.
        """
        sent = {**(headers or {}), **(authorization(user) if user else {})}
        async with self._request(method, path, headers=sent, **more) as response:
            if response.content_type != "application/json":
                return response.status, await response.read() or None
            return response.status, await response.json()

    async def location(self, method: str, path: str, **more: Any) -> tuple[int, str]:
        """A status, and where it is said that something new is."""
        sent = authorization(GUEST)
        async with self._request(method, path, headers=sent, **more) as response:
            return response.status, response.headers.get("location", "")

    async def headers(self, method: str, path: str) -> Mapping[str, str]:
        """Headers of an answer, by name in any case."""
        async with self._request(method, path, headers=authorization(GUEST)) as response:
            headers: Mapping[str, str] = response.headers
            return headers

    def _request(self, method: str, path: str, **more: Any) -> AbstractAsyncContextManager[Any]:
        url = URL(f"{self.base}/api/{path}", encoded=True)
        return self._session.request(method, url, **more)

    async def get(self, path: str) -> Any:
        """Object at a path, which must exist."""
        status, answer = await self.ask("GET", path)
        assert status == 200, (status, answer)
        return answer


@asynccontextmanager
async def management(data_dir: Path, **options: Any) -> AsyncIterator[Api]:
    """A node, as long as the block lasts."""
    node = Node(Config(data_dir=data_dir, listen=HERE, management_listen=HERE, **options))
    await node.start()
    try:
        async with ClientSession() as session:
            yield Api(node, session)
    finally:
        await node.stop("the test is over")
