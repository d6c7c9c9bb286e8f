"""Cost of serving a client of a replicated queue: from its edge to the leader, and back.

A turn publishes a batch, settles what came of the turn before, has the leader decide and apply it,
and hears of its confirms and deliveries.  Between the two ends, frames are bytes as on a link, or
handed over as where the leader is on the edge's own node.
"""

from collections.abc import Callable

from benchmarks.micro.hot import content, ns_per_message
from benchmarks.micro.replicated import ORIGIN, TURNS
from fluffle.broker.base.message import Origin
from fluffle.broker.cluster.queue_sessions import events as happened
from fluffle.broker.cluster.queue_sessions.codec import decode, encode
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import (
    AttachTerms,
    SessionClient,
    SessionRequests,
)
from fluffle.broker.cluster.queue_sessions.session_server import SessionServer
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import Key
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.messages import Effect
from fluffle.broker.queues.quorum.state import QueueImage
from tests.support.leader_services import FakeLeaderServices
from tests.support.payloads import joined

BATCH_MESSAGES = (1, 100)
GROUP = 7
CREDIT = 1_000


class Served(FakeLeaderServices):
    """A client, its edge, and a leader whose entries are applied as soon as they are proposed."""

    def __init__(self, pass_on: Callable[[m.Frame], m.Frame], acked_at_once: int = CREDIT) -> None:
        super().__init__(QueueSpec("measurements"), [])
        self.pass_on = pass_on
        self.acked_at_once = acked_at_once
        image = QueueImage()
        self.image = image
        self.led = Leadership(image, self, self, term=1)
        own, far = m.Leader("a", m.SessionBoot(1, 1), 1), m.SessionBoot(1, 2)
        self.sessions = SessionServer(GROUP, own, image.state, self.led, 0)
        self.sessions.linked("b", far)
        self.session = SessionClient(GROUP, far)
        self.asking = SessionRequests(self.session)
        self.session.connect(own)
        self.asking.attach(1, AttachTerms("c"), CREDIT)
        self.delivers: list[m.Deliver] = []
        self.confirmed = 0
        self.turn()
        self.turn()

    def propose(self, payload: bytes, on_outcome: Callable[[bool], None]) -> None:
        self.image.apply(self.image.state.index + 1, payload)
        on_outcome(True)

    def room(self, holder: Key) -> int:
        return self.sessions.room(holder)

    def release(self, effects: list[Effect]) -> None:
        self.sessions.release(effects)

    def publish_and_settle(self, origins: list[Origin], contents: list[bytes]) -> None:
        delivers, self.delivers = self.delivers, []
        for deliver in delivers:
            for run in deliver.runs:
                for at in range(0, len(run), self.acked_at_once):
                    part = run[at : at + self.acked_at_once]
                    token = m.Token(deliver.holder, deliver.ordinal, part)
                    self.asking.settle([token], Outcome.ACKED)
        self.asking.publish(origins, contents)
        self.turn()

    def turn(self) -> None:
        edge, sessions = self.session, self.sessions
        while (sent := edge.output()) is not None:
            frame = self.pass_on(sent[1])
            assert isinstance(frame, m.ClientFrame)
            sessions.receive("b", frame)
        self.led.pump()
        for _node, reply in sessions.output(lambda _node: True):
            frame = self.pass_on(reply)
            assert isinstance(frame, m.LeaderFrame)
            for event in apply_frame(edge, frame):
                if isinstance(event, happened.MessagesDelivered):
                    self.delivers.append(event.deliver)
                elif isinstance(event, happened.PublishConfirmed):
                    self.confirmed += event.count


def over_a_link(frame: m.Frame) -> m.Frame:
    return decode(joined(encode(frame)))


def within_a_node(frame: m.Frame) -> m.Frame:
    return frame


def serving(
    body_bytes: int, pass_on: Callable[[m.Frame], m.Frame], acked_at_once: int = CREDIT
) -> Callable[[int], float]:
    """All but consensus, applying included."""

    def measure(batch: int) -> float:
        contents, origins = [content(1, body_bytes)] * batch, [ORIGIN] * batch
        served = Served(pass_on, acked_at_once)
        served.publish_and_settle(origins, contents)

        def call() -> int:
            before = served.confirmed
            for _ in range(TURNS):
                served.publish_and_settle(origins, contents)
            if served.confirmed - before != TURNS * batch:
                raise AssertionError(f"{served.confirmed - before} messages were confirmed")
            return TURNS * batch

        return ns_per_message(call)

    return measure


def framing(body_bytes: int) -> Callable[[int], float]:
    """The two frames of a turn that carry contents, as bytes and back."""

    def measure(batch: int) -> float:
        contents, origins = [content(1, body_bytes)] * batch, [ORIGIN] * batch
        publish = m.Publish(1, origins, contents, is_persistent=True)
        deliver = m.Deliver(2, 0, 0, False, [range(1, batch + 1)], origins, contents)
        one, other = m.SessionBoot(1, 1), m.SessionBoot(1, 2)
        frames: list[m.Frame] = [
            m.ClientFrame(GROUP, 1, 1, other, one, 1, 1, 1, 1, [publish]),
            m.LeaderFrame(GROUP, 1, 1, one, other, 1, 1, 1, [m.DoneReply(1, batch), deliver]),
        ]

        def call() -> int:
            for _ in range(TURNS):
                for frame in frames:
                    if len(over_a_link(frame).messages) != len(frame.messages):
                        raise AssertionError("messages are missing")
            return TURNS * batch

        return ns_per_message(call)

    return measure


BENCHES: dict[str, Callable[[int], float]] = {
    "streams over a link, 16 B": serving(16, over_a_link),
    "streams over a link, 1 KiB": serving(1_024, over_a_link),
    "streams within a node, 16 B": serving(16, within_a_node),
    "the same, acknowledged one by one": serving(16, within_a_node, acked_at_once=1),
    "frames of streams, 16 B": framing(16),
    "frames of streams, 1 KiB": framing(1_024),
}
