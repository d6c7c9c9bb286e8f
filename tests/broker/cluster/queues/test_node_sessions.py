"""Queues on three nodes and clients at each of them, by hand: who talks to whom, and what of it."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queue_sessions.codec import encode
from fluffle.broker.cluster.queues.leader_routes import REPORT_S
from fluffle.broker.cluster.queues.session_transport import WAITING_BYTES_MAX
from fluffle.broker.queues.queue_api import Outcome
from fluffle.broker.queues.quorum import messages as m
from fluffle.broker.queues.quorum.leadership import Leadership
from fluffle.broker.queues.quorum.messages import SessionBoot
from fluffle.protocol.headers import DeathReason
from tests.support.payloads import joined
from tests.support.queue_nodes import NONCE, QueueCluster


@pytest.fixture
def cluster() -> QueueCluster:
    """A queue that a leads."""
    cluster = QueueCluster()
    cluster.declare()
    cluster.hosts.settle()
    return cluster


def contents(cluster: QueueCluster, name: str) -> int:
    """How many messages the clients of a node have in hands."""
    return sum(len(token.run) for token in cluster.clients[name].in_hands())


def consuming_at(cluster: QueueCluster, name: str) -> None:
    """A consumer there holds nothing, and waits for what comes."""
    cluster.ask(name).attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.advance(100)
    assert cluster.clients[name].consumers


def test_a_new_queue_is_led_at_once_by_whom_its_definition_names() -> None:
    for leader in "abc":
        cluster = QueueCluster()
        cluster.declare(leader=leader)
        cluster.hosts.settle()
        assert cluster.leader() == leader
        assert cluster.hosts.now_ms == 1_000, "no time has passed"


def test_who_is_to_lead_may_be_the_first_to_hear_of_the_queue() -> None:
    cluster = QueueCluster()
    cluster.nodes["b"].is_running = cluster.nodes["c"].is_running = False
    cluster.declare()
    cluster.nodes["b"].is_running = cluster.nodes["c"].is_running = True
    cluster.hosts.settle()
    before = len(cluster.hosts.network.sent)
    cluster.hosts.advance(10, step_ms=2)
    frames = len(cluster.hosts.network.sent) - before
    assert frames <= 5 * 4, "two questions and two answers each time, not more from time to time"
    for name in "bc":
        cluster.hear_of_it(name)
    cluster.hosts.advance(10, step_ms=2)
    assert cluster.leader() == "a"


@pytest.mark.parametrize("name", "abc")
def test_a_publish_is_confirmed_wherever_the_client_is(cluster: QueueCluster, name: str) -> None:
    cluster.ask(name).publish(3)
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 3


def test_what_comes_in_at_one_node_goes_out_at_another(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(5)
    cluster.ask("c").attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.settle()
    assert contents(cluster, "c") == 5
    client = cluster.ask("c")
    client.settle(client.in_hands(), Outcome.ACKED)
    cluster.hosts.advance(round(REPORT_S * 1_000))
    assert len(cluster.model.gone) == 5


def test_a_leader_soon_keeps_nothing_that_has_arrived(cluster: QueueCluster) -> None:
    """Though nobody settles it."""
    cluster.ask("b").publish(5, 1_000)
    cluster.ask("c").attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.settle()
    sessions = cluster.nodes["a"].node_sessions.leaders.queues[cluster.queue].sessions
    assert sessions is not None
    outboxes = [stream.send_queue for stream in sessions._opened_sessions.values()]
    assert sum(outbox.size for outbox in outboxes) > 5 * 1_000
    cluster.hosts.advance(round(REPORT_S * 1_000))
    assert sum(outbox.size for outbox in outboxes) < 1_000


def test_a_message_takes_a_turn_of_its_leader_for_whatever_comes_in(
    cluster: QueueCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The turns: it is requested, it is on the disk, and on those of two others."""
    turns = []
    sessions = cluster.nodes["a"].node_sessions
    before_consensus = sessions.before_consensus

    def counted() -> None:
        turns.append(sessions)
        before_consensus()

    monkeypatch.setattr(sessions, "before_consensus", counted)
    cluster.ask("b").attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.settle()
    turns.clear()
    cluster.ask("a").publish(1)
    cluster.hosts.settle()
    assert contents(cluster, "b") == 1
    assert 0 < len(turns) <= 4


