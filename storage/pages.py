"""Check that LMDB's file has all pages that its trees need.

An incomplete copy has lost its end, and touching a page behind the end of a mapped file ends the
process; so does a page of something else, which LMDB asserts that it cannot be.  That the file is
shorter than the last page that LMDB has counted proves nothing: what one commit takes at the end
and frees again is never written.  So the trees are walked, by reads, not through the map; a start
does that with files that are shorter.  Integers are in the machine's order; LMDB 0.9's `mdb.c`.

    meta   header:16  magic:4 version:4 address:8 map:8  free tree:48  main tree:48  last:8  txn:8
    tree   pad:4 flags:2 depth:2  branches:8 leaves:8 overflows:8 entries:8  root:8
    page   number:8 pad:2 flags:2  lower:2 upper:2  offset:2 of each node ...  nodes
    node   low:2 high:2 flags:2 key_size:2  key  data
           in a branch low, high and flags are the number of a page; in a leaf low and high are the
           size of the data, which may be elsewhere (the number:8 of a page) or a tree
"""

from pathlib import Path
from struct import Struct, unpack_from
from struct import error as StructError  # noqa: N812  it is an exception
from typing import BinaryIO

from fluffle.storage.errors import Corrupt

PAGE = Struct("=QHHHH")
NODE = Struct("=HHHH")
NUMBER = Struct("=Q")

FREE_ROOT_AT = 80
MAIN_ROOT_AT = 128
TRANSACTION_AT = 144
TREE_ROOT_AT = 40
"""Within a tree; the three above are within a meta page."""

NO_PAGE = 2**64 - 1
BRANCH, LEAF = 0x01, 0x02
ELSEWHERE, TREE = 0x01, 0x02


def check_complete(file: Path, *, page_bytes: int, last_page: int) -> None:
    """Check that no page is missing at the end, as quickly as can be.  Raises `Corrupt`."""
    if file.stat().st_size < (last_page + 1) * page_bytes:
        check_pages(file, page_bytes=page_bytes, last_page=last_page)


def check_pages(file: Path, *, page_bytes: int, last_page: int) -> None:
    """Read all pages of all trees.  Raises `Corrupt` for the first that is missing or is none.

    No pages may be taken meanwhile: it needs a read transaction where a node may be running.
    """
    with file.open("rb") as data:
        metas = [_read(data, number, page_bytes) for number in (0, 1)]
        size = file.stat().st_size  # in this order: beside a node both grow
        newest = max(metas, key=lambda meta: _number(meta, TRANSACTION_AT))
        pending = [_number(newest, FREE_ROOT_AT), _number(newest, MAIN_ROOT_AT)]
        seen = {NO_PAGE}
        while pending:
            number = last = pending.pop()
            if number in seen:
                continue
            seen.add(number)
            if (number + 1) * page_bytes <= size:
                below, last = _reached_from(data, number, page_bytes)
                pending += below
            if (last + 1) * page_bytes > size:
                need = (last_page + 1) * page_bytes
                raise Corrupt(str(file), f"it has {size} bytes, its pages need {need}")


def _reached_from(data: BinaryIO, number: int, page_bytes: int) -> tuple[list[int], int]:
    """Return the pages of trees that a page leads to, and the last of those that hold only data."""
    page = _read(data, number, page_bytes)
    found, _, flags, lower, _ = PAGE.unpack_from(page)
    if found != number or not flags & (BRANCH | LEAF):
        raise Corrupt(f"{data.name}, page {number}", "this is no page of a tree")
    try:
        return _nodes(page, flags, lower)
    except StructError as error:
        where = f"{data.name}, page {number}"
        raise Corrupt(where, "what is in it lies outside of it") from error


def _nodes(page: bytes, flags: int, lower: int) -> tuple[list[int], int]:
    """Return pages as `_reached_from` does, of the nodes of one page.  Raises struct.error."""
    below: list[int] = []
    last = 0
    for offset in unpack_from(f"={max(0, lower - PAGE.size) // 2}H", page, PAGE.size):
        low, high, node_flags, key_size = NODE.unpack_from(page, offset)
        data_at, size = offset + NODE.size + key_size, low | high << 16
        if flags & BRANCH:
            below.append(size | node_flags << 32)
        elif node_flags & ELSEWHERE:
            last = max(last, _number(page, data_at) + (PAGE.size + size - 1) // len(page))
        elif node_flags & TREE:
            below.append(_number(page, data_at + TREE_ROOT_AT))
    return below, last


def _read(data: BinaryIO, number: int, page_bytes: int) -> bytes:
    data.seek(number * page_bytes)
    return data.read(page_bytes)


def _number(page: bytes, at: int) -> int:
    number: int = NUMBER.unpack_from(page, at)[0]
    return number
