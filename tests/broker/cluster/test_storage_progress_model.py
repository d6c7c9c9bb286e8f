"""Disks that are put back by some commits: whoever knows of what one lacks has it end, and no other
does, whoever was away, and whatever others have said of it in between."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass, field
from random import Random

import pytest

from fluffle.broker.cluster import storage_progress
from fluffle.broker.cluster.links.identity import Boots
from tests.broker.cluster.test_storage_progress import End, Memory
from tests.suite.seeds import seeds

NODES = "abc"

Seen = dict[tuple[str, int, int], int]
"""Last known commit, by node, incarnation and the number of a boot."""


@dataclass
class Stored:
    """A disk, with what the model knows of it."""

    incarnation: int = 1
    lives: Boots = field(default_factory=lambda: Boots(0, ()))
    numbers: tuple[int, ...] = ()
    """The only number of each of its lives."""
    commit: int = 0
    memory: Memory = field(default_factory=Memory)
    seen: Seen = field(default_factory=dict)
    """All that it has ever been sent."""

    def lacks(self, number: int, commit: int) -> bool:
        if number not in self.numbers:
            return True
        life = self.numbers.index(number) + 1
        return commit > (self.commit if life == self.lives.count else self.lives.began[life])


class Machine:
    """A node that starts, commits, is killed, and is put back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.durable = Stored()
        self.running = Stored()
        self.backup: Stored | None = None
        self.end: End | None = None
        self.is_put_back = False

    def start(self, number: int) -> None:
        disk = self.durable
        disk.lives = disk.lives.followed_by(number.to_bytes(16), began=disk.commit)
        disk.numbers += (number,)
        self.running = deepcopy(disk)
        self.end = End(self.name, disk.lives, disk.commit, disk.incarnation)
        self.end.memory = self.end.progress.memory = self.running.memory
        self.commit(1)

    def commit(self, count: int) -> None:
        """Commit, with what is known of other nodes."""
        assert self.end is not None
        self.running.commit += count
        self.end.disk.commit_number = self.running.commit
        self.note(self.running.commit)
        self.durable = deepcopy(self.running)

    def note(self, commit: int) -> None:
        running = self.running
        running.seen[self.name, running.incarnation, running.numbers[-1]] = commit

    def takes(self, other: Machine) -> None:
        """The frames that another has sent."""
        assert self.end is not None
        assert other.end is not None
        self.end.hear(other.end)
        for key, commit in other.running.seen.items():
            self.running.seen[key] = max(commit, self.running.seen.get(key, 0))
        lacking = any(
            (name, incarnation) == (self.name, self.running.incarnation)
            and self.running.lacks(number, commit)
            for (name, incarnation, number), commit in other.running.seen.items()
        )
        assert lacking == bool(self.end.ended), f"{self.name}, as {other.name} knows it"
        assert not lacking or self.is_put_back


