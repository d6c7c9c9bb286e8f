"""Whatever happens to a queue, its leaders and those of others: of each dead letter that they give
again and again it has one, and remembers no more than they may give once more."""

from __future__ import annotations

from dataclasses import dataclass, field
from random import Random

from fluffle.broker.queues.publish_target import DeadLetterIds
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.entry_codec import ARRIVALS
from fluffle.broker.queues.quorum.snapshot import restored_image, take_snapshot
from tests.broker.queues.quorum.entry_harness import EntryHarness
from tests.broker.queues.quorum.image_digest import image_digest
from tests.broker.queues.quorum.leader_harness import PLAIN, full
from tests.broker.queues.quorum.sample_facts import ORIGIN
from tests.broker.queues.quorum.session_clients import contents_of
from tests.suite.seeds import seeds

ROUNDS_MAX = 20
"""Most rounds of twenty messages, until all have arrived."""


@dataclass
class Source:
    """A queue in which messages die, as its leader knows them."""

    group: int
    term: int = 1
    dead: int = 0
    """Number of dead messages, numbered from 1."""
    arrived: set[int] = field(default_factory=set)
    """Numbers confirmed to the source by the target."""
    unsaid: set[int] = field(default_factory=set)
    """Numbers among them that the target was not asked to forget."""
    done: set[int] = field(default_factory=set)
    """Numbers that the target was asked to forget."""
    before: DeadLetterIds | None = None
    """Ids that the former leader had under way."""

    def content(self, number: int) -> bytes:
        return b"%d of %d" % (number, self.group)

    def dead_letter_ids(self, numbers: list[int]) -> DeadLetterIds:
        below = next(n for n in range(1, self.dead + 2) if n not in self.arrived)
        settled, self.unsaid = sorted(self.unsaid), set()
        self.done |= {*settled, *range(1, below)}
        return DeadLetterIds(self.group, self.term, below, settled, numbers)


