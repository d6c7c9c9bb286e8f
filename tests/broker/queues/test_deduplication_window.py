"""The keys that a queue knows, against an ordered dict of them."""

from __future__ import annotations

from collections import OrderedDict
from random import Random

import pytest

from fluffle.broker.queues import deduplication_window
from fluffle.broker.queues.deduplication_window import KEY, DeduplicationWindow, window_of
from tests.suite.seeds import seeds


def digest(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Known(OrderedDict[bytes, int]):
    """Model of a window: keys with their expiry."""

    def add(self, keys: list[tuple[bytes, int]]) -> None:
        for name, until_ms in keys:
            self[name] = until_ms
            self.move_to_end(name)

    def keep(self, count: int) -> None:
        while len(self) > count:
            self.popitem(last=False)

    def drop_over(self, now_ms: int) -> None:
        while self and 0 < next(iter(self.values())) <= now_ms:
            self.popitem(last=False)

    @property
    def packed(self) -> bytes:
        return b"".join(KEY.pack(*pair) for pair in self.items())


@seeds(40)
def test_it_knows_what_a_dict_knows(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deduplication_window, "COMPACT_KEYS", 3)
    chance, found, known, now_ms = Random(seed), DeduplicationWindow(), Known(), 0
    names = chance.choice([5, 40, 1_000])
    for _ in range(300):
        dice = chance.random()
        now_ms += chance.randrange(5)
        if dice < 0.6:
            keys = [
                (digest(chance.randrange(names)), chance.choice([0, now_ms + chance.randrange(50)]))
                for _ in range(chance.randrange(6))
            ]
            found.add(b"".join(KEY.pack(*pair) for pair in keys))
            known.add(keys)
        elif dice < 0.7:
            count = chance.choice([0, 3, 20, 20, 20])
            found.keep(count)
            known.keep(count)
        elif dice < 0.9:
            found.drop_over(now_ms)
            known.drop_over(now_ms)
        else:
            before, found = (
                found,
                found.copy() if chance.random() < 0.5 else window_of(known.packed),
            )
            before.add(KEY.pack(digest(0), 0))  # the other is another
        assert found.packed() == known.packed
        assert len(found) == len(known)
        for name in (digest(chance.randrange(names)), *known):
            until_ms = known.get(name)
            assert (name in found) == (until_ms is not None)
            assert found.knows(name, now_ms) == (until_ms == 0 or (until_ms or 0) > now_ms)


@pytest.mark.parametrize("until_ms", [0, 10**9])
def test_keys_that_come_again_and_again_take_no_more_room(until_ms: int) -> None:
    found = DeduplicationWindow()
    for _ in range(200):
        for number in range(0, 100, 10):
            found.add(b"".join(KEY.pack(digest(number + at), until_ms) for at in range(10)))
            found.keep(1_000)
            if until_ms:
                found.drop_over(1)
    assert len(found) == 100
    assert len(found._written) <= (2 * 100 + 2 * deduplication_window.COMPACT_KEYS) * KEY.size
    assert len(found._holes) <= 100 + deduplication_window.COMPACT_KEYS + 10


def test_keys_that_go_leave_their_room() -> None:
    found = DeduplicationWindow()
    for number in range(20_000):
        found.add(KEY.pack(digest(number), 0))
        found.keep(100)
    assert len(found._written) <= (100 + 2 * deduplication_window.COMPACT_KEYS) * KEY.size
    found.keep(0)
    assert (found.packed(), len(found._written)) == (b"", 0)
