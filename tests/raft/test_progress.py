"""Progress of a follower, as its leader knows it."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.raft.config import Member
from fluffle.raft.state import Progress, ProgressState


def follower(next_index: int = 1) -> Progress:
    return Progress(Member("b", 1), next_index, is_alive=True, retry_ms=200)


def test_a_follower_is_probed_first() -> None:
    assert follower().flow is ProgressState.PROBE


def test_what_arrives_makes_room() -> None:
    peer = follower()
    peer.replicate(1)
    peer.sent(3, 100)
    peer.sent(5, 50)
    assert (peer.next, peer.in_flight_messages, peer.in_flight_bytes) == (6, 2, 150)
    peer.advance(4)
    assert (peer.match, peer.in_flight_messages, peer.in_flight_bytes) == (4, 1, 50)
    peer.advance(5)
    assert (peer.in_flight_messages, peer.in_flight_bytes) == (0, 0)


def test_probing_anew_forgets_what_is_in_flight() -> None:
    """A quota that leaks would stop the follower for ever."""
    peer = follower()
    peer.replicate(1)
    peer.sent(3, 100)
    peer.probe(1)
    assert (peer.flow, peer.next) == (ProgressState.PROBE, 1)
    assert (peer.in_flight_messages, peer.in_flight_bytes) == (0, 0)
    peer.sent(3, 100)
    peer.need_snapshot()
    assert (peer.in_flight_messages, peer.in_flight_bytes) == (0, 0)


def test_what_is_on_its_disk_is_never_sent_again() -> None:
    peer = follower()
    peer.advance(7)
    peer.probe(3)
    assert peer.next == 8
    peer.replicate(2)
    assert peer.next == 8


def test_only_the_follower_itself_can_take_back_what_it_has() -> None:
    peer = follower()
    peer.advance(7)
    peer.retract(5)
    peer.probe(5)
    assert (peer.match, peer.next) == (4, 5)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 100)), max_size=10), st.data())
def test_nothing_is_in_flight_once_all_has_arrived(
    sends: list[tuple[int, int]], data: st.DataObject
) -> None:
    peer = follower()
    peer.replicate(1)
    last = 0
    for count, size in sends:
        last += count
        peer.sent(last, size)
        arrived = data.draw(st.integers(peer.match, last))
        peer.advance(arrived)
        assert peer.match < peer.next
        assert (peer.in_flight_messages == 0) == (peer.in_flight_bytes == 0)
    peer.advance(last)
    assert peer.in_flight_bytes == 0


def test_what_a_probe_carried_in_vain_does_not_fill_the_window() -> None:
    """An answer to an earlier request can end the probe, and what the probe carried be lost."""
    progress = Progress(Member("b", 1), 5, is_alive=True, retry_ms=200)
    progress.sent(6, 100)
    progress.replicate(5)
    assert (progress.next, progress.in_flight_messages, progress.in_flight_bytes) == (5, 0, 0)
