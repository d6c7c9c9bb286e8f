"""Stored knowledge about other nodes, in a form that other versions can read."""

from __future__ import annotations

from typing import cast

import msgpack
import pytest

from fluffle.broker.config.config import ListenAddress
from fluffle.broker.durability.node_identity import KNOWN_PEER, KnownPeer, KnownPeers, encode_peer
from fluffle.broker.runtime.commits import Commits
from fluffle.storage.errors import Corrupt

ADDRESS = ListenAddress("host", 5)
ROWS = ((2, 3, 40), (2, 5, 61), (2, 6, 60))
BEGAN = 2, 6, (50, 60)


class Written:
    """The definitions on a disk: what is written next, and what is written at once."""

    def __init__(self) -> None:
        self.items: dict[bytes, bytes] = {}
        self.commits = 0

    def batch(self) -> Written:
        self.commits -= 1
        return self

    def put(self, kind: str, key: bytes, value: bytes) -> None:
        assert kind == KNOWN_PEER
        self.commits += 1
        self.items[key] = value

    def remove(self, kind: str, key: bytes) -> None:
        assert kind == KNOWN_PEER
        del self.items[key]


def kept(written: Written) -> KnownPeers:
    return KnownPeers(written.items.items(), cast(Commits, written))


def test_how_far_each_life_of_a_node_has_come_is_on_disk_with_what_is_written_next() -> None:
    written = Written()
    known = kept(written)
    known.meet("a", ADDRESS, 7)
    known.lives("a", 6, b"nonce")
    commits = written.commits
    known.has_reached("a", ROWS, BEGAN)
    assert written.commits == commits, "no commit begins for it"
    assert kept(written).known == {"a": KnownPeer(ADDRESS, 6, b"nonce", 7, ROWS, BEGAN)}
    known.has_reached("a", ROWS[:1], BEGAN)
    assert kept(written).known["a"].reached == ROWS[:1]
    known.forget("a")
    assert kept(written).known == {}


@pytest.mark.parametrize(
    ("later", "reached"),
    [([], ()), ([(0, 0, 0)], ()), ([(1, 4, 50)], ((1, 4, 50),)), ([(1, 4, 50), []], ((1, 4, 50),))],
)
def test_what_was_written_before_is_read(
    later: list[object], reached: tuple[tuple[int, int, int], ...]
) -> None:
    written = Written()
    written.items[b"a"] = msgpack.packb((("host", 5), 6, b"nonce", 7, *later))
    assert kept(written).known == {"a": KnownPeer(ADDRESS, 6, b"nonce", 7, reached)}


def test_who_reads_only_the_newest_life_finds_it_where_it_was() -> None:
    *_, newest, earlier, _began = msgpack.unpackb(encode_peer(KnownPeer(ADDRESS, reached=ROWS)))
    assert (newest, earlier) == ([*ROWS[-1]], [[*row] for row in ROWS[:-1]])
    *_, newest, earlier, _began = msgpack.unpackb(encode_peer(KnownPeer()))
    assert (newest, earlier) == ([0, 0, 0], [])


@pytest.mark.parametrize(
    "later", [[5], [(1, 2)], [(1, 2, 3), 4], [(1, 2, 3), [(1, 2)]], [(1, 2, 3), [], (1, 2)]]
)
def test_what_cannot_be_read_is_damage(later: list[object]) -> None:
    written = Written()
    written.items[b"a"] = msgpack.packb((("host", 5), 6, b"nonce", 7, *later))
    with pytest.raises(Corrupt):
        kept(written)
