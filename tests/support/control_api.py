"""The control API of a broker in tests, without a socket."""

import json
from typing import Any

from fluffle.broker.testing.server.operations import OperationDispatcher


class Api:
    """Client of the control API."""

    __slots__ = ("_serving",)

    def __init__(self, serving: OperationDispatcher) -> None:
        self._serving = serving

    async def reported(self, path: str, **arguments: Any) -> tuple[int, Any]:
        """A status and the answer."""
        status, body = await self._serving.answer(path, json.dumps(arguments).encode())
        return status, json.loads(body)

    async def post(self, path: str, **arguments: Any) -> Any:
        """Result of a request that succeeds."""
        status, result = await self.reported(path, **arguments)
        assert status == 200, result
        return result

    async def fails(self, path: str, **arguments: Any) -> tuple[int, str]:
        """A status and why."""
        status, result = await self.reported(path, **arguments)
        assert result.keys() == {"error"}
        return status, result["error"]
