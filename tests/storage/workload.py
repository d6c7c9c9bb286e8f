"""A process that commits until it is killed or done; run by `test_crash.py`.

    python -m tests.storage.workload DIR SEED COMMITS FIRST

It does COMMITS commits, those behind the FIRST ones, which are on the disk already.  Each appends,
deletes and defines at random.  What it is about to do depends on the seed and the commit's number
only, so that `plan` tells what the store must hold after each.  Once a commit is durable it writes
its number on standard output.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from random import Random

from fluffle.storage.disk import Disk
from fluffle.storage.environment import open_environment
from fluffle.storage.layout import INDEX_END
from fluffle.storage.log import UpkeepTuning
from fluffle.storage.store import Batch, Store, WriterThread

TUNING = UpkeepTuning(window_bytes=20_000, moved_bytes=8_000, trimmed_keys=4)
GROUPS = (1, 2, 3)


@dataclass(slots=True)
class State:
    """Content of a store."""

    entries: dict[int, dict[int, bytes]] = field(default_factory=dict)
    definitions: dict[bytes, bytes] = field(default_factory=dict)


NOTHING = State()
"""Before the first commit."""


def plan(seed: int) -> Iterator[tuple[Batch, State]]:
    """Batches, each with what the store holds after it."""
    random = Random(seed)
    entries: dict[int, dict[int, bytes]] = {group: {} for group in GROUPS}
    definitions: dict[bytes, bytes] = {}
    following = dict.fromkeys(GROUPS, 1)
    number = 0
    while True:
        batch = Batch()
        number += 1
        for _ in range(random.randint(1, 4)):
            group = random.choice(GROUPS)
            payload = b"%d " % number + random.randbytes(random.choice((10, 300, 6_000)))
            entries[group][following[group]] = payload
            batch.append(group, following[group], payload, tag=number)
            following[group] += 1
        if random.random() < 0.5:
            group = random.choice(GROUPS)
            stop = random.randint(1, following[group])
            batch.delete(group, 0, stop)
            entries[group] = {i: p for i, p in entries[group].items() if i >= stop}
        if random.random() < 0.3:
            name = b"name %d" % random.randint(1, 5)
            definitions[name] = b"%d" % number
            batch.put("kind", name, definitions[name])
        yield batch, State({g: dict(e) for g, e in entries.items() if e}, dict(definitions))


def held(disk: Disk) -> State:
    """Content of a store, read through a new start."""
    store = Store(disk, WriterThread, on_fatal=_raise, tuning=TUNING)
    entries = {}
    for group in store.log.groups():
        found = store.log.read(group, 0, INDEX_END, bytes_max=1 << 40)
        assert [entry.index for entry in found] == [
            index for index, _, _ in store.log.entries(group)
        ]
        if found:
            entries[group] = {entry.index: entry.payload for entry in found}
    state = State(entries, dict(store.catalog.items("kind")))
    store.close()
    return state


def _raise(error: Exception) -> None:
    raise error


def main() -> None:
    directory, (seed, commits, first) = Path(sys.argv[1]), map(int, sys.argv[2:])
    wakes: SimpleQueue[None] = SimpleQueue()

    def writer(disk: Disk, _: object) -> WriterThread:
        return WriterThread(disk, lambda: wakes.put(None))

    store = Store(open_environment(directory), writer, on_fatal=_raise, tuning=TUNING)
    say("ready")
    steps = enumerate(islice(plan(seed), first + commits), start=1)
    for number, (batch, _) in islice(steps, first, None):
        store.submit(batch, partial(say, str(number)))
        store.flush()
        while store.pending_bytes:
            wakes.get()
            store.collect()


def say(word: str) -> None:
    sys.stdout.write(f"{word}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
