"""Lists that another node tells: page by page, and whatever happens, never a hang."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import msgpack
import pytest

from fluffle.broker.cluster.codec import BadFrame
from fluffle.broker.cluster.rpc import (
    OPEN_MAX,
    UNREAD_S_MAX,
    NoReply,
    Page,
    PagedListing,
    Reply,
    RpcClient,
    RpcRefused,
    RpcReply,
    RpcRequest,
    RpcServer,
)
from tests.suite.seeds import seeds
from tests.support.frames import FakeSender

PATIENCE_S = 3.0
SILENT = NoReply("it has said nothing for 3 s")


class Timer:
    def __init__(self, at_s: float, call: Callable[[], None]) -> None:
        self.at_s, self.call = at_s, call
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


class Count:
    """A list of as many pages as the request says; a request that is no number is refused."""

    def __init__(self, harness: Harness, body: bytes, tell: Reply) -> None:
        self.harness, self.body, self.tell = harness, body, tell
        self.page = 0
        self.is_closed = False
        harness.listings.append(self)

    def go_on(self) -> None:
        self.harness.work.append(self._tell)

    def _tell(self) -> None:
        if self.is_closed:
            return
        if not self.body.isdigit():
            self.tell(RpcRefused(404, "nothing of that kind"))
            return
        self.page += 1
        self.tell(Page(b"page %d" % self.page, has_more=self.page < int(self.body)))

    def close(self) -> None:
        self.is_closed = True


class Harness:
    """Nodes that run errands for each other, what is under way, and time."""

    def __init__(self, nodes: str = "ab") -> None:
        self.now_s = 0.0
        self.timers: list[Timer] = []
        self.under_way: list[tuple[str, str, bytes]] = []
        self.work: list[Callable[[], None]] = []
        self.listings: list[Count] = []
        self.hindered: dict[str, str] = {}
        """Why a node cannot be asked."""
        self.deaf: set[str] = set()
        """Nodes that hear nothing, though there is a link: they are paused, or it is lossy."""
        self.clients = {name: self._made(name) for name in nodes}
        self.servers = {name: self._made_obliging(name) for name in nodes}
        self.most_under_way = 0

    def _made(self, name: str) -> RpcClient:
        return RpcClient(self._sender(name), self, reply_timeout_s=PATIENCE_S)

    def _sender(self, name: str) -> FakeSender:
        return FakeSender(name, self._put, hindered=self.hindered)

    def _put(self, frame: tuple[str, str, bytes]) -> None:
        self.under_way.append(frame)

    def _made_obliging(self, name: str) -> RpcServer:
        def begin(body: bytes, tell: Reply) -> PagedListing:
            return Count(self, body, tell)

        servers = RpcServer(self._sender(name), self, begin)
        self.clients[name].on_asked = servers.asked
        return servers

    # As the event loop

    def call_soon(self, call: Callable[[], None]) -> None:
        raise AssertionError("neither end uses it")

    def call_later(self, seconds: float, call: Callable[[], None]) -> Timer:
        self.timers.append(timer := Timer(self.now_s + seconds, call))
        return timer

    def run(self) -> None:
        """Until nothing is under way, and nobody has anything to do."""
        while self.under_way or self.work:
            self.most_under_way = max(self.most_under_way, len(self.under_way))
            if self.work:
                self.work.pop(0)()
            if self.under_way:
                source, target, payload = self.under_way.pop(0)
                if target not in self.deaf:
                    self.clients[target].receive(source, payload)

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for timer in [each for each in self.timers if each.at_s <= self.now_s]:
            self.timers.remove(timer)
            if not timer.is_cancelled:
                timer.call()
        self.run()

    def cut(self, one: str, other: str) -> None:
        """The link between two, of both directions."""
        self.under_way = [each for each in self.under_way if {one, other} != {*each[:2]}]
        for node, peer in ((one, other), (other, one)):
            self.clients[node].link_changed(peer, is_up=False)
            self.servers[node].link_changed(peer, is_up=False)

    @property
    def is_waiting(self) -> bool:
        """True if any time is to pass for anybody."""
        return any(not each.is_cancelled for each in self.timers)


def all_answers(harness: Harness, request: RpcRequest) -> list[RpcReply]:
    """Everything, taken as it comes."""
    answers: list[RpcReply] = []
    while not answers or (isinstance(answers[-1], Page) and answers[-1].has_more):
        harness.run()
        assert request.has_reply, "nothing has come, and nothing will"
        answers.append(request.take())
    return answers


def pages(count: int) -> list[RpcReply]:
    return [Page(b"page %d" % page, has_more=page < count) for page in range(1, count + 1)]


@pytest.mark.parametrize("count", [1, 2, 7])
def test_a_list_is_reported_page_by_page(count: int) -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"%d" % count)
    assert all_answers(harness, request) == pages(count)
    request.stop()
    harness.run()
    assert not harness.is_waiting
    assert harness.most_under_way == 1


def test_no_page_is_made_before_somebody_has_taken_the_one_before() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"9")
    for taken in range(3):
        harness.run()
        assert harness.listings[0].page == taken + 1
        request.take()


def test_who_waits_is_notified_that_there_is_something() -> None:
    harness = Harness()
    answers: list[object] = []
    request = harness.clients["a"].begin("b", b"1")
    request.wait().then(answers.append, answers.append)
    assert answers == []
    harness.run()
    assert answers == [None]
    assert request.has_reply


def test_several_are_asked_at_once_and_none_is_taken_for_another() -> None:
    harness = Harness("abc")
    clients = [harness.clients["a"].begin(node, body) for node in "bc" for body in (b"2", b"3")]
    assert [all_answers(harness, each) for each in clients] == [pages(2), pages(3)] * 2


def test_what_is_refused_is_over() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"?")
    assert all_answers(harness, request) == [RpcRefused(404, "nothing of that kind")]
    request.stop()
    harness.run()
    assert not harness.is_waiting
    assert not harness.listings[0].is_closed


@pytest.mark.parametrize("why", ["there is no link to it", "it is of an earlier version"])
def test_who_cannot_be_asked_is_silent_at_once_and_is_sent_nothing(why: str) -> None:
    harness = Harness()
    harness.hindered["b"] = why
    assert harness.clients["a"].begin("b", b"1").take() == NoReply(why)
    assert harness.under_way == []
    assert not harness.is_waiting


def test_who_says_nothing_in_time_is_silent_and_what_it_says_later_is_nothing() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"1")
    late, harness.under_way = harness.under_way, []
    harness.pass_time(PATIENCE_S / 2)
    assert not request.has_reply
    harness.pass_time(PATIENCE_S / 2)
    assert request.take() == SILENT
    harness.under_way = late
    harness.run()
    assert not request.has_reply
    assert not harness.is_waiting


def test_each_page_has_its_own_time() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"9")
    for _page in range(4):
        harness.run()
        request.take()
        harness.pass_time(PATIENCE_S - 1)
    harness.run()
    request.take()
    harness.under_way.clear()
    harness.pass_time(PATIENCE_S)
    assert request.take() == SILENT
    harness.run()
    assert harness.listings[0].is_closed


@pytest.mark.parametrize("is_up", [True, False])
def test_what_was_under_way_is_lost_with_the_link(*, is_up: bool) -> None:
    harness = Harness("abc")
    lost, other = (harness.clients["a"].begin(node, b"9") for node in "bc")
    harness.run()
    assert lost.take() == other.take() == pages(9)[0]
    harness.under_way = [each for each in harness.under_way if "b" not in each[:2]]
    harness.clients["a"].link_changed("b", is_up=is_up)
    assert lost.take() == NoReply("the link to it was lost")
    assert all_answers(harness, other) == pages(9)[1:]


def test_who_comes_back_in_an_earlier_version_is_not_even_notified_that_it_may_stop() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"9")
    harness.run()
    harness.hindered["b"] = "it is of an earlier version"
    harness.clients["a"].link_changed("b", is_up=True)
    assert harness.under_way == []
    assert request.take() == NoReply("the link to it was lost")
    request.stop()
    assert harness.under_way == []


def test_of_who_is_gone_nothing_stays_open() -> None:
    harness = Harness()
    harness.clients["a"].begin("b", b"9")
    harness.run()
    harness.cut("a", "b")
    (listing,) = harness.listings
    assert listing.is_closed
    assert not harness.is_waiting


def test_what_nobody_reads_any_more_is_ended() -> None:
    harness = Harness()
    request = harness.clients["a"].begin("b", b"9")
    harness.run()
    request.take()
    request.stop()
    request.stop()
    harness.run()
    assert harness.listings[0].is_closed
    assert not harness.is_waiting


def test_a_page_that_is_never_asked_for_is_forgotten() -> None:
    harness = Harness()
    harness.clients["a"].begin("b", b"9")
    harness.run()
    harness.pass_time(UNREAD_S_MAX - 1)
    assert not harness.listings[0].is_closed
    harness.pass_time(1)
    assert harness.listings[0].is_closed
    assert not harness.is_waiting


def test_another_node_may_have_so_many_open_and_no_more() -> None:
    harness = Harness("abc")
    clients = [harness.clients["a"].begin("b", b"2") for _ in range(OPEN_MAX + 1)]
    harness.run()
    assert clients[-1].take() == RpcRefused(506, f"{OPEN_MAX} lists are read by 'a' already")
    assert all_answers(harness, harness.clients["c"].begin("b", b"2")) == pages(2)
    assert all_answers(harness, clients[0]) == pages(2)
    assert all_answers(harness, harness.clients["a"].begin("b", b"2")) == pages(2)


def test_a_number_that_comes_again_is_of_another_life() -> None:
    harness = Harness()
    harness.clients["a"].begin("b", b"9")
    harness.run()
    harness.clients["a"] = harness._made("a")
    assert all_answers(harness, harness.clients["a"].begin("b", b"2")) == pages(2)
    assert [each.is_closed for each in harness.listings] == [True, False]


def test_nobody_else_can_answer() -> None:
    harness = Harness("abc")
    request = harness.clients["a"].begin("b", b"1")
    harness.clients["a"].receive("c", msgpack.packb((3, request.number, False, b"a lie")))
    assert all_answers(harness, request) == pages(1)


@seeds(20)
def test_whatever_is_lost_all_ends(seed: int) -> None:
    """Frames are lost, links break, nodes are deaf, and some stop listening: nothing is left."""
    chance, harness = Random(seed), Harness("abc")
    running: list[RpcRequest] = []
    ended = 0
    for _ in range(120):
        asker, asked = chance.sample("abc", 2)
        what = chance.choice(("ask", "ask", "take", "take", "lose", "cut", "deafen", "time"))
        if what == "ask":
            running.append(harness.clients[asker].begin(asked, b"%d" % chance.randint(1, 4)))
        elif what == "lose" and harness.under_way:
            harness.under_way.pop(chance.randrange(len(harness.under_way)))
        elif what == "cut":
            harness.cut(asker, asked)
        elif what == "deafen":
            harness.deaf ^= {asked}
        elif what == "time":
            harness.pass_time(1)
        for request in [each for each in running if what == "take" and each.has_reply]:
            answers = request.take()
            if not (isinstance(answers, Page) and answers.has_more):
                request.stop()
                running.remove(request)
                ended += 1
        if chance.random() < 0.5:
            harness.run()
    harness.run()
    harness.pass_time(PATIENCE_S)
    for request in running:
        assert request.has_reply, f"seed {seed}: it would wait for ever"
        request.stop()
    harness.run()
    assert ended, f"seed {seed}: nothing has been reported"
    harness.pass_time(UNREAD_S_MAX)
    assert not harness.is_waiting, f"seed {seed}"


@pytest.mark.parametrize(
    "row",
    [
        [], [0], [0, 1], [0, 1, "text"], [0, -1, b""], [True, 1], [1, 2, 3], [2, 2, 3], [5, 1], 7,
        [3, 1, 1, b""], [3, 1, False, "text"], [3, 1, False], [4, 1, 404], [4, 1, "404", ""],
        [4, 1, -1, ""], [4, 1, True, ""], [1, True], [3, True, False, b""],
    ],
)  # fmt: skip
def test_what_is_no_errand_is_refused(row: object) -> None:
    with pytest.raises(BadFrame):
        Harness().clients["a"].receive("b", msgpack.packb(row))