def test_acknowledgements_go_with_the_next_message_or_soon(cluster: QueueCluster) -> None:
    cluster.ask("c").attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.settle()
    before = cluster.nodes["a"].host.group(cluster.queue).applied
    for _ in range(4):
        cluster.ask("a").publish(1)
        cluster.hosts.settle()
        client = cluster.ask("c")
        client.settle(client.in_hands(), Outcome.ACKED)
        cluster.hosts.settle()
    assert cluster.nodes["a"].host.group(cluster.queue).applied == before + 4
    assert len(cluster.model.gone) == 0
    cluster.hosts.advance(round(REPORT_S * 1_000))
    assert cluster.nodes["a"].host.group(cluster.queue).applied == before + 5
    assert len(cluster.model.gone) == 4


def test_a_member_that_leads_dies_and_its_edges_go_on_with_the_next(cluster: QueueCluster) -> None:
    """Consumers keep what they hold; pending operations get an outcome."""
    cluster.ask("b").publish(4)
    cluster.ask("c").attach(credit=2, no_ack=False, prefetch=2)
    cluster.hosts.settle()
    held = cluster.clients["c"].in_hands()
    cluster.ask("b").publish(2)
    cluster.hosts.step()
    cluster.nodes["a"].kill()
    cluster.hosts.advance(3_000)
    assert cluster.leader() in "bc"
    assert cluster.clients["c"].in_hands() == held
    assert len(cluster.model.confirmed) == 6
    client = cluster.ask("c")
    client.settle(held, Outcome.ACKED)
    cluster.hosts.settle()
    assert len(cluster.model.gone) == 2
    assert contents(cluster, "c") == 2


