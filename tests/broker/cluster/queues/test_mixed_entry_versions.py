"""Members that read different versions of a queue's log, as while nodes are upgraded in turn."""

from __future__ import annotations

from typing import cast

from fluffle.broker.queues.delivery_counts import NEW, Counts
from fluffle.broker.queues.quorum.entry_codec import (
    FIRST_VERSION,
    REMEMBERS,
    VERSION,
    version_of,
)
from fluffle.broker.queues.settings import Overflow, QueueSettings
from fluffle.raft.log import DATA, Entry, GroupId
from tests.support.queue_nodes import QueueCluster

OLDER, NEWER = FIRST_VERSION, VERSION


class Mixed(QueueCluster):
    """Queue cluster that records the versions of entries."""

    def __init__(self, **reads: int) -> None:
        self.versions: list[int] = []
        """Versions of the queue's entries, as far as any node has applied them."""
        super().__init__("".join(reads))
        for name, version in reads.items():
            self.nodes[name].reads = version
        self.declare()
        self.hosts.advance(1_000)

    def _applied(self, group: GroupId, entry: Entry) -> None:
        if entry.kind != DATA:
            super()._applied(group, entry)
            return
        if entry.index > self.seen:
            self.versions.append(version_of(entry.payload))
        super()._applied(group, entry)

    def publish(self, name: str, counts: Counts = NEW) -> int:
        """A message, which is confirmed; the version of the entry that it is in."""
        before = len(self.model.confirmed)
        self.ask(name).publish(1, counts=counts)
        self.hosts.advance(100)
        assert len(self.model.confirmed) == before + 1
        return self.versions[-1]

    def restart(self, name: str, reads: int) -> None:
        """With another fluffle."""
        self.nodes[name].kill()
        self.hosts.advance(3_000)
        self.nodes[name].reads = reads
        self.nodes[name].start()
        self.hear_of_it(name)
        self.hosts.advance(3_000)

    def announced(self, name: str) -> dict[str, int]:
        """Versions that a member has on record."""
        group = self.nodes[name].hosting.groups[self.queue]
        return group.replica.image.state.versions

    def brought(self, name: str) -> list[Counts]:
        """Delivery counts that messages brought, as a member has them on record."""
        group = self.nodes[name].hosting.groups[self.queue]
        return [run.counts for run in group.replica.image.state.delivery_counts.runs]

    def wrong(self, name: str) -> str:
        """Why a member has stopped; empty if it has not."""
        misfit = self.nodes[name].host.group(self.queue).misfit
        return "" if misfit is None else misfit.wrong


def test_where_all_read_no_more_than_the_first_version_nothing_is_announced() -> None:
    cluster = Mixed(a=OLDER, b=OLDER, c=OLDER)
    assert cluster.publish("a") == OLDER
    assert cluster.announced("a") == {}


def test_a_newer_version_is_written_once_all_members_have_announced_it() -> None:
    cluster = Mixed(a=OLDER, b=OLDER, c=OLDER)
    for name in "cb":
        cluster.restart(name, NEWER)
        cluster.publish(name)
        assert cluster.publish("a") == OLDER
    cluster.restart("a", NEWER)
    assert cluster.leader() != "a"
    cluster.publish("a")
    assert cluster.publish("a") == NEWER
    assert cluster.announced("a") == {"a 1": NEWER, "b 1": NEWER, "c 1": NEWER}
    assert [cluster.wrong(name) for name in "abc"] == ["", "", ""]


def test_the_next_leader_goes_by_what_is_on_record() -> None:
    """The new leader may write before it has heard of an unreachable member."""
    cluster = Mixed(a=NEWER, b=NEWER, c=NEWER)
    cluster.publish("a")
    assert cluster.publish("a") == NEWER
    for name in "ac":
        cluster.restart(name, NEWER)
    cluster.nodes["a"].kill()
    cluster.hosts.advance(3_000)
    assert cluster.publish("b") == NEWER


def test_what_messages_bring_along_counts_once_all_members_have_announced_that() -> None:
    cluster = Mixed(a=NEWER, b=NEWER, c=REMEMBERS)
    for name in "ab":
        cluster.publish(name)
        assert cluster.publish(name, Counts(3, 1)) == REMEMBERS
    cluster.restart("c", NEWER)
    cluster.publish("b")
    assert cluster.publish("b", Counts(4, 2)) == NEWER
    cluster.hosts.advance(1_000)
    assert [cluster.brought(name) for name in "abc"] == [[Counts(4, 2)]] * 3
    assert [cluster.wrong(name) for name in "abc"] == ["", "", ""]
    cluster.nodes[cluster.leader()].kill()
    cluster.hosts.advance(3_000)
    name = next(name for name in "abc" if cluster.nodes[name].is_running)
    cluster.ask(name).attach(credit=10, no_ack=False, prefetch=10)
    cluster.hosts.advance(1_000)
    ordinals = sorted(token.ordinal for token in cluster.clients[name].in_hands())
    assert ordinals[-1] == 4
    assert cluster.brought(name) == []


def test_who_has_announced_nothing_keeps_all_from_it_while_it_is_away() -> None:
    cluster = Mixed(a=NEWER, b=NEWER, c=OLDER)
    cluster.nodes["c"].kill()
    cluster.hosts.advance(3_000)
    for _ in range(3):
        assert cluster.publish("b") == OLDER


def test_an_older_member_stops_at_a_newer_entry_and_says_why_while_others_go_on() -> None:
    cluster = Mixed(a=NEWER, b=NEWER, c=NEWER)
    cluster.publish("a")
    assert cluster.publish("a") == NEWER
    cluster.restart("c", OLDER)
    assert cluster.wrong("c").endswith(
        f"an entry of version {NEWER}; this fluffle reads up to {OLDER}: run the one that the "
        "other members run"
    )
    assert [cluster.wrong(name) for name in "ab"] == ["", ""]
    assert cluster.publish("b") == OLDER, "one says on its link that it has gone back"
    cluster.restart("c", NEWER)
    assert cluster.wrong("c") == ""
    cluster.publish("c")
    assert cluster.publish("c") == NEWER


def test_a_snapshot_of_newer_entries_stops_an_older_member_too() -> None:
    cluster = Mixed(a=NEWER, b=NEWER, c=NEWER)
    cluster.publish("a")
    assert cluster.publish("a") == NEWER
    cluster.nodes["c"].snapshot(cluster.queue)
    cluster.hosts.settle()
    cluster.restart("c", OLDER)
    assert f"a snapshot of version {NEWER}; this fluffle reads" in cluster.wrong("c")


def test_an_older_member_leads_though_it_does_not_know_the_word_of_a_setting() -> None:
    """No version of the log says which words there are, so that any member may meet a new one."""
    cluster = Mixed(a=NEWER, b=NEWER, c=NEWER)
    leadership = cluster.nodes["a"].hosting.groups[cluster.queue].replica.leadership
    assert leadership is not None
    later = cast("Overflow", "reject-oldest-consumer")
    leadership.change_settings(4, QueueSettings(max_length=5, overflow=later))
    cluster.publish("a")
    cluster.nodes["a"].kill()
    cluster.hosts.advance(3_000)
    assert cluster.leader() in ("b", "c")
    cluster.publish("b")
    assert [cluster.wrong(name) for name in "bc"] == ["", ""]
