"""The edges of one node: a `Hub`.  Whom each talks to is what members, leaders and time tell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from random import Random

from fluffle.broker.cluster.queues.ports import Counts, OnEvents
from fluffle.broker.cluster.streams import events as happened
from fluffle.broker.cluster.streams import messages as m
from fluffle.broker.cluster.streams.edge import Edge
from fluffle.broker.cluster.streams.hearing import hear
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.raft.config import NodeId
from fluffle.raft.records import GroupId

SILENCE_MS = 2_000
"""Whoever was asked and has said nothing for so long is asked again, or somebody else is."""


class Connected:
    """An `EdgePort`."""

    def __init__(self, edge: Edge, on_events: OnEvents, touch: Callable[[], None]) -> None:
        self.edge = edge
        self.on_events = on_events
        self.heard_ms = 0
        """When its leader was heard, or asked, last."""
        self._touch = touch

    def touch(self) -> None:
        self._touch()


class Edges:
    def __init__(
        self,
        boot: m.Boot,
        boots: dict[NodeId, m.Boot],
        chance: Random,
        touch: Callable[[], None],
    ) -> None:
        self._boot = boot
        self._boots = boots
        """Of all nodes that can be reached, as they come and go."""
        self._chance = chance
        self._touch = touch
        self.ports: dict[GroupId, Connected] = {}
        self.now_ms = 0

    def open(self, definition: QueueDefinition, on_events: OnEvents) -> Connected:
        port = Connected(Edge(definition.id, self._boot), on_events, self._touch)
        self.ports[definition.id] = port
        self._look(port)
        return port

    def close(self, queue: int) -> None:
        port = self.ports.pop(queue)
        port.on_events(port.edge.deleted())

    def ask_counts(self, queue: int, done: Callable[[Counts | None], None]) -> None:
        """Nobody asks here."""
        done(None)

    def led(self, group: GroupId, leader: m.Leader) -> None:
        """Somebody leads."""
        port = self.ports.get(group)
        if port is not None and port.edge.leader != leader:
            self._connect(port, leader)

    def _connect(self, port: Connected, leader: m.Leader | None) -> None:
        port.edge.connect(leader)
        port.heard_ms = self.now_ms
        self._touch()

    def _look(self, port: Connected) -> None:
        """Ask anybody."""
        node = self._chance.choice(sorted(self._boots))
        term, leadership = port.edge.reign
        self._connect(port, m.Leader(node, self._boots[node], term, leadership))

    def tick(self, now_ms: int) -> None:
        self.now_ms = now_ms
        for port in self.ports.values():
            edge = port.edge
            is_waiting = edge.leader is None or edge.answer is None or edge.pending
            if edge.leader is None or (is_waiting and now_ms - port.heard_ms >= SILENCE_MS):
                self._look(port)

    def link_changed(self, node: NodeId) -> None:
        for port in self.ports.values():
            leader = port.edge.leader
            if leader is not None and leader.node == node:
                boot = self._boots.get(node)
                self._connect(port, leader._replace(boot=boot) if boot is not None else None)

    def hear(self, frame: m.LeaderFrame) -> None:
        port = self.ports.get(frame.group)
        if port is None:
            return
        events = hear(port.edge, frame)
        port.heard_ms = self.now_ms
        for event in events:
            if isinstance(event, happened.Misled):
                self._misled(port, event)
        port.on_events(events)
        self._touch()

    def _misled(self, port: Connected, event: happened.Misled) -> None:
        reign = event.term, event.leadership
        boot = self._boots.get(event.leader)
        if boot is not None and reign > port.edge.reign:
            self._connect(port, m.Leader(event.leader, boot, *reign))

    def output(self) -> Iterator[tuple[NodeId, m.EdgeFrame]]:
        for port in self.ports.values():
            while (sent := port.edge.output()) is not None:
                yield sent
