"""Sessions of clients that outlive their connections, as changes of definitions."""

from fluffle.broker.base.client_session import INCOMING, OUTGOING, SENT, ClientSession
from fluffle.broker.metadata.change import NOTHING
from fluffle.broker.vhosts.client_sessions import (
    ClientSessions,
    end_session,
    forget_packets,
    keep_packets,
    keep_sent,
    keep_session,
)
from tests.support.edge import Edge

SESSION = ClientSession("guest", 60, 0, "a", b"record")


def test_a_session_is_kept_with_its_packets_and_ends_with_them() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", INCOMING, (3, 1)))
    apply(keep_packets(vhost, "c", OUTGOING, (3,)))
    sessions = vhost.client_sessions
    assert sessions.by_client == {"c": SESSION}
    assert sessions.numbers("c", INCOMING) == [3, 1]
    assert sessions.numbers("c", OUTGOING) == [3]
    apply(forget_packets(vhost, "c", INCOMING, (3, 9)))
    assert sessions.numbers("c", INCOMING) == [1]
    apply(end_session(vhost, "c"))
    assert (sessions.by_client, sessions.packets) == ({}, {})


def test_what_is_so_already_needs_no_change() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", INCOMING, (1,)))
    assert not keep_session(vhost, "c", SESSION).changes_nothing  # it may be under way to change
    assert keep_packets(vhost, "c", INCOMING, (1,)).changes_nothing
    assert forget_packets(vhost, "c", OUTGOING, (1,)).changes_nothing
    assert end_session(vhost, "d") == NOTHING


def test_packets_of_no_session_are_not_kept() -> None:
    assert keep_packets(Edge().vhost, "c", INCOMING, (1,)) == NOTHING


def test_what_a_client_has_taken_is_not_what_it_was_sent_any_more() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    sessions = vhost.client_sessions
    assert keep_sent(vhost, "c", {1: 70}) == NOTHING
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_sent(vhost, "c", {1: 70, 2: 71, 3: 0}))
    assert sessions.sent("c") == {1: 70, 2: 71, 3: 0}
    assert keep_sent(vhost, "c", {1: 70}).changes_nothing
    apply(keep_sent(vhost, "c", {1: 72}))
    apply(keep_packets(vhost, "c", OUTGOING, (1,)))
    assert (sessions.sent("c"), sessions.numbers("c", OUTGOING)) == ({2: 71, 3: 0}, [1])
    apply(forget_packets(vhost, "c", OUTGOING, (1, 2)))
    assert sessions.packets == {"c": {(SENT, 3): 0}}


def test_receipts_are_in_their_order_wherever_they_are_read_from() -> None:
    edge = Edge()
    vhost, apply = edge.vhost, edge.catalogue.apply
    apply(keep_session(vhost, "c", SESSION))
    apply(keep_packets(vhost, "c", OUTGOING, (10, 2)))
    apply(keep_packets(vhost, "c", OUTGOING, (2, 9, 1)))
    sessions = vhost.client_sessions
    assert sessions.numbers("c", OUTGOING) == [10, 2, 9, 1]
    stored = {"c": dict(sorted(sessions.packets["c"].items()))}
    again = ClientSessions(dict(sessions.by_client), stored)
    assert again.numbers("c", OUTGOING) == [10, 2, 9, 1]
    assert again.last_receipt == sessions.last_receipt == 4
