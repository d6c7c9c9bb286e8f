"""Closing of silent clients."""

from __future__ import annotations

import pytest

from fluffle.broker.core.connections import KEEP_ALIVE_SLOT_S, KeepAlives
from tests.support.fakes import Scheduler


class Client:
    """A `WatchedClient` that notes when it was given up."""

    def __init__(self, scheduler: Scheduler, *, fails: bool = False) -> None:
        self._scheduler = scheduler
        self._fails = fails
        self.reads = 0
        self.is_read = True
        self.silent_at_s: list[float] = []

    def on_silence(self) -> None:
        self.silent_at_s.append(self._scheduler.now_s)
        if self._fails:
            raise RuntimeError("a bug")


@pytest.fixture
def scheduler() -> Scheduler:
    return Scheduler()


@pytest.fixture
def keep_alives(scheduler: Scheduler) -> KeepAlives:
    return KeepAlives(scheduler.call_later)


@pytest.mark.parametrize("keep_alive_s", [1, 2, 7, 60, 601])
@pytest.mark.parametrize("heard_after_s", [0.0, 0.2, 0.4, 3.3])
def test_silence_is_too_long_between_one_and_a_half_intervals_and_two(
    scheduler: Scheduler, keep_alives: KeepAlives, keep_alive_s: int, heard_after_s: float
) -> None:
    early = Client(scheduler)
    keep_alives.add(early, 65_535)  # the timer does not begin with the client
    scheduler.advance(0.3)
    client = Client(scheduler)
    keep_alives.add(client, keep_alive_s)
    heard_at_s = scheduler.now_s
    if heard_after_s < keep_alive_s:
        scheduler.advance(heard_after_s)
        client.reads += 1
        heard_at_s = scheduler.now_s
    scheduler.advance(1.5 * keep_alive_s - 0.001)
    assert client.silent_at_s == []
    scheduler.advance(0.5 * keep_alive_s + KEEP_ALIVE_SLOT_S)
    (silent_at_s,) = client.silent_at_s
    assert silent_at_s - heard_at_s >= 1.5 * keep_alive_s - 1e-6


def test_who_says_something_in_each_interval_stays(
    scheduler: Scheduler, keep_alives: KeepAlives
) -> None:
    client = Client(scheduler)
    keep_alives.add(client, 10)
    for _ in range(100):
        scheduler.advance(10)
        client.reads += 1
    assert client.silent_at_s == []


def test_who_is_not_read_is_not_silent(scheduler: Scheduler, keep_alives: KeepAlives) -> None:
    client = Client(scheduler)
    keep_alives.add(client, 4)
    client.is_read = False
    scheduler.advance(1_000)
    client.is_read = True
    scheduler.advance(5.9)
    assert client.silent_at_s == []
    scheduler.advance(3)
    assert len(client.silent_at_s) == 1


def test_a_client_is_given_up_once_and_watched_no_more(
    scheduler: Scheduler, keep_alives: KeepAlives
) -> None:
    client = Client(scheduler)
    keep_alives.add(client, 1)
    scheduler.advance(100)
    assert len(client.silent_at_s) == 1
    assert (len(keep_alives), scheduler.timer_count) == (0, 0)


def test_nothing_is_kept_of_who_has_gone(scheduler: Scheduler, keep_alives: KeepAlives) -> None:
    clients = [Client(scheduler) for _ in range(3)]
    for client in clients:
        keep_alives.add(client, 60)
    scheduler.advance(33)
    for client in (*clients, clients[0]):
        keep_alives.discard(client)
    assert (len(keep_alives), scheduler.timer_count) == (0, 0)
    assert keep_alives._slots == {}
    scheduler.advance(300)
    assert all(client.silent_at_s == [] for client in clients)


def test_an_interval_of_none_is_not_watched(scheduler: Scheduler, keep_alives: KeepAlives) -> None:
    keep_alives.add(Client(scheduler), 0)
    assert (len(keep_alives), scheduler.timer_count) == (0, 0)


def test_a_bug_in_one_concerns_no_other(
    scheduler: Scheduler, keep_alives: KeepAlives, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = Client(scheduler, fails=True), Client(scheduler)
    keep_alives.add(first, 3)
    keep_alives.add(second, 3)
    scheduler.advance(6.5)
    assert (len(first.silent_at_s), len(second.silent_at_s)) == (1, 1)
    assert caplog.messages == ["a listener failed"]


def test_one_that_is_added_while_others_are_given_up_is_watched(
    scheduler: Scheduler, keep_alives: KeepAlives
) -> None:
    first, second = Client(scheduler), Client(scheduler)
    first.on_silence = lambda: keep_alives.add(second, 2)  # type: ignore[method-assign]
    keep_alives.add(first, 2)
    scheduler.advance(4.5)
    assert len(keep_alives) == 1
    scheduler.advance(4.5)
    assert len(second.silent_at_s) == 1
