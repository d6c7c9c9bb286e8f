"""Snapshots: there and back through every state is in the model; here is what is refused."""

from __future__ import annotations

import zlib
from random import Random
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.deduplication_window import KEY, window_of
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION, REMEMBERS, VERSION
from fluffle.broker.queues.quorum.facts import InvalidEntry
from fluffle.broker.queues.quorum.snapshot import (
    canonical_form,
    packed_state,
    restored_image,
    take_snapshot,
)
from fluffle.broker.queues.quorum.state import QueueImage
from tests.broker.queues.quorum.history import OPERATIONS
from tests.broker.queues.quorum.image_comparison import MemberImage
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.sample_facts import applied, busy, new


def tables_of(image: QueueImage) -> list[Any]:
    found = msgpack.unpackb(canonical_form(image.state, FIRST_VERSION))
    assert isinstance(found, list)
    return found


def taken_with(tables: list[Any]) -> bytes:
    return bytes((FIRST_VERSION,)) + zlib.compress(msgpack.packb(tables))


def test_a_busy_queue() -> None:
    image = busy()
    assert image_digest(restored_image(taken_with(tables_of(image)))) == image_digest(image)


def test_a_new_queue() -> None:
    again = restored_image(take_snapshot(QueueImage())[1])
    assert image_digest(again) == image_digest(QueueImage())
    assert applied(again) == []


def test_no_content_is_in_it() -> None:
    assert b"message" not in canonical_form(busy().state, VERSION)


def test_a_thousand_entries_in_a_row_take_no_room() -> None:
    image = QueueImage()
    applied(image, f.SessionOpened(1, 1, 1, 1, "a"))
    for first in range(1, 1001):
        applied(image, f.Published(1, first, 1), messages=new(first, 1))
    assert len(take_snapshot(image)[1]) < 500
    assert image_digest(restored_image(take_snapshot(image)[1])) == image_digest(image)


HEAD, VERSIONS, ENTRIES, CARRIED, REQUEUED, DELAYED, PENDING, HOLDERS, SESSIONS = range(9)

CHANGES: list[tuple[str, Any, str]] = [
    ("a table is missing", lambda t: t.pop(), "not a row"),
    ("a table more", lambda t: t.append([]), "not a row"),
    ("a text for a number", lambda t: t[HEAD].__setitem__(0, "1"), "not a row"),
    ("a number below zero", lambda t: t[HEAD].__setitem__(0, -1), "below zero"),
    ("a reason is missing", lambda t: t[HEAD][-1].pop(), "not a row"),
    ("more messages were there", lambda t: t[HEAD].__setitem__(3, 99), "10 live and 0 gone of 98"),
    ("a version without a member", lambda t: t[VERSIONS].append([1]), "not a row"),
    ("a column is missing", lambda t: t[ENTRIES][0].pop(), "not a row"),
    ("half a number", lambda t: t[ENTRIES][0].__setitem__(0, b"1"), "multiple of item size"),
    ("no entries", lambda t: t[ENTRIES].__setitem__(0, [b""] * 8), "are those of none"),
    ("a shorter column", lambda t: t[ENTRIES][0].__setitem__(2, b""), "not of one length"),
    ("a longer column", lambda t: t[ENTRIES][0].__setitem__(2, bytes(8)), "not of one length"),
    ("other bits", lambda t: t[ENTRIES][1][0].__setitem__(1, b"\xff"), "other messages are ready"),
    ("bits too far", lambda t: t[ENTRIES][1][0].__setitem__(1, b"\x70\x00"), "other messages"),
    ("bits of none", lambda t: t[ENTRIES][1].append([99, b"\x01"]), "bits are those of none"),
    ("columns of none", lambda t: t[ENTRIES][2].append([99, b"", b""]), "those of no entry"),
    ("too few priorities", lambda t: t[ENTRIES][2].append([1, b"1", b""]), "or fewer"),
    ("counts without a message", lambda t: t[CARRIED].append([1]), "not a row"),
    ("a message is requeued twice", lambda t: t[REQUEUED].append([9, 1, 1, 1, 0]), "11 live"),
    ("a run of none", lambda t: t[REQUEUED].append([9, 1, 0, 1, 0]), "a run of no messages"),
    ("a step of 0", lambda t: t[REQUEUED].append([9, 0, 1, 1, 0]), "must not be zero"),
    ("delayed without a time", lambda t: t[DELAYED].append([9, 1, 1, 1]), "not a row"),
    (
        "another reason",
        lambda t: t[PENDING][0].__setitem__(3, 99),
        "99 is not a valid RemovalReason",
    ),
    ("a holder of the future", lambda t: t[HOLDERS][0][0].__setitem__(1, 50), "is no holder"),
    (
        "a holder of no kind",
        lambda t: t[HOLDERS][0][0].__setitem__(0, 50),
        "no fact has the number",
    ),
    ("a holder that is a fact", lambda t: t[HOLDERS][0].__setitem__(0, [10, 2]), "is no holder"),
    ("a holder without a session", lambda t: t[SESSIONS].clear(), "no session 1"),
    ("a session of the future", lambda t: t[SESSIONS][0].__setitem__(0, 50), "next key"),
    ("answers without numbers", lambda t: t[SESSIONS][0].__setitem__(-1, [1]), "shorter"),
    ("ranges that fall", lambda t: t[SESSIONS][0].__setitem__(-2, b"\x01"), "do not rise"),
]


@pytest.mark.parametrize(("what", "change", "why"), CHANGES, ids=[what for what, *_ in CHANGES])
def test_a_snapshot_that_nobody_took(what: str, change: Any, why: str) -> None:
    tables = tables_of(busy())
    change(tables)
    with pytest.raises(InvalidEntry, match=why):
        restored_image(taken_with(tables))


@pytest.mark.parametrize("taken", [b"", b"\x03", b"\x01", b"\x01 not of zlib"])
def test_bytes_that_are_no_snapshot(taken: bytes) -> None:
    with pytest.raises(InvalidEntry, match="snapshot"):
        restored_image(taken)


@given(st.randoms(use_true_random=False), st.data())
def test_damage_is_refused_or_harmless(chance: Random, data: st.DataObject) -> None:
    applied = MemberImage()
    for operation in (OPERATIONS[0], OPERATIONS[2], *chance.choices(OPERATIONS, k=20)):
        applied.do(operation, chance)
    applied.commit()
    raw = bytearray(canonical_form(applied.members[0].image.state, VERSION))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        image = restored_image(bytes((VERSION,)) + zlib.compress(bytes(raw)))
    except InvalidEntry:
        return
    image_digest(image)


def test_keys_are_copied_and_all_else_is_compressed() -> None:
    """There may be 100,000, and nothing is to be found in digests."""
    image, chance = busy(), Random(1)
    image.state.spec = b"x" * 10_000
    packed = b"".join(KEY.pack(chance.randbytes(16), 0) for _ in range(500))
    image.state.window = window_of(packed)
    taken = packed_state(image.state, REMEMBERS)
    assert packed in taken
    assert zlib.decompress(taken[1:]) == canonical_form(image.state, REMEMBERS)
    assert len(taken) < len(packed) + 1_000
    assert restored_image(taken).state.window is not None