class Arriving:
    """An edge that gives the dead letters of all sources, and gives them again."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.harness = EntryHarness(chance.choice([PLAIN, full(20)]))
        self.harness.readers = {"a 1": ARRIVALS}
        self.harness.is_touched = True
        self.harness.settle_down()
        self.harness.session()
        self.harness.settle_down()
        self.harness.take()
        self.sources = [Source(group) for group in (7, 8)]
        self.gone: list[Source] = []
        self.next = 1
        self.has_grown = False
        self.pending: dict[int, DeadLetterIds | None] = {}
        """Ids by the number of the first operation; None: a purge."""
        self.taken: dict[int, tuple[int, int]] = {}
        """Source group and number of the message, by the number of the operation."""
        self.stale: set[int] = set()
        """Operations that must not be taken."""

    def give(self, dead_letter_ids: DeadLetterIds) -> None:
        first, self.next = self.next, self.next + len(dead_letter_ids.sequences)
        self.pending[first] = dead_letter_ids
        for at, number in enumerate(dead_letter_ids.sequences):
            self.taken[first + at] = dead_letter_ids.source, number
        self.ask(first, dead_letter_ids)

    def ask(self, first: int, dead_letter_ids: DeadLetterIds | None) -> None:
        session = self.harness.session()
        if dead_letter_ids is None:
            self.harness.led.purge(session, first)
            return
        source = self.source_of(dead_letter_ids.source)
        contents = [source.content(number) for number in dead_letter_ids.sequences]
        self.harness.led.publish(
            session, first, [ORIGIN] * len(contents), contents, dead_letter_ids=dead_letter_ids
        )

    def source_of(self, group: int) -> Source:
        return next(each for each in (*self.sources, *self.gone) if each.group == group)

    def hear(self) -> None:
        """Sources learn what has arrived, once for each operation."""
        for message in self.harness.take_messages():
            assert isinstance(message, m.DoneReply | m.RejectedReply | m.AnswerReply), message
            if isinstance(message, m.AnswerReply):
                self.pending.pop(message.number, None)
                continue
            for number in range(message.first, message.first + message.count):
                group, sequence = self.taken[number]
                if isinstance(message, m.DoneReply):
                    assert number not in self.stale, "who led before is believed"
                    source = self.source_of(group)
                    source.unsaid |= {sequence} - source.arrived
                    source.arrived.add(sequence)
        heard = self.harness.image.state.sessions[self.harness.session()].next
        for first, dead_letter_ids in list(self.pending.items()):
            if dead_letter_ids is not None and first + len(dead_letter_ids.sequences) <= heard:
                del self.pending[first]

    # What happens

    def die(self) -> None:
        source = self.chance.choice(self.sources)
        source.dead += self.chance.randint(1, 4)

    def post(self) -> None:
        """Post messages that have not arrived as far as their queue knows, or some of them."""
        source = self.chance.choice(self.sources)
        live = [n for n in range(1, source.dead + 1) if n not in source.arrived]
        if live:
            some = self.chance.sample(live, self.chance.randint(1, min(6, len(live))))
            self.give(source.dead_letter_ids(sorted(some)))

    def elect(self) -> None:
        """Another leads a source: it knows what is on record there, and begins anew."""
        source = self.chance.choice(self.sources)
        live = [n for n in range(1, source.dead + 1) if n not in source.arrived]
        if live:
            source.before = DeadLetterIds(source.group, source.term, 1, [], live[:5])
        source.term += 1

    def be_late(self) -> None:
        """Deliver late what a former leader had under way, after the next one was heard of."""
        source = self.chance.choice(self.sources)
        before, source.before = source.before, None
        if before is None:
            return
        source.dead += 1
        self.give(source.dead_letter_ids([source.dead]))
        self.settle_down()
        known = self.harness.image.state.sources.get(source.group)
        if known is not None and known.term == source.term:
            self.stale |= {self.next + at for at in range(len(before.sequences))}
        self.give(before)

    def delete(self) -> None:
        """A source is no more, and there is another."""
        if self.chance.random() < 0.2:
            self.settle_down()
            source = self.sources.pop(self.chance.randrange(len(self.sources)))
            self.gone.append(source)
            self.harness.deleted.add(source.group)
            self.change_leader()
            if source.dead:
                self.stale |= {self.next}
                self.give(DeadLetterIds(source.group, source.term, 1, [], [source.dead]))
            made = Source(max(each.group for each in (*self.sources, *self.gone)) + 1)
            self.sources.append(made)
            self.harness.unknown.add(made.group)

    def learn(self) -> None:
        self.harness.unknown.clear()

    def purge(self) -> None:
        self.pending[self.next] = None
        self.ask(self.next, None)
        self.next += 1

    def grow(self) -> None:
        """A member is added, or two: until they say what they read, less is on record."""
        self.has_grown = True
        self.harness.readers = {
            f"{name} 1": ARRIVALS for name in "abc"[: self.chance.randint(1, 3)]
        }

    def turn(self) -> None:
        self.harness.touch()
        self.harness.turn()

    def commit(self) -> None:
        self.harness.commit()
        self.hear()

    def change_leader(self) -> None:
        kept = self.chance.randint(0, len(self.harness.proposals))
        self.harness.change_leader(kept, is_elsewhere=self.chance.random() < 0.5)
        self.hear()
        for first, dead_letter_ids in self.pending.items():
            self.ask(first, dead_letter_ids)

    def settle_down(self) -> None:
        self.harness.touch()
        self.harness.settle_down()
        self.hear()
        assert not self.pending
        self.check()

    def check(self) -> None:
        stored = [content for entry in self.harness.log for content in contents_of(entry)]
        assert len(stored) == len({*stored}), "it has come twice"
        for source in (*self.sources, *self.gone):
            assert {source.content(number) for number in source.arrived} <= {*stored}
        known = self.harness.image.state.sources
        for source in self.sources:
            if source.group in known and not self.has_grown:
                kept = {n for low, high in known[source.group].arrived for n in range(low, high)}
                assert kept.isdisjoint(source.done), "it is kept no more where it died"
        assert self.harness.follower.state.sources == known
        restored = restored_image(take_snapshot(self.harness.image)[1])
        assert image_digest(restored) == image_digest(self.harness.image)

    def finish(self) -> None:
        """All arrives, and is forgotten once that is said."""
        self.learn()
        for source in self.sources:
            for _ in range(3):
                source.dead += 1
                self.arrive(source)
            arrived = self.harness.image.state.sources[source.group].arrived
            assert [*arrived] == [(source.dead, source.dead + 1)]
        assert {*self.harness.image.state.sources} == {source.group for source in self.sources}

    def arrive(self, source: Source) -> None:
        for _ in range(ROUNDS_MAX):
            live = [n for n in range(1, source.dead + 1) if n not in source.arrived]
            if not live:
                return
            self.purge()
            self.give(source.dead_letter_ids(live[:20]))
            self.settle_down()
        raise AssertionError("they are given again and again, and do not arrive")


@seeds(20)
def test_of_each_dead_letter_there_is_one(seed: int) -> None:
    chance = Random(seed)
    arriving = Arriving(chance)
    steps = [
        (3, arriving.die),
        (8, arriving.post),
        (1, arriving.elect),
        (1, arriving.be_late),
        (0.5, arriving.delete),
        (1, arriving.learn),
        (0.5, arriving.purge),
        (0.5 if seed % 2 else 0, arriving.grow),
        (8, arriving.turn),
        (8, arriving.commit),
        (1, arriving.change_leader),
        (1, arriving.settle_down),
    ]
    weights = [weight for weight, _do in steps]
    for _ in range(150):
        chance.choices([do for _weight, do in steps], weights)[0]()
    arriving.finish()
