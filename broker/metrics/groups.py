"""Metrics of the Raft groups of a node, of its links, its clock and its disk.

RabbitMQ has two sets of names for the same numbers: one up to 4.1, with the sum over all groups or
a row for each; and one since 4.2, which tells the group of the definitions apart, and of queues the
worst or a row for each.  Dashboards look for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.cluster.ports import METADATA_GROUP, TrafficClass
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.metrics.tables import (
    RAFT,
    Column,
    MetricTable,
    Reading,
    Step,
    TableView,
    gauge,
    labelled,
    pieces,
    table_steps,
    text_of,
)
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.output import Role

if TYPE_CHECKING:
    from fluffle.broker.cluster.common_time import CommonTime
    from fluffle.broker.cluster.hosted_group import HostedGroup
    from fluffle.broker.cluster.leadership_transfer import DiskFullHandover
    from fluffle.broker.cluster.links.links import ClusterLinks
    from fluffle.raft.config import NodeId
    from fluffle.raft.log import GroupId


DEFINITIONS = {"raft_cluster": "rabbitmq_metadata"}
"""The labels of the group of the definitions, with the older names, …"""
COORDINATION = {"ra_system": "coordination"}
"""… with the newer ones, …"""
QUORUM_QUEUES = {"ra_system": "quorum_queues"}
"""… and those of all queues together, which RabbitMQ does not show."""


class IndexMetric(NamedTuple):
    """An index of a Raft group as a metric: names, older and newer, help and reader."""

    name: str
    newer: str
    text: str
    of: Callable[[HostedGroup], float | None]


# No counter: to OpenMetrics that of the older name is called like the newer one.
INDEXES = (
    IndexMetric(
        "raft_term_total", "raft_term", "Current Raft term number", lambda it: it.status.term
    ),
    IndexMetric(
        "raft_log_snapshot_index",
        "raft_snapshot_index",
        "Raft log snapshot index",
        lambda it: it.status.floor,
    ),
    IndexMetric(
        "raft_log_last_applied_index",
        "raft_last_applied",
        "Raft log last applied index",
        lambda it: it.status.applied,
    ),
    IndexMetric(
        "raft_log_commit_index",
        "raft_commit_index",
        "Raft log commit index",
        lambda it: it.status.commit,
    ),
    IndexMetric(
        "raft_log_last_written_index",
        "raft_last_written_index",
        "Raft log last written index",
        lambda it: it.status.durable,
    ),
    IndexMetric(
        "raft_entry_commit_latency_seconds",
        "raft_commit_latency_seconds",
        "Time taken for a log entry to be committed",
        lambda it: None if it.commit_ms is None else it.commit_ms / 1_000,
    ),
)
LATENCY = len(INDEXES) - 1
OLDER = tuple(Column(index.name, index.text, RAFT) for index in INDEXES)
NEWER = tuple(Column(index.newer, index.text, RAFT) for index in INDEXES)


def group_steps(
    neighbours: ClusterView, vhosts: Mapping[str, VirtualHost], view: TableView
) -> Iterator[Step]:
    """A little at a time."""
    names: dict[GroupId, dict[str, str]] = {}
    if view.has_rows:
        for named in pieces(group_names(vhosts)):
            names.update(named)
            yield []
    queue_counts = GroupTotals(neighbours.is_alive)
    queues: list[Reading] = []
    for piece in pieces(tuple(neighbours.groups.items())):
        for group, hosted in piece:
            values = queue_counts.add(group, hosted)
            if group in names:
                queues.append(Reading(names[group], values))
        yield []
    if view.has_rows:
        for columns, labels in ((OLDER, DEFINITIONS), (NEWER, COORDINATION)):
            rows = (
                [*queues, Reading(labels, queue_counts.metadata)]
                if queue_counts.metadata
                else queues
            )
            yield from table_steps(MetricTable(columns, partial(iter, rows)), view)
    else:
        yield list(queue_counts.sums(view))
    if view.families is None:
        yield [*queue_counts.metrics(), changes(neighbours.leader_changes)]


def changes(count: int) -> Metric:
    return CounterMetricFamily(
        "fluffle_raft_leader_changes",
        "How often a Raft group with a member here had another leader, or the same anew",
        value=count,
    )


def group_names(vhosts: Mapping[str, VirtualHost]) -> Iterator[tuple[GroupId, dict[str, str]]]:
    """The labels of queues, by their groups."""
    for vhost in tuple(vhosts.values()):
        name = text_of(vhost.name)
        for queue in tuple(vhost.queues.values()):
            yield queue.definition.id, {"vhost": name, "queue": text_of(queue.name)}


class GroupTotals:
    """Sums over all Raft groups of a node."""

    def __init__(self, is_alive: Callable[[NodeId], bool]) -> None:
        """`is_alive`: whether a node is believed to be."""
        self._is_alive = is_alive
        self.metadata: tuple[float | None, ...] = ()
        """Readings of the metadata group; empty where there is none."""
        self._totals = [0.0] * len(INDEXES)
        """Over all queues."""
        self._latency_max = 0.0
        self._timed = 0
        """Queues of which it is known how long a commit takes."""
        self._roles = dict.fromkeys(Role, 0)
        self._leaderless = self._quarantined = self._misfits = 0

    def add(self, group: GroupId, hosted: HostedGroup) -> tuple[float | None, ...]:
        """Count one more; its numbers."""
        status = hosted.status
        self._misfits += hosted.misfit is not None
        self._roles[status.role] += 1
        leader = status.leader
        # Who sees no majority stands for nothing, and follows a leader on that is gone.
        self._leaderless += leader is None or not self._is_alive(leader)
        self._quarantined += status.is_quarantined
        values = tuple(index.of(hosted) for index in INDEXES)
        if group == METADATA_GROUP:
            self.metadata = values
            return values
        self._totals = [
            total + (value or 0) for total, value in zip(self._totals, values, strict=True)
        ]
        latency = values[LATENCY]
        if latency is not None:
            self._timed += 1
            self._latency_max = max(self._latency_max, latency)
        return values

    def sums(self, view: TableView) -> Iterator[Metric]:
        """Totals where there are no rows: of latencies the mean, and the maximum."""
        metadata = self.metadata or (0,) * len(INDEXES)
        together = [
            total + (value or 0) for total, value in zip(self._totals, metadata, strict=True)
        ]
        timed = self._timed + (metadata[LATENCY] is not None and bool(self.metadata))
        together[LATENCY] /= timed or 1
        queues = [*self._totals]
        queues[LATENCY] /= self._timed or 1
        for at, (older, newer) in enumerate(zip(OLDER, NEWER, strict=True)):
            yield labelled(older.kind(view.prefix + older.name, older.text), together[at])
            family = labelled(
                newer.kind(view.prefix + newer.name, newer.text), queues[at], **QUORUM_QUEUES
            )
            if self.metadata and (value := self.metadata[at]) is not None:
                labelled(family, value, **COORDINATION)
            yield family
        longest = gauge("raft_max_commit_latency_seconds", "The longest of all queues")
        yield labelled(longest, self._latency_max, **QUORUM_QUEUES)

    def metrics(self) -> Iterator[Metric]:
        roles = GaugeMetricFamily("fluffle_raft_groups", "Raft groups with a member here, by role")
        for role, count in self._roles.items():
            labelled(roles, count, role=role.name.lower())
        yield roles
        yield GaugeMetricFamily(
            "fluffle_raft_groups_leaderless",
            "Raft groups with a member here that knows no leader, or none that can be reached",
            value=self._leaderless,
        )
        yield GaugeMetricFamily(
            "fluffle_raft_groups_quarantined",
            "Raft groups whose member here is repaired from the others",
            value=self._quarantined,
        )
        yield GaugeMetricFamily(
            "fluffle_raft_groups_misfit",
            "Raft groups whose log this node does not understand, so that it cannot lead them",
            value=self._misfits,
        )


def links_metrics(links: ClusterLinks) -> Iterator[Metric]:
    counters = links.counters
    is_up = GaugeMetricFamily("fluffle_link_up", "Whether frames can be sent to a node")
    waiting = GaugeMetricFamily(
        "fluffle_link_waiting_bytes",
        "What is to be sent to a node and has not left, by lane",
    )
    for node in links.peers:
        labelled(is_up, links.is_up(node), node=text_of(node))
        for traffic_class in TrafficClass:
            waits = links.waiting_bytes(node, traffic_class)
            labelled(waiting, waits, node=text_of(node), lane=traffic_class.name.lower())
    yield from (is_up, waiting)
    for name, text, label, values in (
        (
            "bytes",
            "Bytes over links between nodes",
            "direction",
            {"in": counters.bytes_in, "out": counters.bytes_out},
        ),
        (
            "frames",
            "Frames over links between nodes",
            "direction",
            {"in": counters.frames_in, "out": counters.frames_out},
        ),
        (
            "frames_dropped",
            "Frames that were not sent, since the link was down or too much waited already",
            "reason",
            {"down": counters.frames_dropped, "no_room": counters.frames_without_room},
        ),
        (
            "opened",
            "Links that were opened, by the node that dialled",
            "by",
            {"us": counters.opened, "them": counters.accepted},
        ),
        (
            "refused",
            "Links that either end has refused",
            "reason",
            {reason.name.lower(): count for reason, count in counters.refused.items()},
        ),
    ):
        family = CounterMetricFamily(f"fluffle_link_{name}", text)
        for value, count in values.items():
            labelled(family, count, **{label: value})
        yield family
    yield CounterMetricFamily(
        "fluffle_link_resets", "Open links that have ended", value=counters.resets
    )


def split_metrics(links: ClusterLinks) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "fluffle_cluster_split",
        "How many nodes of another cluster of this name and secret were met in the last minutes",
        value=len(links.apart),
    )


def suspicion_metrics(mistakes: Mapping[NodeId, int]) -> Iterator[Metric]:
    family = CounterMetricFamily(
        "fluffle_node_suspected_by_mistake",
        "How often a node was suspected for its silence, and was there",
    )
    for node, count in mistakes.items():
        labelled(family, count, node=text_of(node))
    yield family


def clock_metrics(time: CommonTime) -> Iterator[Metric]:
    ahead = GaugeMetricFamily(
        "fluffle_clock_ahead_seconds",
        "How far the clock of a node is ahead of the median of all; as far as a majority is known",
    )
    for node, ahead_ms in time.ahead_ms().items():
        labelled(ahead, ahead_ms / 1_000, node=text_of(node))
    yield ahead


def room_metrics(room: DiskFullHandover) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "fluffle_disk_full",
        "Whether nothing can be proposed on this node for lack of room",
        value=not room.has_room,
    )
    yield CounterMetricFamily(
        "fluffle_disk_full_handovers",
        "Raft groups that another node was asked to lead for lack of room on this one",
        value=room.handed_over,
    )
