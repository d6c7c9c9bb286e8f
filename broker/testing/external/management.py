"""RabbitMQ's management API, as far as tests need it: what AMQP has no methods for."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from functools import partial
from http import HTTPStatus
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import Request, urlopen

PATIENCE_S = 10.0


class ManagementError(Exception):
    """Management API that does not answer, or answers with an error."""


class Management:
    """Where it is, and who asks."""

    __slots__ = ("_authorization", "url")

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._authorization = f"Basic {b64encode(f'{user}:{password}'.encode()).decode()}"

    async def ask(self, method: str, *path: str, content: object = None, **query: str) -> Any:
        """Return what it answers; None for nothing.  ManagementError."""
        asking = partial(self.ask_now, method, *path, content=content, **query)
        return await asyncio.to_thread(asking)

    def ask_now(self, method: str, *path: str, content: object = None, **query: str) -> Any:
        """Send a request and block until it is answered."""
        return self._send(method, path, content, query)[1]

    def make_now(self, *path: str, content: object) -> bool:
        """Whether it was not there before; else it is as asked for now.  ManagementError."""
        return self._send("PUT", path, content, {})[0] == HTTPStatus.CREATED

    def _send(
        self, method: str, path: tuple[str, ...], content: object, query: dict[str, str]
    ) -> tuple[int, Any]:
        url = "/".join((self.url, "api", *(quote(each, safe="") for each in path)))
        if query:
            url = f"{url}?{urlencode(query)}"
        data = None if content is None else json.dumps(content).encode()
        headers = {"Authorization": self._authorization, "Content-Type": "application/json"}
        request = Request(url, data, headers, method=method)
        try:
            with urlopen(request, timeout=PATIENCE_S) as response:
                status, answer = response.status, response.read()
        except HTTPError as error:
            with error:
                why = error.read().decode(errors="replace")
                raise ManagementError(f"{method} {url}: {error.code} {why}") from error
        except (URLError, OSError) as error:
            raise ManagementError(f"{method} {url}: {error}") from error
        return status, json.loads(answer) if answer else None
