"""What a peer that is slow, or wrong, can make an edge and a leader keep and do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest

from fluffle.broker.cluster.queue_sessions import messages as m
from fluffle.broker.cluster.queue_sessions import send_queue, session_server
from fluffle.broker.cluster.queue_sessions.codec import RUN_MAX, decode
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.send_queue import (
    FRAME_SIZE_MAX,
    MESSAGE_SIZE,
    SIZE_MAX,
    SentFrame,
    SessionSendQueue,
)
from fluffle.broker.cluster.queue_sessions.session_client import (
    FRAME_BYTES_MAX,
    FRAMES_UNREPORTED_MAX,
    UNREPORTED_BYTES_MAX,
)
from fluffle.broker.cluster.queue_sessions.session_server import SESSIONS_MAX
from fluffle.broker.queues.delivery import DeliveryBatch, Outcome
from fluffle.broker.queues.engine import BURST_BYTES
from fluffle.broker.queues.quorum import effects as e
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.holders import Getter
from tests.broker.cluster.queue_sessions.world import GROUP, World
from tests.broker.queues.quorum.make import ORIGIN

Told = TypeVar("Told", bound=m.FromLeader)


def sent(world: World, node: str, kind: type[Told]) -> list[Told]:
    """What is on its way to an edge."""
    links = world.wire(node, to_leader=False).links
    frames = [decode(payload) for link in links for payload in link]
    told = [message for frame in frames for message in frame.messages]
    return [message for message in told if isinstance(message, kind)]


def from_edge(
    world: World, messages: list[m.FromClient], *, session: int = 1, opening: int | None = None
) -> None:
    """A frame of an edge that says whatever it likes, and has received nothing."""
    edge, own = world.clients["near"].edge, world.led.own
    frame = m.ClientFrame(
        GROUP,
        *own.reign,
        edge.boot,
        own.boot,
        session=session,
        opening=edge.opening if opening is None else opening,
        received=0,
        known=1,
        messages=messages,
    )
    world.led.sessions.take("near", frame)
    world.pump()
    while world.led.proposals:
        world.commit()


def test_an_edge_that_receives_nothing_is_given_so_much_and_no_more() -> None:
    world = World(("near",))
    world.attach("near", credit=1_000)
    world.rest()
    world.publish("near", 3 * SIZE_MAX // BURST_BYTES, BURST_BYTES)
    world.arrive()
    while world.led.proposals:
        world.commit()
    given = sum(len(each.contents) for each in sent(world, "near", m.Deliver))
    assert given <= SIZE_MAX // BURST_BYTES + 1
    world.rest()
    assert len(world.ghost.hands) == 3 * SIZE_MAX // BURST_BYTES


def test_who_asks_and_never_receives_is_not_listened_to_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(send_queue, "SIZE_MAX", 100 * MESSAGE_SIZE)
    world = World(("near",))
    world.rest()
    times = 400
    asked: list[m.FromClient] = [m.Purge(number) for number in range(1, times + 2)]
    from_edge(world, [m.Open(1)], opening=9)
    from_edge(world, asked, opening=9)
    from_edge(world, [m.Purge(times + 2)], opening=9)
    (session,) = world.led.image.state.sessions.values()
    assert session.next == times + 2


def test_what_was_not_listened_to_is_asked_for_again() -> None:
    world = World(("near",))
    world.rest()
    (key,) = world.led.image.state.sessions
    origins, contents = [ORIGIN], [bytes(5 * SIZE_MAX)]
    delivery_batch = DeliveryBatch(
        Getter(world.led.leadership.queue, no_ack=True), origins, contents, [1], redelivered=False
    )
    world.led.sessions.release([e.GetResult(key, 99, 99, delivery_batch)])
    world.publish("near", 3)
    world.arrive()
    assert not world.led.proposals
    world.rest()
    assert len(world.ghost.confirmed) == 3


def deliver(size: int) -> m.Deliver:
    return m.Deliver(99, 0, 0, False, [range(1, 2)], [], [bytes(size)])


def test_an_outbox_knows_its_size() -> None:
    box = SessionSendQueue()
    for message in (m.Done(1, 1), m.Done(2, 3), deliver(1_000), m.GetAnswer(5, 7, 0, [])):
        box.put(message)
    assert box.size == 3 * MESSAGE_SIZE + 1_000
    (frame,) = box.take()
    assert frame.messages[0] == m.Done(1, 4)
    box.withdraw(99)
    box.received(1)
    assert box.size == 0


def test_what_is_told_goes_in_frames_that_a_link_takes() -> None:
    box = SessionSendQueue()
    for _ in range(6):
        box.put(deliver(FRAME_SIZE_MAX // 3))
    box.put(deliver(3 * FRAME_SIZE_MAX))
    box.put(m.Done(1, 1))
    assert [len(frame.messages) for frame in box.take()] == [2, 2, 2, 1, 1]
    assert list(box.take()) == []


def test_an_outbox_knows_its_size_whatever_a_client_on_its_node_does_with_what_it_got() -> None:
    box, message = SessionSendQueue(), deliver(1_000)
    box.put(message)
    (_frame,) = box.take()
    message.contents[0] = b""
    box.received(1)
    assert (box.size, box.under_way(99)) == (0, 0)


def test_an_edge_says_what_it_has_received_though_it_has_nothing_else_to_say() -> None:
    world = World(("near",))
    world.rest()
    for _ in range(FRAMES_UNREPORTED_MAX):
        world.led.sessions.release([e.NotTaken(1, 1, 1)])
        world.pump()
    world.rest()
    world.led.sessions.release([e.NotTaken(1, 1, 1)])
    assert len(sent(world, "near", m.Rejected)) == 0
    world.link("near")
    assert len(sent(world, "near", m.Rejected)) == 1


def test_a_leader_hears_with_a_settlement_that_what_is_settled_has_arrived() -> None:
    """One frame, not two; of a consumer without acknowledgements, which settles nothing, one."""
    world = World(("near",))
    world.attach("near")
    world.attach("near", no_ack=True)
    world.rest()
    for count in (2, 1):
        world.publish("near", count)
        world.rest()
    near = world.clients["near"].edge
    assert near.received - near.told == 1
    world.settle("near", world.in_hands("near"))
    assert near.received > near.told
    world.hurry("near")
    assert near.received == near.told


def test_a_leader_that_keeps_much_hears_at_once_that_it_has_arrived() -> None:
    world = World(("near",))
    world.attach("near")
    world.rest()
    world.publish("near", 1, UNREPORTED_BYTES_MAX)
    world.rest()
    near = world.clients["near"].edge
    assert (near.received, near.untold_bytes) == (near.told, 0)


def test_what_is_asked_goes_in_frames_that_a_link_takes() -> None:
    world = World(("near",))
    world.rest()
    world.cut("near")
    for _ in range(6):
        world.publish("near", 1, FRAME_BYTES_MAX // 2)
    world.link("near")
    (link,) = [link for link in world.wire("near", to_leader=True).links if link]
    assert len(link) == 3
    assert max(map(len, link)) < FRAME_BYTES_MAX + 1_000
    world.rest()
    assert len(world.ghost.confirmed) == 6


def test_a_node_has_no_more_than_so_many_sessions() -> None:
    world = World(("near",))
    world.rest()
    for counter in range(2, SESSIONS_MAX + 10):
        from_edge(world, [m.Open(1)], session=counter, opening=counter + 10)
    counters = [each.id.counter for each in world.led.image.state.sessions.values()]
    assert len(counters) <= SESSIONS_MAX + 1
    assert max(counters) == SESSIONS_MAX + 9


def test_an_opening_is_of_one_session() -> None:
    world = World(("near",))
    world.rest()
    for counter in range(2, 9):
        from_edge(world, [m.Open(1), m.Purge(1)], session=counter)
    (session,) = world.led.image.state.sessions.values()
    assert session.id == SessionId("near", *world.boots["near"], 1)


def test_who_forgets_what_it_is_asking_in_is_heard_all_the_same() -> None:
    world = World(("near",))
    world.rest()
    from_edge(world, [m.Forget(99), m.Purge(1)])
    (session,) = world.led.image.state.sessions.values()
    assert session.next == 2


def test_a_turn_costs_nothing_for_those_who_have_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(tuple(f"node {number}" for number in range(20)))
    world.rest()
    asked: set[int] = set()
    take = SessionSendQueue.take

    def watched(waiting: SessionSendQueue) -> Iterable[SentFrame]:
        asked.add(id(waiting))
        return take(waiting)

    monkeypatch.setattr(SessionSendQueue, "take", watched)
    world.publish("node 7")
    world.rest()
    assert len(asked) == 1


EVERYTHING = range(1, RUN_MAX)


def holding() -> World:
    world = World(("near",))
    world.attach("near")
    world.publish("near", 3, 1_000)
    world.rest()
    return world


def test_a_settlement_costs_no_more_than_what_there_is_of_it() -> None:
    world = holding()
    (token, *_others) = world.in_hands("near")
    number = world.clients["near"].edge.pending.next
    everything = [m.Token(token.holder, 0, EVERYTHING)] * 100
    from_edge(world, [m.Settle(number, Outcome.ACKED, everything)])
    assert world.led.image.state.live_count == 0


def test_a_record_costs_no_more_than_what_is_in_hands() -> None:
    world = holding()
    edge, own = world.clients["near"].edge, world.led.own
    (token, *_others) = world.in_hands("near")
    record = m.SessionRecord(
        edge.pending.next, [token.holder], [], [m.Token(token.holder, 0, EVERYTHING)]
    )
    frame = m.LeaderFrame(
        GROUP, *own.reign, own.boot, edge.boot, 1, edge.opening, edge.received + 1, [record]
    )
    assert apply_frame(edge, frame) == []
    assert edge.answer == m.NeverArrived([m.Token(token.holder, 0, EVERYTHING[3:])])


def test_what_never_arrived_is_delivered_again_though_others_have_ended_since() -> None:
    world = holding()
    (token, *_others) = world.in_hands("near")
    number = world.clients["near"].edge.pending.next
    world.change_leader()
    asked: list[m.FromClient] = [
        m.Open(number),
        m.Settle(number, Outcome.ACKED, [m.Token(token.holder, 0, range(1, 2))]),
        m.NeverArrived([m.Token(token.holder, 0, range(1, 4))]),
    ]
    from_edge(world, asked)
    again = [message for each in sent(world, "near", m.Deliver) for message in each.runs]
    assert [sequence for run in again for sequence in run] == [2, 3]


def test_what_never_arrived_is_delivered_again_once() -> None:
    """However often it is said in one frame."""
    world = holding()
    (token, *_others) = world.in_hands("near")
    world.change_leader()
    opening = world.clients["near"].edge.opening
    missing = m.Token(token.holder, 0, range(1, 4))
    from_edge(world, [m.Open(1), m.NeverArrived([missing] * 1_000)], opening=opening)
    given = [content for each in sent(world, "near", m.Deliver) for content in each.contents]
    assert len(given) == 3


# What is another's


def two_hold() -> tuple[World, m.Token]:
    """And what of it is in hands at the other edge."""
    world = World(("near", "left"))
    for node in ("near", "left"):
        world.attach(node, credit=2)
    world.publish("near", 4)
    world.rest()
    (token, *_rest) = world.in_hands("left")
    return world, token


def held_by(world: World, node: str) -> list[m.Token]:
    """As its leader has it."""
    stream = world.led.sessions._nodes[node].stream
    assert stream is not None
    return [m.Token(*held) for held in world.led.leadership.on_record.holds(stream.key)]


@pytest.mark.parametrize("outcome", [Outcome.ACKED, Outcome.REJECTED])
def test_nobody_settles_what_is_in_the_hands_of_another_node(outcome: Outcome) -> None:
    world, token = two_hold()
    number = world.clients["near"].edge.pending.next
    from_edge(world, [m.Settle(number, outcome, [token])])
    world.commit()
    assert sent(world, "near", m.Rejected) == [m.Rejected(number, 1)]
    assert token in held_by(world, "left")


def test_nobody_gives_back_what_is_in_the_hands_of_another_node() -> None:
    world, token = two_hold()
    number = world.clients["near"].edge.pending.next
    from_edge(world, [m.Settle(number, Outcome.NACK_REQUEUED, [token])])
    world.commit()
    assert sent(world, "near", m.Done) == [m.Done(number, 1)]
    assert token in held_by(world, "left")


def test_nobody_detaches_or_credits_the_consumer_of_another_node() -> None:
    world, token = two_hold()
    stream = world.led.sessions._nodes["left"].stream
    assert stream is not None
    limits = dict(stream.limits)
    number = world.clients["near"].edge.pending.next
    from_edge(world, [m.Credit(token.holder, 99), m.Detach(number, token.holder, Outcome.LOST)])
    assert stream.limits == limits
    assert token in held_by(world, "left")
    assert world.led.leadership.queue.consumer_count == 2
    near = world.led.sessions._nodes["near"].stream
    assert near is not None
    assert token.holder not in near.limits


# What is left at a leader


def test_answers_that_an_edge_does_not_care_for_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_server, "ANSWERS_MAX", 10)
    world = World(("near",))
    world.rest()
    from_edge(world, [m.Open(1)], opening=9)
    for first in range(1, 100, 5):
        from_edge(world, [m.Purge(first + at) for at in range(5)], opening=9)
    (session,) = world.led.image.state.sessions.values()
    assert len(session.answers) == 10
    assert world.led.sessions.excesses == ["near"]


def test_an_edge_that_hears_its_answers_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_server, "ANSWERS_MAX", 3)
    world = World(("near",))
    world.rest()
    for _ in range(10):
        world.clients["near"].purge()
    world.rest()
    assert len(world.clients["near"].edge.pending) == 0
    world.clients["near"].purge()
    world.rest()
    assert len(world.clients["near"].edge.pending) == 0


def test_consumers_of_an_edge_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_server, "HOLDERS_MAX", 5)
    world = World(("near",))
    world.rest()
    attaches: list[m.FromClient] = [
        m.Attach(number, 0, "t", 0, m.Signed(0), False, False, b"") for number in range(1, 50)
    ]
    from_edge(world, [m.Open(1), *attaches], opening=9)
    assert world.led.leadership.queue.consumer_count == 5
    assert world.led.sessions.excesses == ["near"]
