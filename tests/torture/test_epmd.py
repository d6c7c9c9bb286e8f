"""The port mapper tells a node the truth about itself, and of the others where its proxies are."""

import asyncio
import struct

from tests.torture.epmd import Registry, port_mapper


def request(kind: int, rest: bytes = b"") -> bytes:
    return struct.pack(">HB", len(rest) + 1, kind) + rest


def registration(name: str, port: int) -> bytes:
    head = struct.pack(">HBBHHH", port, 77, 0, 6, 5, len(name))
    return request(120, head + name.encode() + b"\0\0")


async def ask(port: int, data: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(data)
    answer = await reader.read()
    writer.close()
    return answer


async def port_of(mapper: int, name: str) -> int | None:
    answer = await ask(mapper, request(122, name.encode()))
    assert answer[0] == 119
    if answer[1]:
        return None
    assert answer[10:] == struct.pack(">H", len(name)) + name.encode() + b"\0\0"
    return int(struct.unpack_from(">H", answer, 2)[0])


async def test_each_node_has_its_own_view() -> None:
    registry = Registry()
    async with (
        port_mapper(registry, {"b": 2_222}) as of_a,
        port_mapper(registry, {"a": 1_111}) as of_b,
    ):
        assert await port_of(of_a, "a") is None
        reader, writer = await asyncio.open_connection("127.0.0.1", of_a)
        writer.write(registration("a", 1_000))
        assert (await reader.readexactly(6))[:2] == bytes((118, 0))
        assert await port_of(of_a, "a") == 1_000
        assert await port_of(of_b, "a") == 1_111
        names = await ask(of_b, request(110))
        assert names == struct.pack(">I", of_b) + b"name a at port 1000\n"
        writer.write_eof()
        assert await reader.read() == b""
        writer.close()
        assert await port_of(of_b, "a") is None
