"""Batches that anything may divide before their queue: outcome, time and number of each message."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random
from typing import Any, cast

import pytest

from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions import session_client
from fluffle.broker.cluster.queue_sessions.session_client import SessionClient, SessionRequests
from fluffle.broker.cluster.queues import session_queue
from fluffle.broker.cluster.queues.session_queue import PublishReceipts
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.engine import Queue
from fluffle.broker.queues.expiry_times import lifetimes_at
from fluffle.broker.queues.publish_target import DeadLetterIds, EnqueueResult, PublishReceipt
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.messages import DoneReply, ExpectedReply, Publish, RejectedReply
from tests.broker.cluster.queues.batches import (
    ALIVE,
    BOOT,
    BROUGHT,
    DEAD,
    GROUP,
    SOURCE,
    Batches,
    BatchMaker,
    Classic,
    Quorum,
    Sent,
    content_of,
)
from tests.suite.seeds import seeds
from tests.support.queue_arguments import queue_arguments as asking_for

RUN_MAX, RUN_BYTES_MAX = 6, 200

SPECS: list[tuple[QueueType, dict[str, Any]]] = [
    (queue_type, said)
    for queue_type in (QueueType.CLASSIC, QueueType.QUORUM)
    for said in (
        {},
        {"max_length": 14, "overflow": "reject-publish"},
        {"message_deduplication": True},
    )
]


def make_small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_queue, "MESSAGES_MAX", RUN_MAX)
    monkeypatch.setattr(session_client, "MESSAGES_MAX", RUN_MAX)
    monkeypatch.setattr(session_queue, "RUN_BYTES_MAX", RUN_BYTES_MAX)


@pytest.fixture(autouse=True)
def _runs_are_small(monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)


def whatever(seed: int, steps: int = 60) -> None:
    chance = Random(seed)
    queue_type, said = SPECS[seed % len(SPECS)]
    world = Batches(queue_type, **said)
    making = BatchMaker(chance, has_keys="message_deduplication" in said)
    if queue_type is QueueType.QUORUM and chance.random() < 0.5:
        world.may_refuse = True  # dead letters that come before anything is on record
    else:
        world.rest()

    def publish(made: Callable[[], tuple[list[Any], bool]]) -> None:
        run, is_alike = made()
        world.publish(run, is_alike=is_alike)

    def stand_still() -> None:
        """Or go on."""
        assert isinstance(world.leading, Classic)
        if world.leading.queue.pause is None:
            world.leading.hold()
        else:
            world.leading.let_in()

    def fill_disk() -> None:
        assert isinstance(world.leading, Quorum)
        world.leading.has_room, world.may_refuse = not world.leading.has_room, True

    disturb = [world.elect] if queue_type is QueueType.QUORUM else [stand_still]
    if world.may_refuse and queue_type is QueueType.QUORUM:
        disturb.append(fill_disk)
    doing: list[tuple[float, Callable[[], object]]] = [
        (6, lambda: publish(making.run)),
        (3, lambda: publish(making.dead)),
        (8, world.sender.take),
        (8, world.sender.tell),
        (6, world.leading_commits),
        (1, world.sender.cut),
        (2, world.sender.link),
        (2, lambda: chance.choice(disturb)()),  # noqa: PLW0108 - another each time
    ]
    weights = [weight for weight, _do in doing]
    for _ in range(steps):
        chance.choices([do for _weight, do in doing], weights)[0]()
    if isinstance(world.leading, Classic) and world.leading.queue.pause is not None:
        world.leading.let_in()
    world.rest()
    world.check()


@seeds(50)
def test_whatever_happens(seed: int) -> None:
    whatever(seed)


class Asked:
    """A leader that is asked for any stretch of the same operations, in part again.

    What becomes of each is known beforehand.
    """

    def __init__(self, seed: int) -> None:
        self.chance = chance = Random(seed)
        self.is_dead, self.how = chance.random() < 0.5, chance.choice(["never", "alike", "each"])
        is_keyed = not self.is_dead and chance.random() < 0.5
        said = {"message_deduplication": True} if is_keyed else {}
        spec = QueueSpec(
            "q", durable=True, queue_type=QueueType.QUORUM, arguments=asking_for(**said)
        )
        self.leading = Quorum(spec)
        self.settle_down()
        self.session = self.leading.led.sessions.open(SessionId("a", 1, 1, 1))
        self.numbers: list[int] = []
        self.sents = [self.made(place, is_keyed=is_keyed) for place in range(60)]
        self.next = 1
        self.outcomes: list[bool] = []
        """Results of all operations before the next one: True if accepted."""
        self.kept: list[tuple[bytes, int, Counts]] = []
        self.had: set[object] = set()
        self.reported: dict[int, bool] = {}

    def made(self, place: int, *, is_keyed: bool) -> Sent:
        lifetime = {"never": None, "alike": 9_000}.get(self.how, (place + 1) * 1_000)
        if not self.is_dead:
            key = self.chance.randrange(9) if is_keyed and self.chance.random() < 0.5 else None
            return Sent(content_of(f"{place}", key), lifetime, True, key, None)
        free = [number for number in range(1, 40) if number not in self.numbers[-14:]]
        self.numbers.append(number := self.chance.choice(free))
        if self.how == "each":
            lifetime = number * 1_000
        return Sent(content_of(f"dead {number}", None), lifetime, True, None, number)

    def ask(self) -> None:
        """Repeat some requests and add new ones; or send one with a gap, in vain."""
        chance, leading = self.chance, self.leading
        first = max(1, self.next - chance.randint(0, 6))
        if chance.random() < 0.1:
            first = self.next + 1
        run = self.sents[first - 1 :][: chance.randint(1, 8)]
        leading.has_room, is_stale = chance.random() < 0.7, chance.random() < 0.2
        for each in run[self.next - first :] if first <= self.next else ():
            is_accepted = not is_stale if self.is_dead else leading.has_room
            self.outcomes.append(is_accepted)
            if is_accepted and each.name not in self.had:
                self.had.add(each.name)
                self.kept.append((each.content, each.expires_at_ms, each.counts))
        self.next = 1 + len(self.outcomes)
        lifetimes: Any = [each.lifetime_ms for each in run] if self.how == "each" else None
        if self.how == "alike":
            lifetimes = 9_000
        numbers = [each.number or 0 for each in run]
        dead_letter_ids = (
            DeadLetterIds(SOURCE, 4 if is_stale else 5, 1, [], numbers) if self.is_dead else None
        )
        if run:
            leading.led.publish(
                self.session, first, [DEAD if self.is_dead else ALIVE] * len(run),
                [each.content for each in run], expiration_ms=lifetimes,
                dead_letter_ids=dead_letter_ids, counts=run[0].counts,
            )  # fmt: skip

    def begin(self) -> None:
        """The term of those that are not stale is known."""
        if self.is_dead:
            self.leading.led.publish(
                self.session, 1, [DEAD], [self.sents[0].content],
                expiration_ms=self.sents[0].lifetime_ms,
                dead_letter_ids=DeadLetterIds(SOURCE, 5, 1, [], [self.sents[0].number or 0]),
                counts=BROUGHT,
            )  # fmt: skip
            self.outcomes.append(True)
            self.had.add(self.sents[0].name)
            self.kept.append((self.sents[0].content, self.sents[0].expires_at_ms, BROUGHT))
            self.next = 2

    def settle_down(self) -> None:
        while self.leading.commit():
            pass

    def look(self) -> None:
        """Check that all that was reported is true and on record."""
        reported, self.leading.reported = self.leading.reported, []
        for _session, message in reported:
            if isinstance(message, ExpectedReply):
                continue
            assert isinstance(message, DoneReply | RejectedReply)
            for number in range(message.first, message.first + message.count):
                assert number < self.leading.image.state.sessions[self.session].next
                assert self.outcomes[number - 1] == isinstance(message, DoneReply)
                self.reported[number] = True


@seeds(50)
def test_what_is_asked_for_again_in_part_is_done_once(seed: int) -> None:
    asks_again(seed)


def asks_again(seed: int) -> None:
    asked = Asked(seed)
    asked.begin()
    for _ in range(25):
        asked.ask()
        if asked.chance.random() < 0.5:
            asked.leading.commit()
        asked.look()
    asked.settle_down()
    asked.look()
    assert {*asked.reported} == {*range(1, asked.next)}
    assert asked.leading.lying() == asked.kept


def asks_home_again(seed: int) -> None:
    """Repeat requests as in `asks_again`, to a home node whose queue has little room and pauses.

    What is to be safe is on disk before it is said.
    """
    chance, room = Random(seed), 30
    arguments = asking_for(max_length=room, overflow="reject-publish")
    world = Classic(QueueSpec("q", durable=True, arguments=arguments))
    home = world.alone()
    session = home.sessions.open(SessionId("a", 1, 1, 1))
    persistent, how = chance.random() < 0.7, chance.choice(["alike", "each"])
    sents = [
        Sent(content_of(f"{place}", None), 1_000 * (place if how == "each" else 9), persistent)
        for place in range(1, 50)
    ]
    following, reported = 1, set[int]()

    def look() -> None:
        stored, said = {*world.stored()}, world.reported[:]
        world.reported.clear()
        for to, message in said:
            if isinstance(message, ExpectedReply):
                assert (to, message) == (session, ExpectedReply(following))
                continue
            assert isinstance(message, DoneReply | RejectedReply)
            for number in range(message.first, message.first + message.count):
                assert number not in reported, "it was reported before"
                assert isinstance(message, DoneReply) == (number <= room)
                assert not persistent or number > room or sents[number - 1].content in stored
                reported.add(number)

    while following <= len(sents):
        first = max(1, following - chance.randint(0, 6))
        if chance.random() < 0.1:
            first = following + 1
        run = sents[first - 1 :][: chance.randint(1, 8)]
        lifetimes: Any = [each.lifetime_ms for each in run] if how == "each" else 9_000
        if run:
            home.publish(
                session, first, [ALIVE] * len(run), [each.content for each in run],
                persistent=persistent, expiration_ms=lifetimes, dead_letter_ids=None, counts=NEW,
            )  # fmt: skip
        expected = ExpectedReply(following)
        assert first <= following or not run or world.reported[-1].message == expected
        if first <= following:
            following = max(following, first + len(run))
        if chance.random() < 0.2:
            world.hold() if world.queue.pause is None else world.let_in()
        world.turn()
        look()
        if chance.random() < 0.3:
            world.commit()
            look()
    if world.queue.pause is not None:
        world.let_in()
    while world.commit():
        pass
    look()
    assert reported == {*range(1, following)}
    assert world.lying() == [(each.content, each.expires_at_ms, NEW) for each in sents[:room]]


@seeds(40)
def test_what_a_home_is_asked_for_again_in_part_is_done_once(seed: int) -> None:
    asks_home_again(seed)


class Heir:
    """A queue that gets what has no outcome."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.got: list[tuple[bytes, bool, int | None, int | None]] = []
        """Contents, whether they are to outlive the process, for how long they may wait, and their
        numbers."""
        self.outcomes: dict[bytes, bool] = {}
        self.later: list[Callable[[], None]] = []

    def enqueue_dead_letters(
        self,
        origins: list[Any],
        contents: list[bytes],
        content_bytes: int,
        *,
        persistent: bool,
        expiration_ms: Any = None,
        dead_letter_ids: DeadLetterIds | None = None,
        counts: Counts = NEW,
    ) -> EnqueueResult | PublishReceipt:
        assert counts == (BROUGHT if dead_letter_ids is not None else NEW)
        assert [origin.routing_key for origin in origins] == [*map(bytes.decode, contents)]
        assert content_bytes == sum(map(len, contents))
        assert not isinstance(expiration_ms, list) or len(expiration_ms) == len(contents)
        numbers = (
            dead_letter_ids.sequences if dead_letter_ids is not None else [None] * len(contents)
        )
        for place, (content, number) in enumerate(zip(contents, numbers, strict=True)):
            lifetimes = lifetimes_at(expiration_ms, [place])
            lifetime = lifetimes[0] if isinstance(lifetimes, list) else lifetimes
            self.got.append((content, persistent, lifetime, number))
        if self.chance.random() < 0.3:
            is_accepted = self.chance.random() < 0.5
            self.outcomes |= dict.fromkeys(contents, is_accepted)
            return EnqueueResult.ACCEPTED if is_accepted else EnqueueResult.REJECTED
        return self.asked(contents)

    enqueue = enqueue_dead_letters

    def asked(self, contents: list[bytes]) -> PublishReceipt:
        receipt, start = PublishReceipt(len(contents)), 0
        while start < len(contents):
            stop = self.chance.randint(start + 1, len(contents))
            is_accepted = self.chance.random() < 0.5
            self.outcomes |= dict.fromkeys(contents[start:stop], is_accepted)
            self.later.append(telling(receipt, start, stop, is_accepted))
            start = stop
        return receipt


