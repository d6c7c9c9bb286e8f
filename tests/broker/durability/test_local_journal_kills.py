"""A durable queue whose messages expire, and whose process may end at any moment.

What was dropped stays so once that is on disk; all others have as long as they had left.
"""

from __future__ import annotations

from random import Random

from fluffle.broker.queues.queue_api import Consumer, Outcome, SharedCredit
from fluffle.storage.disk import MemoryDisk
from tests.broker.durability.test_local_journal_expiry import START_MS, Node
from tests.broker.queues.queue_harness import FakeSink
from tests.suite.seeds import seeds

FOR_EVER = START_MS * 2


class Life:
    """A queue from kill to kill, and what of it must be there after the next."""

    def __init__(self, chance: Random) -> None:
        self.chance = chance
        self.disk = MemoryDisk()
        self.node = Node(self.disk)
        self.groups = self.node.groups
        self.published = 0
        self.there: dict[bytes, int] = {}
        """When each message expires that is in the queue."""
        self.on_disk: dict[bytes, int] = {}
        self.buried: set[bytes] = set()
        """Removed messages, with that on disk."""
        self.kills = self.deaths = 0

    def publish(self) -> None:
        lifetime_ms = self.chance.choice((None, 1, 20, 500, 3_000))
        bodies = [b"%d" % (self.published + more) for more in range(self.chance.randint(1, 3))]
        self.published += len(bodies)
        self.node.publish(*bodies, expiration_ms=lifetime_ms)
        expires_at_ms = FOR_EVER if lifetime_ms is None else self.node.now + lifetime_ms
        self.there |= dict.fromkeys(bodies, expires_at_ms)

    def pass_time(self) -> None:
        self.node.now += self.chance.choice((1, 15, 400))

    def pump(self) -> None:
        self.node.queue.pump()
        self._bury()

    def take(self) -> None:
        """Get a message and acknowledge it."""
        taker = Consumer("tag", self.node.queue, FakeSink(), shared=SharedCredit())
        delivery_batch = self.node.queue.get(taker)
        self._bury()
        left = [body for body, at_ms in self.there.items() if at_ms > self.node.now]
        assert (delivery_batch.contents[:] if delivery_batch is not None else []) == left[:1]
        if delivery_batch is not None:
            self.node.queue.settle(delivery_batch, 0, 1, Outcome.ACKED)
            del self.there[left[0]]

    def _bury(self) -> None:
        dead, self.node.dead = self.node.dead, []
        for body in dead:
            assert body not in self.buried, "it has died before, for good"
            assert self.there.pop(body) <= self.node.now, "it had time left"
        self.deaths += len(dead)

    def flush(self) -> None:
        """All that was done so far is on disk."""
        self.node.commits.flush()
        self.buried |= self.on_disk.keys() - self.there.keys()
        self.on_disk = self.there.copy()

    def kill(self) -> None:
        self.node = Node(self.disk, self.groups, self.node.now + self.chance.choice((0, 30, 600)))
        self.there = self.on_disk.copy()
        self.kills += 1
        due_ms = min(self.there.values(), default=FOR_EVER)
        assert self.node.queue.ready_count == len(self.there)
        if due_ms < FOR_EVER and next(iter(self.there.values())) == due_ms:
            self._check_that_it_wakes(due_ms)

    def _check_that_it_wakes(self, due_ms: int) -> None:
        """The message in front has as long as it had left: nothing dies before `due_ms`, and the
        queue is awake then.

        RabbitMQ expires what is in front when its time is over, and never before; when its timer
        looks is its own affair.  An entry on disk says when the first of its messages expires,
        settled ones included, so a queue may look once too early, and knows after that.
        """
        node = Node(self.disk, self.groups, self.node.now)
        assert node.wakes[-1] == self.node.wakes[-1] <= due_ms, "it lives longer than it should"
        if node.wakes[-1] < due_ms:
            node.now = min(max(node.now, node.wakes[-1]), due_ms - 1)
            node.queue.pump()
            assert node.dead == [], "it had time left"
        assert node.wakes[-1] == due_ms, "it has as long as it had left"
        node.now = due_ms
        node.queue.pump()
        assert node.dead[:1] == [next(iter(self.there))]


@seeds(20)
def test_whenever_it_is_killed(seed: int) -> None:
    chance = Random(seed)
    life = Life(chance)
    acts = [life.publish] * 4 + [life.pass_time] * 3 + [life.pump] * 2
    acts += [life.take] * 2 + [life.flush] * 2 + [life.kill]
    for _ in range(300):
        chance.choice(acts)()
    while life.kills <= 5 or life.deaths <= 20:  # a history in which too little happens goes on
        chance.choice(acts)()
    life.flush()
    life.kill()
    while life.there:
        before = len(life.there)
        life.take()
        if len(life.there) == before:
            assert not [at_ms for at_ms in life.there.values() if at_ms > life.node.now]
            life.pump()
