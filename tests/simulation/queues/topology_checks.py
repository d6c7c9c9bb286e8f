"""Answers to clients of all nodes about exchanges and bindings, and whether they can be so.

Each of them is a register: it is there, or it is not.  A declaration that was answered has made it
so at some time between question and answer, whatever was there before; what had no answer may come
true at any time.  A client that hears that it is not there, though it was there when it asked, and
none has deleted it since, was answered by what a node knew that did not know enough.

A client that finds something is answered at once, so that may be old; in half of the cases it asks
so that it is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, TypeAlias

from fluffle.broker.base.errors import BrokerError, InternalError, NotFound
from fluffle.broker.metadata.change import Change
from fluffle.broker.routing import changes as topologies
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.broker.vhosts import queue_changes
from fluffle.broker.vhosts.vhost import VirtualHost
from tests.simulation.facts import Violation
from tests.simulation.virtual_time import SECOND_US
from tests.simulation.workload import Workload

if TYPE_CHECKING:
    from tests.simulation.queues.queue_cluster import QueueCluster
    from tests.simulation.queues.queue_node import QueueNode

NAMES = ("r0", "r1")
TARGET = "amq.fanout"
RATES = (0.0, 0.0, 4.0, 20.0)
"""How often a second something is asked."""

Decide: TypeAlias = Callable[[VirtualHost], Change]


@dataclass(slots=True, eq=False)
class Write:
    """Something that was asked for."""

    makes: bool
    """True if it is there after that."""
    began_us: float
    ended_us: float = inf
    """When it was answered; until then it may come true."""


class Register:
    """Something that is there or is not, as clients know it."""

    __slots__ = ("_name", "_writes")

    def __init__(self, name: str) -> None:
        self._name = name
        self._writes = [Write(makes=False, began_us=-2, ended_us=-1)]

    def begin(self, now_us: int, *, makes: bool) -> Write:
        """Record the request of a write."""
        write = Write(makes, now_us)
        self._writes.append(write)
        return write

    def refused(self, write: Write) -> None:
        """The change has not come true, and will not."""
        self._writes.remove(write)

    def read(self, began_us: int, *, is_there: bool) -> None:
        """Check a read that began at `began_us`.  Violation if it cannot be so."""
        last_us = max(
            (each.ended_us for each in self._writes if each.makes is is_there), default=-inf
        )
        for write in self._writes:
            is_over = write.makes is not is_there and write.ended_us < began_us
            if is_over and write.began_us >= last_us:
                said = "there" if is_there else "not there"
                raise Violation(
                    f"{self._name} is said to be {said} to one who asked at {began_us}: it was "
                    f"made otherwise from {write.began_us} to {write.ended_us}, and nothing since"
                )


class TopologyChecks:
    """Checks of one run's topology, with the clients that query it."""

    def __init__(self, queue_cluster: QueueCluster) -> None:
        self._queue_cluster = queue_cluster
        self._chance = queue_cluster.cluster.clockwork.chance("registers")
        self._rate = self._chance.choice(RATES)
        self._workload: Workload
        self.exchanges = {name: Register(f"exchange {name}") for name in NAMES}
        self.bindings = {name: Register(f"the binding of {name}") for name in NAMES}
        self.answers = 0
        """How many have heard that something is not there."""

    def begin(self, workload: Workload) -> None:
        self._workload = workload
        if self._rate:
            self._again()

    def _again(self) -> None:
        if self._workload.is_stopped:
            return
        clockwork, chance = self._queue_cluster.cluster.clockwork, self._chance
        queue_nodes = self._queue_cluster.open_nodes()
        if queue_nodes:
            queue_node, name = chance.choice(queue_nodes), chance.choice(NAMES)
            act = chance.choice(
                (
                    self.declare,
                    self.delete,
                    self.bind,
                    self.unbind,
                    self.look,
                    self.route,
                    self.look,
                )
            )
            if queue_node.defining.vhost is not None:
                act(queue_node, name)
        clockwork.after(int(chance.expovariate(self._rate) * SECOND_US), self._again)

    @property
    def _now_us(self) -> int:
        return self._queue_cluster.cluster.clockwork.now_us

    # Changes

    def declare(self, queue_node: QueueNode, name: str) -> None:
        spec = ExchangeSpec(name, "direct", durable=True)
        writes = [(register := self.exchanges[name], register.begin(self._now_us, makes=True))]
        self._change(
            queue_node,
            name,
            lambda vhost: topologies.declare_exchange(vhost.topology, spec),
            writes,
        )

    def delete(self, queue_node: QueueNode, name: str) -> None:
        """With what is bound to it."""
        registers = self.exchanges[name], self.bindings[name]
        writes = [(each, each.begin(self._now_us, makes=False)) for each in registers]
        self._change(
            queue_node, name, lambda vhost: topologies.delete_exchange(vhost.topology, name), writes
        )

    def bind(self, queue_node: QueueNode, name: str) -> None:
        """NotFound is what is said of the exchange."""
        writes = [(register := self.bindings[name], register.begin(self._now_us, makes=True))]
        decide = partial(bound, binding_of(name))
        self._change(queue_node, name, decide, writes, of=self.exchanges[name])

    def unbind(self, queue_node: QueueNode, name: str) -> None:
        writes = [(register := self.bindings[name], register.begin(self._now_us, makes=False))]
        decide = partial(unbound, binding_of(name))
        self._change(queue_node, name, decide, writes, of=self.exchanges[name])

    def _change(
        self,
        queue_node: QueueNode,
        name: str,
        decide: Decide,
        writes: list[tuple[Register, Write]],
        of: Register | None = None,
    ) -> None:
        """`of`: of what it is said that it is not there."""
        vhost, began_us = queue_node.defining.vhost, self._now_us
        assert vhost is not None

        def done() -> None:
            for _, write in writes:
                write.ended_us = self._now_us
            self._queue_cluster.cluster.clockwork.after(1, self._follow, name)

        def failed(error: BrokerError) -> None:
            if isinstance(error, InternalError):
                return
            for register, write in writes:
                register.refused(write)
            if of is not None and isinstance(error, NotFound):
                self._reported(of, began_us, is_there=False)

        queue_node.applied_barrier.change(partial(decide, vhost), done, failed)

    # Questions

    def _follow(self, name: str) -> None:
        """A client that has heard that something was done looks for it elsewhere at once."""
        queue_nodes = [
            each for each in self._queue_cluster.open_nodes() if each.defining.vhost is not None
        ]
        if queue_nodes and not self._workload.is_stopped:
            queue_node = self._chance.choice(queue_nodes)
            self.look(queue_node, name)
            self.route(queue_node, name)

    def look(self, queue_node: QueueNode, name: str) -> None:
        """Look as a passive declaration does."""
        self._ask(queue_node, self.exchanges[name], partial(has_exchange, name))

    def route(self, queue_node: QueueNode, name: str) -> None:
        """Look as a message does that is published there."""
        self._ask(queue_node, self.bindings[name], partial(has_binding, name))

    def _ask(
        self, queue_node: QueueNode, register: Register, is_there: Callable[[VirtualHost], bool]
    ) -> None:
        vhost, began_us = queue_node.defining.vhost, self._now_us
        assert vhost is not None

        def known() -> None:
            self._reported(register, began_us, is_there=is_there(vhost))

        if not is_there(vhost) or self._chance.random() < 0.5:
            queue_node.metadata.reads.ask(known, unanswered)

    def _reported(self, register: Register, began_us: int, *, is_there: bool) -> None:
        self.answers += not is_there
        register.read(began_us, is_there=is_there)


def unanswered(_error: BrokerError) -> None:
    """The answer could not be known in time."""


def binding_of(name: str) -> Binding:
    return Binding(name, TARGET, DestinationKind.EXCHANGE, "k")


def bound(binding: Binding, vhost: VirtualHost) -> Change:
    return queue_changes.bind(vhost, binding, None)


def unbound(binding: Binding, vhost: VirtualHost) -> Change:
    return queue_changes.unbind(vhost, binding, None)


def has_exchange(name: str, vhost: VirtualHost) -> bool:
    return vhost.topology.find(name) is not None


def has_binding(name: str, vhost: VirtualHost) -> bool:
    return binding_of(name) in vhost.topology.bindings_to(DestinationKind.EXCHANGE, TARGET)
