"""A port mapper for one Erlang node that sends it to its peers through proxies.

Erlang nodes find each other by asking epmd on the peer's machine for the port of a name.  Each
node of ours has an epmd of its own, which tells it the truth about itself, and of every other the
port of the proxy that stands between the two.

    request   length 2 | kind 1 | rest
    kinds     120 register (stays open while the node lives)   122 port of a name   110 all names
    answers   118 registered (creation 4)    119 port of a name
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

REGISTER, REGISTERED = 120, 118
PORT_OF, PORT_IS = 122, 119
NAMES = 110
HIDDEN_OR_NORMAL, TCP, VERSION_MAX, VERSION_MIN = 77, 0, 6, 5


class Registry:
    """Registered nodes, at any of the mappers, with their ports."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        self.creation = 1


class Epmd:
    """The mapper of one node."""

    def __init__(self, registry: Registry, through: Mapping[str, int]) -> None:
        """`through` are the proxies to the others, by name without host."""
        self._registry = registry
        self._through = through
        self.talks: set[asyncio.Task[None]] = set()
        """Connections that are open."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self.talks.add(connection)
        with suppress(asyncio.IncompleteReadError, ConnectionResetError):
            (size,) = struct.unpack(">H", await reader.readexactly(2))
            request = await reader.readexactly(size)
            if request[0] == REGISTER:
                await self._register(request, reader, writer)
            elif request[0] == PORT_OF:
                writer.write(self._port_of(request[1:].decode()))
            elif request[0] == NAMES:
                writer.write(self._names(writer.get_extra_info("sockname")[1]))
        writer.close()
        self.talks.remove(connection)

    async def _register(
        self, request: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Register a node for as long as it keeps the connection."""
        registry = self._registry
        (port,) = struct.unpack_from(">H", request, 1)
        (length,) = struct.unpack_from(">H", request, 9)
        name = request[11 : 11 + length].decode()
        registry.ports[name] = port
        registry.creation += 1
        writer.write(struct.pack(">BBI", REGISTERED, 0, registry.creation))
        await reader.read()
        if registry.ports.get(name) == port:
            del registry.ports[name]

    def _port_of(self, name: str) -> bytes:
        port = self._registry.ports.get(name)
        if port is None:
            return struct.pack(">BB", PORT_IS, 1)
        seen_at = self._through.get(name, port)
        kind = struct.pack(
            ">BBHBBHHH", PORT_IS, 0, seen_at, HIDDEN_OR_NORMAL, TCP, VERSION_MAX, VERSION_MIN,
            len(name),
        )  # fmt: skip
        return kind + name.encode() + struct.pack(">H", 0)

    def _names(self, own_port: int) -> bytes:
        lines = (f"name {name} at port {port}\n" for name, port in self._registry.ports.items())
        return struct.pack(">I", own_port) + "".join(lines).encode()


@asynccontextmanager
async def port_mapper(registry: Registry, through: Mapping[str, int]) -> AsyncIterator[int]:
    """Listening port mapper; yields its port."""
    mapper = Epmd(registry, through)
    server = await asyncio.start_server(mapper.serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await asyncio.gather(*mapper.talks)  # they end with their nodes, which are gone
