"""The control API of a broker in tests, without a socket."""

import json
from typing import Any

from fluffle.broker.testing.server.operations import OperationDispatcher


class Api:
    """Client of the control API."""

    __slots__ = ("_serving",)

    def __init__(self, serving: OperationDispatcher) -> None:
        self._serving = serving

    async def told(self, path: str, **arguments: Any) -> tuple[int, Any]:
        """A status and what is told."""
        status, body = await self._serving.answer(path, json.dumps(arguments).encode())
        return status, json.loads(body)

    async def post(self, path: str, **arguments: Any) -> Any:
        """Result of a request that succeeds."""
        status, told = await self.told(path, **arguments)
        assert status == 200, told
        return told

    async def fails(self, path: str, **arguments: Any) -> tuple[int, str]:
        """A status and why."""
        status, told = await self.told(path, **arguments)
        assert told.keys() == {"error"}
        return status, told["error"]
