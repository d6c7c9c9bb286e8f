"""The control socket of a node: made for its owner alone, and gone when the node is.

The node that opens it has locked the data directory: a socket that is there already has no owner.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from fluffle.broker.admin.context import NodeContext
from fluffle.broker.base.errors import StartFailed
from fluffle.broker.core.services import Services
from fluffle.broker.process.data_directory import SOCKET_NAME, control_address

if TYPE_CHECKING:
    from fluffle.broker.admin.all_nodes import PeerRequest
    from fluffle.broker.admin.connection import ControlConnection
    from fluffle.broker.cluster.rpc import Reply

ALL_BUT_OWNER = 0o177
"""The umask under which a socket has mode 0600 from its first moment."""


class ControlSocket:
    """The listening control socket of one node."""

    def __init__(
        self,
        data_dir: Path,
        context: NodeContext,
        services: Services,
        on_fatal: Callable[[Exception], None],
    ) -> None:
        """`on_fatal` gets a broken assertion."""
        self._path = data_dir / SOCKET_NAME
        self._parts = context
        self._services = services
        self._on_fatal = on_fatal
        self._open: set[ControlConnection] = set()
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        """Accept.  StartFailed."""
        try:
            listening = bound_socket(self._path)
        except OSError as error:
            raise StartFailed(
                f"cannot make the control socket {self._path} ({error.strerror or error}); "
                "name another place with --data-dir"
            ) from error
        if (cluster := self._parts.cluster) is not None:
            cluster.serve_requests(self._answer)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(self._new_connection, sock=listening)

    def _new_connection(self) -> ControlConnection:
        from fluffle.broker.admin.connection import ControlConnection  # noqa: PLC0415  slow, and
        from fluffle.broker.admin.dispatch import VERBS, Dispatcher  # noqa: PLC0415  seldom asked

        dispatcher = Dispatcher(self._parts, VERBS, self._on_fatal)
        return ControlConnection(dispatcher, self._services, self._open)

    def _answer(self, request: bytes, reply: Reply) -> PeerRequest:
        """Handler of a request from another node."""
        from fluffle.broker.admin.all_nodes import PeerRequest, peer_dispatcher  # noqa: PLC0415  as above

        dispatcher = peer_dispatcher(self._parts, self._on_fatal)
        return PeerRequest(dispatcher, self._services, request, reply)

    def close(self) -> None:
        """Accept no more, hang up on all clients, and leave nothing behind."""
        if self._server is None:
            return
        self._server.close()
        for conversation in tuple(self._open):
            conversation.drop()
        self._path.unlink(missing_ok=True)


def bound_socket(path: Path) -> socket.socket:
    """A socket at `path`, in the place of one that was left behind.  OSError."""
    if path.is_socket():
        path.unlink()
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(ALL_BUT_OWNER)
    try:
        with control_address(path.parent) as address:
            listening.bind(address)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(mask)
    return listening