def telling(
    receipt: PublishReceipt, start: int, stop: int, is_accepted: bool
) -> Callable[[], None]:
    return lambda: receipt.on_outcome(start, stop, is_accepted=is_accepted)


class Reported:
    """Some messages of a publisher, and what he hears of them."""

    def __init__(self, contents: list[bytes]) -> None:
        self.contents = contents
        self.outcomes: dict[bytes, bool] = {}

    def known(self, start: int, stop: int, *, is_accepted: bool) -> None:
        assert start < stop <= len(self.contents)
        for content in self.contents[start:stop]:
            assert content not in self.outcomes, "it is reported twice"
            self.outcomes[content] = is_accepted


def passes_on(seed: int) -> None:
    """Replace a queue by a successor when some messages have outcomes and others have none."""
    chance, given, edge = Random(seed), PublishReceipts(), SessionClient(GROUP, BOOT)
    successor, publishers, expected = Heir(chance), list[Reported](), list[Any]()
    names: Iterator[bytes] = iter([b"%d" % number for number in range(1_000)])
    for _ in range(chance.randint(1, 5)):
        contents = [next(names) for _ in range(chance.randint(1, 15))]
        persistent, how = chance.random() < 0.5, chance.choice(["never", "alike", "each"])
        own = [chance.randrange(1, 1_000) for _ in contents]
        said = {"never": None, "alike": own[0], "each": own}[how]
        numbers = [int(content) for content in contents] if chance.random() < 0.5 else None
        dead_letter_ids = DeadLetterIds(GROUP, 1, 1, [], numbers) if numbers is not None else None
        reported = Reported(contents)
        publishers.append(reported)
        given.ask(
            SessionRequests(edge), [Origin("", each.decode()) for each in contents],
            contents, sum(map(len, contents)),
            persistent=persistent, expiration_ms=cast(Any, said), dead_letter_ids=dead_letter_ids,
            counts=BROUGHT if dead_letter_ids is not None else NEW,
        ).then(reported.known)  # fmt: skip
        for place, content in enumerate(contents):
            lifetime = {"never": None, "alike": own[0], "each": own[place]}[how]
            number = numbers[place] if numbers is not None else None
            expected.append((content, persistent, lifetime, number))
    for _ in range(chance.randint(0, 6)):
        number, count = chance.randrange(1, edge.pending.next), chance.randint(1, 9)
        for _operation, first, known in edge.pending.of_kinds(number, count, (Publish,)):
            given.on_outcome(first, known, is_accepted=True)
    has_outcome = {content for reported in publishers for content in reported.outcomes}
    given.pass_on(edge.pending, cast(Any, successor))
    assert successor.got == [each for each in expected if each[0] not in has_outcome]
    chance.shuffle(successor.later)
    for tell in successor.later:
        tell()
    assert len(given) == 0
    for reported in publishers:
        assert reported.outcomes.keys() == {*reported.contents}
        for content, is_accepted in reported.outcomes.items():
            assert is_accepted == successor.outcomes.get(content, True)