class Model:
    """Some nodes, and the links between them."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.machines = {name: Machine(name) for name in NODES}
        self.links: set[frozenset[str]] = set()
        self.started = 0

    @property
    def running(self) -> list[Machine]:
        return [each for each in self.machines.values() if each.end is not None]

    def start(self) -> None:
        idle = [each for each in self.machines.values() if each.end is None]
        if idle:
            self.started += 1
            self.chance.choice(idle).start(self.started)

    def kill(self) -> None:
        if self.running:
            self.end(self.chance.choice(self.running))

    def end(self, machine: Machine) -> None:
        machine.end = None
        self.links = {pair for pair in self.links if machine.name not in pair}

    def commit(self) -> None:
        if self.running:
            self.chance.choice(self.running).commit(self.chance.choice((1, 1, 2, 3, 10)))

    def connect(self) -> None:
        if len(self.running) < 2:
            return
        one, other = self.chance.sample(self.running, 2)
        if {one.name, other.name} in self.links:
            return
        self.links.add(frozenset((one.name, other.name)))
        for machine, peer in ((one, other), (other, one)):
            assert machine.end is not None
            machine.end.progress.link_changed(peer.name, True)
        self.deliver(one, other)
        if one.end is None or other.end is None:
            return
        if self.chance.random() < 0.3:
            self.tear(one.name, other.name)  # with what the other has sent
        else:
            self.deliver(other, one)

    def deliver(self, sender: Machine, receiver: Machine) -> None:
        receiver.takes(sender)
        assert receiver.end is not None
        if receiver.end.ended:
            self.end(receiver)
            receiver.durable = Stored(incarnation=receiver.durable.incarnation + 1)
            receiver.is_put_back, receiver.backup = False, None

    def disconnect(self) -> None:
        if self.links:
            self.tear(*self.chance.choice(sorted(map(sorted, self.links))))

    def tear(self, one: str, other: str) -> None:
        self.links.remove(frozenset((one, other)))
        for name, peer in ((one, other), (other, one)):
            end = self.machines[name].end
            assert end is not None
            end.sent = [(node, payload) for node, payload in end.sent if node != peer]
            end.progress.link_changed(peer, False)

    def look(self) -> None:
        """Send news from one node to all linked ones."""
        if not self.running:
            return
        sender = self.chance.choice(self.running)
        assert sender.end is not None
        sender.end.progress.look()
        for name in NODES:
            if {name, sender.name} in self.links:
                self.deliver(sender, self.machines[name])

    def back_up(self) -> None:
        machine = self.chance.choice([*self.machines.values()])
        machine.backup = deepcopy(machine.durable)

    def put_back(self) -> None:
        """Put a disk back to what it was in the same boot: other boots are found by the
        handshake."""
        machine = self.chance.choice([*self.machines.values()])
        backup, disk = machine.backup, machine.durable
        if backup is not None and backup.numbers == disk.numbers and backup.commit < disk.commit:
            if machine.end is not None:
                self.end(machine)
            machine.durable, machine.backup = backup, None
            machine.is_put_back = True


@seeds(50)
def test_who_lacks_what_another_knows_ends_and_no_other(seed: int) -> None:
    chance = Random(seed)
    model = Model(chance)
    steps = [
        (4, model.start),
        (0.5, model.kill),
        (6, model.commit),
        (4, model.connect),
        (4, model.disconnect),
        (4, model.look),
        (2, model.back_up),
        (2, model.put_back),
    ]
    weights = [weight for weight, _do in steps]
    for _ in range(200):
        chance.choices([do for _weight, do in steps], weights)[0]()


class Observer:
    """A node that hears of the lives of another, and all that it has ever heard."""

    def __init__(self, name: str) -> None:
        self.end = End(name, Boots(0, ()).followed_by(b"", began=0), 1)
        self.heard: dict[int, int] = {}
        """Last known commit by boot."""

    def hears(self, other: Observer) -> None:
        self.end.met_by(other.end)
        self.hears_of(other.heard)

    def hears_of(self, heard: dict[int, int]) -> None:
        for life, commit in heard.items():
            self.heard[life] = max(commit, self.heard.get(life, 0))

    def ends(self, life: Boots, commit: int) -> bool:
        """True if a node that is in that life ends when it hears what this one knows."""
        node = End("a", life, commit)
        node.met_by(self.end)
        return bool(node.ended)


def lacks(life: Boots, now: int, heard: dict[int, int]) -> bool:
    return any(
        commit > (now if number == life.count else life.began[number])
        for number, commit in heard.items()
    )


@pytest.mark.parametrize("spoken_of", [2, 64])
@seeds(50)
def test_no_number_of_lives_hides_what_a_node_had(
    seed: int, spoken_of: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Restart one of four nodes dozens of times without news; most of its boots are known to
    others from one another.  Its disk is put back now and then."""
    monkeypatch.setattr(storage_progress, "BEGINNINGS_MAX", spoken_of)
    chance = Random(seed)
    observers = [Observer(name) for name in "bcd"]
    life, commit = Boots(0, ()), 0
    for number in range(60):
        life = life.followed_by(number.to_bytes(16), began=commit)
        copied = commit
        for _ in range(chance.randrange(6)):
            commit += chance.choice((1, 1, 2, 10))
            copied = chance.choice((copied, copied, commit))
            one, other = chance.sample(observers, 2)
            if chance.random() < 0.4:
                one.end.met_by(End("a", life, commit))
                one.hears_of({life.count: commit})
            else:
                one.hears(other)
            for each in observers:
                lacking = lacks(life, commit, each.heard)
                assert each.ends(life, commit) == lacking, f"as {each.end.name} knows it"
        if chance.random() < 0.05:
            commit = copied
