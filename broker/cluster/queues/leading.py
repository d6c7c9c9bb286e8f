"""The queues that may be led on this node, and the streams of edges to those that are."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from functools import partial

from fluffle.broker.cluster.queues.guarding import Guard
from fluffle.broker.cluster.queues.ports import NOBODY, Around, Known, QueueId, Served
from fluffle.broker.cluster.streams.messages import Boot, EdgeFrame, Leader, LeaderFrame
from fluffle.broker.cluster.streams.sessions import Sessions, not_leading
from fluffle.broker.logs import event
from fluffle.raft.config import NodeId

TICK_S = 1.0
"""How long consumers of a node without a link keep what they hold is a matter of a minute."""


logger = logging.getLogger(__name__)


class Leading:
    """By the id of the queue."""

    __slots__ = (
        "_around", "_held", "_held_up", "_is_ticking", "_speaking", "_touched",
        "guard", "queues",
    )  # fmt: skip

    def __init__(self, around: Around) -> None:
        self._around = around
        self.queues: dict[QueueId, Served] = {}
        self._touched: dict[QueueId, None] = {}
        """To be pumped."""
        self._speaking: dict[QueueId, None] = {}
        """Whose sessions may have something to say."""
        self._held: dict[QueueId, None] = {}
        """To be pumped in the next turn, whoever asks for that."""
        self._held_up: dict[QueueId, None] = {}
        """To be pumped again after a while."""
        self._is_ticking = False
        self.guard = Guard(self.queues, around.call_later, around.queue_failed)

    def known(self, queue: QueueId) -> Known:
        """Who leads a queue, as far as it is known without asking."""
        served = self.queues.get(queue)
        return served.known if served is not None else NOBODY

    # What happens to a queue

    def touch(self, queue: QueueId) -> None:
        """It may have something to hand out or to propose."""
        self._touched[queue] = None
        self.speak(queue)

    def speak(self, queue: QueueId) -> None:
        """Edges are to be told something."""
        self._speaking[queue] = None
        self._around.touch()

    def hold(self, queue: QueueId) -> None:
        """What it has to propose waits for the disk, whose commit ends with a turn."""
        self._held[queue] = None

    def touch_later(self, queue: QueueId) -> None:
        """It has something to propose that was not taken, and nobody may tell when it would be."""
        self._held_up[queue] = None
        self._tick_later()

    def greet(self, sessions: Sessions) -> None:
        """A leadership begins: it is told which links there are."""
        for node, boot in self._around.lives.items():
            sessions.linked(node, boot)
        self._tick_later()

    # What comes over links

    def take(self, node: NodeId, frame: EdgeFrame) -> None:
        """From an edge, maybe of this node."""
        if frame.receiver != self._around.boot:
            return  # it was for an earlier life
        served = self.queues.get(frame.group)
        sessions = served.sessions if served is not None else None
        if sessions is None or not frame.term:
            known = self.known(frame.group)
            hint = Leader(known.node, self._around.boot, known.term, known.leadership)
            self._around.send(node, not_leading(frame, hint))
        else:
            self.guard.run(frame.group, partial(sessions.take, node, frame))
            self.touch(frame.group)
            while sessions.excesses:
                excessive = sessions.excesses.pop()
                event(logger, logging.ERROR, "edge_not_heard", node=excessive, queue=frame.group)

    def linked(self, node: NodeId, boot: Boot) -> None:
        """There is a link to a node, in this life of it."""
        for queue, sessions in self._sessions():
            sessions.linked(node, boot)
            self.touch(queue)

    def unlinked(self, node: NodeId) -> None:
        """There is none any more."""
        for _queue, sessions in self._sessions():
            sessions.unlinked(node, self._around.now_ms())
            self._end_dead(sessions)
        self._tick_later()

    def _end_dead(self, sessions: Sessions) -> None:
        """What clients of a node hold whose process has ended comes back at once."""
        for node in sessions.silent:
            if self._around.is_nobody_there(node):
                sessions.ended(node)

    def removed(self, node: NodeId) -> None:
        """It is no node of this cluster any more."""
        for queue, sessions in self._sessions():
            sessions.removed(node)
            self.touch(queue)

    def _sessions(self) -> Iterator[tuple[QueueId, Sessions]]:
        for queue, served in self.queues.items():
            if (sessions := served.sessions) is not None:
                yield queue, sessions

    def _tick_later(self) -> None:
        """Look at the clock, and again while the time of anybody runs."""
        if not self._is_ticking:
            self._is_ticking = True
            self._around.call_later(TICK_S, self._tick)

    def _tick(self) -> None:
        self._is_ticking = False
        held_up, self._held_up = self._held_up, {}
        for queue in held_up:
            self.touch(queue)
        now_ms = self._around.now_ms()
        running = []
        for _queue, sessions in self._sessions():
            self._end_dead(sessions)
            running.append(sessions.tick(now_ms))
        if any(running):
            self._tick_later()

    # A turn

    def pump(self) -> None:
        """In front of consensus: what has been decided is proposed."""
        touched, self._touched, self._held = self._held | self._touched, {}, {}
        for queue in touched:
            if (served := self.queues.get(queue)) is not None:
                self.guard.run(queue, served.pump)

    def output(self) -> Iterator[tuple[NodeId, LeaderFrame]]:
        """Behind it: what edges are told."""
        speaking, self._speaking = self._speaking, {}
        for queue in speaking:
            served = self.queues.get(queue)
            sessions = served.sessions if served is not None else None
            if sessions is not None:
                yield from sessions.output(self._around.has_room)
                if sessions.is_held_up:
                    self._speaking[queue] = None
