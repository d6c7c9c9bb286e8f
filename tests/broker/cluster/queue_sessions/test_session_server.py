"""Limits of what slow or faulty peers make a client node and a leader keep and do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar

import pytest

from fluffle.broker.cluster.queue_sessions import session_server
from fluffle.broker.cluster.queue_sessions.codec import RUN_MAX, decode
from fluffle.broker.cluster.queue_sessions.replies import apply_frame
from fluffle.broker.cluster.queue_sessions.session_client import (
    FRAME_BYTES_MAX,
    FRAMES_UNREPORTED_MAX,
    UNREPORTED_BYTES_MAX,
)
from fluffle.broker.cluster.queue_sessions.session_server import (
    MESSAGE_SIZE,
    SESSIONS_MAX,
    SIZE_MAX,
    SentFrame,
    SessionSendQueue,
)
from fluffle.broker.queues.engine import BURST_BYTES
from fluffle.broker.queues.queue_api import DeliveryBatch, Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.facts import SessionId
from fluffle.broker.queues.quorum.holders import RemoteGetter
from tests.broker.cluster.queue_sessions.session_harness import GROUP, SessionHarness
from tests.broker.queues.quorum.sample_facts import ORIGIN

Reported = TypeVar("Reported", bound=m.FromLeader)


def sent(harness: SessionHarness, node: str, kind: type[Reported]) -> list[Reported]:
    """Messages under way to a client node."""
    links = harness.wire(node, to_leader=False).links
    frames = [decode(payload) for link in links for payload in link]
    found = [message for frame in frames for message in frame.messages]
    return [message for message in found if isinstance(message, kind)]


def from_edge(
    harness: SessionHarness,
    messages: list[m.FromClient],
    *,
    session: int = 1,
    opening: int | None = None,
) -> None:
    """A frame of an edge that says whatever it likes, and has received nothing."""
    edge, own = harness.clients["near"].session, harness.led.own
    frame = m.ClientFrame(
        GROUP,
        *own.leader_epoch,
        edge.boot,
        own.boot,
        session=session,
        opening=edge.opening if opening is None else opening,
        received=0,
        known=1,
        messages=messages,
    )
    harness.led.sessions.receive("near", frame)
    harness.pump()
    while harness.led.proposals:
        harness.commit()


def test_an_edge_that_receives_nothing_is_given_so_much_and_no_more() -> None:
    harness = SessionHarness(("near",))
    harness.attach("near", credit=1_000)
    harness.rest()
    harness.publish("near", 3 * SIZE_MAX // BURST_BYTES, BURST_BYTES)
    harness.arrive()
    while harness.led.proposals:
        harness.commit()
    given = sum(len(each.contents) for each in sent(harness, "near", m.Deliver))
    assert given <= SIZE_MAX // BURST_BYTES + 1
    harness.rest()
    assert len(harness.model.unacked) == 3 * SIZE_MAX // BURST_BYTES


def test_who_asks_and_never_receives_is_not_listened_to_until_it_does(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_server, "SIZE_MAX", 100 * MESSAGE_SIZE)
    harness = SessionHarness(("near",))
    harness.rest()
    times = 400
    asked: list[m.FromClient] = [m.Purge(number) for number in range(1, times + 2)]
    from_edge(harness, [m.Open(1)], opening=9)
    from_edge(harness, asked, opening=9)
    from_edge(harness, [m.Purge(times + 2)], opening=9)
    (session,) = harness.led.image.state.sessions.values()
    assert session.next == times + 2


def test_what_was_not_listened_to_is_asked_for_again() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    (key,) = harness.led.image.state.sessions
    origins, contents = [ORIGIN], [bytes(5 * SIZE_MAX)]
    delivery_batch = DeliveryBatch(
        RemoteGetter(harness.led.leadership.queue, no_ack=True),
        origins,
        contents,
        [1],
        redelivered=False,
    )
    answer = m.GetAnswer(99, 99, 0, [m.deliver_of(99, delivery_batch)])
    harness.led.sessions.release([m.Effect(key, answer)])
    harness.publish("near", 3)
    harness.arrive()
    assert not harness.led.proposals
    harness.rest()
    assert len(harness.model.confirmed) == 3


def test_an_edge_says_what_it_has_received_though_it_has_nothing_else_to_say() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    for _ in range(FRAMES_UNREPORTED_MAX):
        harness.led.sessions.release([m.Effect(1, m.RejectedReply(1, 1))])
        harness.pump()
    harness.rest()
    harness.led.sessions.release([m.Effect(1, m.RejectedReply(1, 1))])
    assert len(sent(harness, "near", m.RejectedReply)) == 0
    harness.link("near")
    assert len(sent(harness, "near", m.RejectedReply)) == 1


def test_a_leader_hears_with_a_settlement_that_what_is_settled_has_arrived() -> None:
    """A single frame carries both; for a consumer without acknowledgements there is one as well."""
    harness = SessionHarness(("near",))
    harness.attach("near")
    harness.attach("near", no_ack=True)
    harness.rest()
    for count in (2, 1):
        harness.publish("near", count)
        harness.rest()
    near = harness.clients["near"].session
    assert near.received - near.reported == 1
    harness.settle("near", harness.in_hands("near"))
    assert near.received > near.reported
    harness.hurry("near")
    assert near.received == near.reported


def test_a_leader_that_keeps_much_hears_at_once_that_it_has_arrived() -> None:
    harness = SessionHarness(("near",))
    harness.attach("near")
    harness.rest()
    harness.publish("near", 1, UNREPORTED_BYTES_MAX)
    harness.rest()
    near = harness.clients["near"].session
    assert (near.received, near.unreported_bytes) == (near.reported, 0)


def test_what_is_asked_goes_in_frames_that_a_link_takes() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    harness.cut("near")
    for _ in range(6):
        harness.publish("near", 1, FRAME_BYTES_MAX // 2)
    harness.link("near")
    (link,) = [link for link in harness.wire("near", to_leader=True).links if link]
    assert len(link) == 3
    assert max(map(len, link)) < FRAME_BYTES_MAX + 1_000
    harness.rest()
    assert len(harness.model.confirmed) == 6


def test_a_node_has_no_more_than_so_many_sessions() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    for counter in range(2, SESSIONS_MAX + 10):
        from_edge(harness, [m.Open(1)], session=counter, opening=counter + 10)
    counters = [each.id.counter for each in harness.led.image.state.sessions.values()]
    assert len(counters) <= SESSIONS_MAX + 1
    assert max(counters) == SESSIONS_MAX + 9


def test_an_opening_is_of_one_session() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    for counter in range(2, 9):
        from_edge(harness, [m.Open(1), m.Purge(1)], session=counter)
    (session,) = harness.led.image.state.sessions.values()
    assert session.id == SessionId("near", *harness.boots["near"], 1)


def test_who_forgets_what_it_is_asking_in_is_heard_all_the_same() -> None:
    harness = SessionHarness(("near",))
    harness.rest()
    from_edge(harness, [m.Forget(99), m.Purge(1)])
    (session,) = harness.led.image.state.sessions.values()
    assert session.next == 2


def test_a_turn_costs_nothing_for_those_who_have_nothing_to_say(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    harness = SessionHarness(tuple(f"node {number}" for number in range(20)))
    harness.rest()
    asked: set[int] = set()
    take = SessionSendQueue.take

    def watched(waiting: SessionSendQueue) -> Iterable[SentFrame]:
        asked.add(id(waiting))
        return take(waiting)

    monkeypatch.setattr(SessionSendQueue, "take", watched)
    harness.publish("node 7")
    harness.rest()
    assert len(asked) == 1


EVERYTHING = range(1, RUN_MAX)


def holding() -> SessionHarness:
    harness = SessionHarness(("near",))
    harness.attach("near")
    harness.publish("near", 3, 1_000)
    harness.rest()
    return harness


def test_a_settlement_costs_no_more_than_what_there_is_of_it() -> None:
    harness = holding()
    (token, *_others) = harness.in_hands("near")
    number = harness.clients["near"].session.pending.next
    everything = [m.Token(token.holder, 0, EVERYTHING)] * 100
    from_edge(harness, [m.Settle(number, Outcome.ACKED, everything)])
    assert harness.led.image.state.live_count == 0


def test_a_record_costs_no_more_than_what_is_in_hands() -> None:
    harness = holding()
    edge, own = harness.clients["near"].session, harness.led.own
    (token, *_others) = harness.in_hands("near")
    record = m.SessionRecord(
        edge.pending.next, [token.holder], [], [m.Token(token.holder, 0, EVERYTHING)]
    )
    frame = m.LeaderFrame(
        GROUP, *own.leader_epoch, own.boot, edge.boot, 1, edge.opening, edge.received + 1, [record]
    )
    assert apply_frame(edge, frame) == []
    assert edge.answer == m.NeverArrived([m.Token(token.holder, 0, EVERYTHING[3:])])


def test_what_never_arrived_is_delivered_again_though_others_have_ended_since() -> None:
    harness = holding()
    (token, *_others) = harness.in_hands("near")
    number = harness.clients["near"].session.pending.next
    harness.change_leader()
    asked: list[m.FromClient] = [
        m.Open(number),
        m.Settle(number, Outcome.ACKED, [m.Token(token.holder, 0, range(1, 2))]),
        m.NeverArrived([m.Token(token.holder, 0, range(1, 4))]),
    ]
    from_edge(harness, asked)
    again = [message for each in sent(harness, "near", m.Deliver) for message in each.runs]
    assert [sequence for run in again for sequence in run] == [2, 3]


def test_what_never_arrived_is_delivered_again_once() -> None:
    """However often it is said in one frame."""
    harness = holding()
    (token, *_others) = harness.in_hands("near")
    harness.change_leader()
    opening = harness.clients["near"].session.opening
    missing = m.Token(token.holder, 0, range(1, 4))
    from_edge(harness, [m.Open(1), m.NeverArrived([missing] * 1_000)], opening=opening)
    given = [content for each in sent(harness, "near", m.Deliver) for content in each.contents]
    assert len(given) == 3


# What is another's


def two_hold() -> tuple[SessionHarness, m.Token]:
    """And what of it is in hands at the other edge."""
    harness = SessionHarness(("near", "left"))
    for node in ("near", "left"):
        harness.attach(node, credit=2)
    harness.publish("near", 4)
    harness.rest()
    (token, *_rest) = harness.in_hands("left")
    return harness, token


def held_by(harness: SessionHarness, node: str) -> list[m.Token]:
    """Tokens of a session that the leader has on record."""
    stream = harness.led.sessions._nodes[node].opened
    assert stream is not None
    return [m.Token(*held) for held in harness.led.leadership.on_record.holds(stream.key)]


@pytest.mark.parametrize("outcome", [Outcome.ACKED, Outcome.REJECTED])
def test_nobody_settles_what_is_in_the_hands_of_another_node(outcome: Outcome) -> None:
    harness, token = two_hold()
    number = harness.clients["near"].session.pending.next
    from_edge(harness, [m.Settle(number, outcome, [token])])
    harness.commit()
    assert sent(harness, "near", m.RejectedReply) == [m.RejectedReply(number, 1)]
    assert token in held_by(harness, "left")


def test_nobody_gives_back_what_is_in_the_hands_of_another_node() -> None:
    harness, token = two_hold()
    number = harness.clients["near"].session.pending.next
    from_edge(harness, [m.Settle(number, Outcome.NACK_REQUEUED, [token])])
    harness.commit()
    assert sent(harness, "near", m.DoneReply) == [m.DoneReply(number, 1)]
    assert token in held_by(harness, "left")


def test_nobody_detaches_or_credits_the_consumer_of_another_node() -> None:
    harness, token = two_hold()
    stream = harness.led.sessions._nodes["left"].opened
    assert stream is not None
    limits = dict(stream.limits)
    number = harness.clients["near"].session.pending.next
    from_edge(harness, [m.Credit(token.holder, 99), m.Detach(number, token.holder, Outcome.LOST)])
    assert stream.limits == limits
    assert token in held_by(harness, "left")
    assert harness.led.leadership.queue.consumer_count == 2
    near = harness.led.sessions._nodes["near"].opened
    assert near is not None
    assert token.holder not in near.limits


# What is left at a leader


def test_answers_that_an_edge_does_not_care_for_are_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_server, "ANSWERS_MAX", 10)
    harness = SessionHarness(("near",))
    harness.rest()
    from_edge(harness, [m.Open(1)], opening=9)
    for first in range(1, 100, 5):
        from_edge(harness, [m.Purge(first + at) for at in range(5)], opening=9)
    (session,) = harness.led.image.state.sessions.values()
    assert len(session.answers) == 10
    assert harness.led.sessions.excesses == ["near"]


def test_an_edge_that_hears_its_answers_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_server, "ANSWERS_MAX", 3)
    harness = SessionHarness(("near",))
    harness.rest()
    for _ in range(10):
        harness.clients["near"].purge()
    harness.rest()
    assert len(harness.clients["near"].session.pending) == 0
    harness.clients["near"].purge()
    harness.rest()
    assert len(harness.clients["near"].session.pending) == 0


def test_consumers_of_an_edge_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_server, "HOLDERS_MAX", 5)
    harness = SessionHarness(("near",))
    harness.rest()
    attaches: list[m.FromClient] = [
        m.Attach(number, 0, "t", 0, m.Signed(0), False, False, b"") for number in range(1, 50)
    ]
    from_edge(harness, [m.Open(1), *attaches], opening=9)
    assert harness.led.leadership.queue.consumer_count == 5
    assert harness.led.sessions.excesses == ["near"]