def test_a_new_leader_takes_back_what_an_ended_life_held(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.ask("c").attach(credit=2, no_ack=False, prefetch=2)
    cluster.hosts.settle()
    for name in "ac":
        cluster.nodes[name].kill()
    cluster.nodes["c"].start()
    cluster.model.died("c")
    cluster.hear_of_it("c")
    cluster.hosts.advance(3_000)
    assert cluster.leader() in "bc"
    cluster.ask("b").attach(credit=9, no_ack=False, prefetch=9)
    cluster.hosts.settle()
    assert contents(cluster, "b") == 3


def test_in_a_minority_nothing_is_confirmed_until_it_heals(cluster: QueueCluster) -> None:
    for name in "bc":
        cluster.hosts.network.cut("a", name)
    cluster.ask("a").publish(2)
    cluster.hosts.advance(5_000, step_ms=50)
    assert not cluster.model.confirmed
    for name in "bc":
        cluster.hosts.network.connect("a", name)
    cluster.hosts.advance(5_000, step_ms=50)
    assert len(cluster.model.confirmed) == 2


def test_a_leader_goes_on_once_there_is_room_on_its_disk_again(cluster: QueueCluster) -> None:
    """Nothing is applied meanwhile, nor tells anybody that there is."""
    cluster.hosts.settle()
    store = cluster.nodes["a"].store
    store.has_room = store.takes_entries = False
    cluster.hosts.advance(1_000)
    cluster.ask("b").publish(2)
    cluster.hosts.advance(3_000)
    assert not cluster.model.confirmed
    store.has_room = store.takes_entries = True
    cluster.hosts.advance(3_000)
    assert len(cluster.model.confirmed) == 2


def test_consumers_make_room_where_no_disk_has_any(cluster: QueueCluster) -> None:
    """Publishes under way are refused then: what frees room would wait behind them."""
    cluster.ask("b").publish(4)
    cluster.ask("b").attach(credit=2, no_ack=False, prefetch=2)
    cluster.hosts.settle()
    for node in cluster.nodes.values():
        node.store.has_room = False
    cluster.hosts.advance(1_000)
    cluster.ask("b").publish(1)
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 5, "it was let in before publishers were answered"
    for node in cluster.nodes.values():
        node.store.may_grow = False
    cluster.hosts.advance(1_000)
    client = cluster.ask("b")
    client.publish(1)
    client.settle(client.in_hands(), Outcome.ACKED)
    client.purge()
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 5
    assert len(cluster.model.refused) == 1
    assert cluster.nodes["a"].node_sessions.counts_here(cluster.queue) == (0, 0, 1, 0)
    for node in cluster.nodes.values():
        node.store.has_room = node.store.may_grow = True
    cluster.hosts.advance(1_000)
    cluster.ask("b").publish(1)
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 6


def test_what_is_asked_while_a_commit_runs_becomes_one_entry(cluster: QueueCluster) -> None:
    """And the first of it waits for nothing."""
    node = cluster.nodes["a"]
    cluster.ask("a").publish(1)
    cluster.hosts.settle()
    raft = node.host.group(cluster.queue).raft
    before = raft.status.last
    for _ in range(4):
        cluster.ask("a").publish(1)
        while node.step():
            pass
    assert raft.status.last == before + 1
    node.store.sync()
    while node.step():
        pass
    assert raft.status.last == before + 2
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 5


def test_a_queue_waits_for_one_commit_and_not_until_the_disk_is_idle(cluster: QueueCluster) -> None:
    node = cluster.nodes["a"]
    cluster.ask("a").publish(1)
    while node.step():
        pass
    node.host.submitted += 1  # so much is written by others that a commit always runs
    cluster.ask("a").publish(1)
    while node.step():
        pass
    raft = node.host.group(cluster.queue).raft
    before = raft.status.last
    node.host.submitted += 1
    node.store.sync()
    while node.step():
        pass
    assert raft.status.last == before + 1


def test_edges_that_want_nothing_talk_to_nobody(cluster: QueueCluster) -> None:
    cluster.nodes["a"].kill()
    cluster.hosts.advance(3_000)
    cluster.nodes["a"].start()
    cluster.hosts.advance(3_000)
    assert [route.session.opening for route in cluster.routes.values()] == [0, 0, 0]


def test_counts_are_those_of_the_leader(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.ask("b").attach(credit=1, no_ack=False, prefetch=1)
    cluster.hosts.settle()
    answers: list[object] = []
    for node in cluster.nodes.values():
        node.node_sessions.ask_counts(cluster.queue, answers.append)
    assert answers == [], "who leads is no quicker: whoever asks is not ready for an answer yet"
    cluster.hosts.settle()
    assert answers == [(2, 1, 1, 0)] * 3


def test_a_leader_that_others_may_have_replaced_counts_nothing(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.hosts.settle()
    for name in "bc":
        cluster.hosts.network.cut("a", name)
    answers: list[object] = []
    cluster.nodes["a"].node_sessions.ask_counts(cluster.queue, answers.append)
    cluster.hosts.settle()
    assert answers == [], "it leads, as far as it knows"
    cluster.hosts.advance(6_000, step_ms=50)
    assert answers == [None]


def test_a_leader_with_a_majority_counts(cluster: QueueCluster) -> None:
    cluster.ask("b").publish(3)
    cluster.hosts.settle()
    cluster.hosts.network.cut("a", "b")
    answers: list[object] = []
    cluster.nodes["a"].node_sessions.ask_counts(cluster.queue, answers.append)
    cluster.hosts.settle()
    assert answers == [(3, 0, 0, 0)]


def test_nobody_can_be_asked_for_counts_in_a_minority(cluster: QueueCluster) -> None:
    for name in "ab":
        cluster.nodes[name].kill()
    answers: list[object] = []
    cluster.nodes["c"].node_sessions.ask_counts(cluster.queue, answers.append)
    cluster.hosts.advance(450, step_ms=50)
    assert answers == [], "they may only be out of reach for a moment"
    cluster.hosts.advance(100, step_ms=50)
    assert answers == [None]


def test_a_majority_that_can_be_reached_has_time_to_agree_on_a_leader(
    cluster: QueueCluster,
) -> None:
    cluster.nodes["a"].kill()
    cluster.nodes["b"].is_running = False  # it says nothing, and its link is there
    answers: list[object] = []
    cluster.nodes["c"].node_sessions.ask_counts(cluster.queue, answers.append)
    cluster.hosts.advance(4_900, step_ms=50)
    assert answers == []
    cluster.hosts.advance(300, step_ms=50)
    assert answers == [None]


def test_a_queue_that_is_gone_leaves_nothing(cluster: QueueCluster) -> None:
    cluster.ask("c").attach(credit=1, no_ack=False, prefetch=1)
    cluster.hosts.settle()
    for node in cluster.nodes.values():
        node.hosting.forget(cluster.queue)
        node.node_sessions.close(cluster.queue)
    cluster.hosts.settle()
    assert all(cluster.queue not in node.host for node in cluster.nodes.values())
    assert not any(node.image.groups for node in cluster.nodes.values())


def test_a_start_makes_nothing_of_a_queue_that_its_log_ends_later(cluster: QueueCluster) -> None:
    node = cluster.nodes["c"]
    node.hosting.forget(cluster.queue)
    cluster.hosts.settle()
    node.kill()
    node.start()
    node.hosting.define(cluster.definition, "/")
    cluster.hosts.settle()
    assert cluster.queue not in node.host
    node.hosting.forget(cluster.queue)
    for _ in node.hosting.sweep():
        pass
    cluster.hosts.settle()
    assert cluster.queue not in node.host
    assert not node.image.groups


def test_what_ends_in_the_turn_in_which_it_began_is_not_there() -> None:
    cluster = QueueCluster()
    cluster.declare()
    for node in cluster.nodes.values():
        node.hosting.define(cluster.definition, "/")
        node.hosting.forget(cluster.queue)
    cluster.hosts.settle()
    assert all(cluster.queue not in node.host for node in cluster.nodes.values())
    assert not any(node.image.groups for node in cluster.nodes.values())
    assert not any(node.node_sessions.leaders.queues for node in cluster.nodes.values())


def test_what_came_before_a_link_back_is_taken_when_there_is_one(cluster: QueueCluster) -> None:
    leader, edge = (
        cluster.nodes["a"].node_sessions.transport,
        cluster.nodes["c"].node_sessions.transport,
    )
    cluster.ask("c").publish(1)
    cluster.hosts.settle()
    leader.link_changed("c", is_up=False)
    edge.link_changed("a", is_up=True)
    cluster.ask("c").publish(1)
    cluster.hosts.settle()
    leader.link_changed("c", is_up=False)
    leader.link_changed("c", is_up=True)
    cluster.hosts.settle()
    assert len(cluster.model.confirmed) == 2


def test_an_edge_that_hears_old_news_only_begins_to_talk_anew(cluster: QueueCluster) -> None:
    cluster.ask("c").publish(1)
    cluster.hosts.settle()
    route = cluster.routes["c"]
    cluster.ask("c").publish(1)
    cluster.nodes["c"].step()
    cluster.hosts.network.frames.clear()
    old = m.LeaderFrame(
        cluster.queue,
        *route.session.leader_epoch,
        SessionBoot(1, NONCE),
        SessionBoot(1, NONCE),
        1,
        1,
        1,
        [],
    )
    cluster.nodes["c"].node_sessions.transport.receive("a", joined(encode(old)))
    cluster.hosts.advance(10_000, step_ms=100)
    assert len(cluster.model.confirmed) == 2


def test_what_cannot_be_read_goes_with_its_queue_and_is_not_begun_anew(
    cluster: QueueCluster,
) -> None:
    node = cluster.nodes["c"]
    node.kill()
    node.image.groups[cluster.queue].is_head_damaged = True
    lost = node.start()
    node.hosting.lose(lost)
    node.hosting.define(cluster.definition, "/")
    for _ in node.hosting.sweep():
        pass
    cluster.hosts.settle()
    assert cluster.queue not in node.host
    node.hosting.forget(cluster.queue)
    cluster.hosts.settle()
    assert not node.image.groups


def test_what_dies_is_handed_on_where_the_queue_is_led() -> None:
    cluster = QueueCluster()
    cluster.declare(dead_letter_exchange="dlx", delivery_limit=0)
    cluster.hosts.settle()
    cluster.ask("b").publish(3)
    cluster.ask("c").attach(credit=3, no_ack=False, prefetch=3)
    cluster.hosts.settle()
    client = cluster.ask("c")
    [token] = client.in_hands()
    client.settle([token._replace(run=token.run[:2])], Outcome.REJECTED)
    client.settle([token._replace(run=token.run[2:])], Outcome.LOST)
    cluster.hosts.settle()
    assert [dead[:3] for dead in cluster.nodes["a"].dead] == [
        ("/", "q", DeathReason.REJECTED),
        ("/", "q", DeathReason.REJECTED),
        ("/", "q", DeathReason.DELIVERY_LIMIT),
    ]
    assert not cluster.nodes["b"].dead + cluster.nodes["c"].dead
    served = cluster.nodes["a"].node_sessions.leaders.queues[cluster.queue]
    assert served.counts == (0, 0, 1, 0)


def test_what_a_link_had_no_room_for_is_said_when_it_has(cluster: QueueCluster) -> None:
    """Whichever way: what a leader delivers, and what is asked of it."""
    consuming_at(cluster, "c")
    for one, other in ("ac", "ca"):
        links = cluster.nodes[one].links
        links.normal_waiting[other] = 2 * WAITING_BYTES_MAX
        asked = cluster.ask(other if one == "a" else one)
        before = len(cluster.model.confirmed), contents(cluster, "c")
        asked.publish(2)
        cluster.hosts.advance(1_000)
        assert (len(cluster.model.confirmed), contents(cluster, "c")) == before
        links.normal_waiting.clear()
        cluster.hosts.advance(500)
        now = len(cluster.model.confirmed), contents(cluster, "c")
        assert now == (before[0] + 2, before[1] + 2)


def test_what_clients_of_a_dead_node_held_comes_back_at_once(cluster: QueueCluster) -> None:
    """Rule 13: suspected is not gone, but a host that refuses a connection knows."""
    consuming_at(cluster, "c")
    cluster.ask("a").publish(2)
    cluster.hosts.advance(100)
    assert contents(cluster, "c") == 2
    consuming_at(cluster, "b")
    cluster.nodes["c"].kill()
    cluster.model.died("c")
    cluster.hosts.advance(3_000)
    assert contents(cluster, "b") == 0
    cluster.nodes["a"].refusing.add("c")
    cluster.hosts.advance(2_000)
    assert contents(cluster, "b") == 2


@pytest.mark.parametrize("where", ["pump", "publish", "_on_outcome", "__init__"])
def test_a_mistake_in_one_queue_ends_its_leadership_and_nothing_else(
    cluster: QueueCluster, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The leader tries again after a while, from what is on record."""
    cluster.hosts.is_fatal_expected = True
    cluster.ask("b").publish(2)
    cluster.hosts.settle()

    def wrong(*_arguments: object, **_named: object) -> None:
        raise IndexError("a bug that this state meets")

    with monkeypatch.context() as mistaken:
        mistaken.setattr(Leadership, where, wrong)
        if where == "__init__":
            cluster.nodes["a"].kill()
        cluster.ask("b").publish(1)
        cluster.hosts.advance(1_000, step_ms=50)
    assert all(node.fatal == [] for node in cluster.nodes.values())
    cluster.hosts.advance(12_000, step_ms=50)
    assert len(cluster.model.confirmed) == 3