@seeds(50)
def test_what_has_no_outcome_is_passed_on_as_it_was(seed: int) -> None:
    passes_on(seed)


@pytest.mark.parametrize(
    ("size", "count", "counts"),
    [
        (RUN_BYTES_MAX + 1, 3, [1, 1, 1]),
        (RUN_BYTES_MAX // 3, 3, [3]),
        (90, 3, [2, 1]),
        (0, 13, [6, 6, 1]),
        (RUN_BYTES_MAX // 12, 13, [6, 6, 1]),
    ],
)
def test_a_run_is_no_larger_than_its_bytes_or_one_message(
    size: int, count: int, counts: list[int]
) -> None:
    given, edge = PublishReceipts(), SessionClient(GROUP, BOOT)
    given.ask(
        SessionRequests(edge), [ALIVE] * count, [bytes(size)] * count, count * size,
        persistent=True, expiration_ms=None,
    )  # fmt: skip
    asked = [each for each in edge.pending if isinstance(each, Publish)]
    assert [len(each.contents) for each in asked] == counts


def test_what_is_held_back_of_an_edge_is_for_the_edge_to_pass_on() -> None:
    world = Batches(QueueType.CLASSIC)
    assert isinstance(world.leading, Classic)
    standstill = world.leading.hold()
    world.publish(BatchMaker(Random(1), has_keys=False).run()[0])
    world.rest()
    successor = Heir(Random(1))
    standstill.pass_on(cast(Any, successor))
    assert (successor.got, world.reported) == ([], {})


def test_a_home_says_how_large_messages_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only new messages are counted."""
    seen, enqueue = list[tuple[int, int]](), Queue.enqueue

    def measured(queue: Queue, origins: Any, contents: list[bytes], size: int, **how: Any) -> Any:
        seen.append((sum(map(len, contents)), size))
        return enqueue(queue, origins, contents, size, **how)

    monkeypatch.setattr(Queue, "enqueue", measured)
    home = Classic(QueueSpec("q", durable=True)).alone()
    session = home.sessions.open(SessionId("a", 1, 1, 1))
    for contents in ([b"1", b"22"], [b"1", b"22", b"333"]):
        origins = [ALIVE] * len(contents)
        home.publish(
            session, 1, origins, contents,
            persistent=True, expiration_ms=None, dead_letter_ids=None, counts=NEW,
        )  # fmt: skip
    assert seen == [(3, 3), (3, 3)]
