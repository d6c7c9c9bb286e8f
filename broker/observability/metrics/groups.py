"""What Prometheus is told of the Raft groups of a node.

RabbitMQ has two sets of names for the same numbers: one up to 4.1, with the sum over all groups or
a row for each; and one since 4.2, which tells the group of the definitions apart, and of queues the
worst or a row for each.  Dashboards look for both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.cluster.group_owner import METADATA_GROUP
from fluffle.broker.cluster_port import ClusterView
from fluffle.broker.observability.metrics.families import (
    RAFT,
    Step,
    gauge,
    labelled,
    pieces,
    text_of,
)
from fluffle.broker.observability.metrics.tables import (
    Column,
    Reading,
    Table,
    TableView,
    table_steps,
)
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.raft.output import Role

if TYPE_CHECKING:
    from fluffle.broker.cluster.hosted_group import HostedGroup
    from fluffle.raft.config import NodeId
    from fluffle.raft.records import GroupId

DEFINITIONS = {"raft_cluster": "rabbitmq_metadata"}
"""The labels of the group of the definitions, with the older names, …"""
COORDINATION = {"ra_system": "coordination"}
"""… with the newer ones, …"""
QUORUM_QUEUES = {"ra_system": "quorum_queues"}
"""… and those of all queues together, which RabbitMQ does not tell."""


class IndexMetric(NamedTuple):
    """A number of a group: its names, older and newer, the help, and where it is."""

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
            yield from table_steps(Table(columns, partial(iter, rows)), view)
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
    """What is counted over all groups of a node."""

    def __init__(self, is_alive: Callable[[NodeId], bool]) -> None:
        """`is_alive`: whether a node is believed to be."""
        self._is_alive = is_alive
        self.metadata: tuple[float | None, ...] = ()
        """Of the definitions; nothing where they have no group."""
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
        """What is told where there are no rows: of latencies the mean, and the most."""
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
