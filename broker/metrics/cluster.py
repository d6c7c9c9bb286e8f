"""What Prometheus is told of a node of a cluster: its links to the others, and its Raft groups.

The indexes have RabbitMQ's names (those that its dashboard of quorum queues reads): of each queue,
or the sum over all that have a member here; those of the definitions' group stand beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.chores import in_pieces
from fluffle.broker.cluster.owner import METADATA_GROUP
from fluffle.broker.cluster.ports import Lane
from fluffle.broker.metrics.families import PIECE, Step, counter, gauge, labelled, text_of
from fluffle.broker.vhost import VirtualHost
from fluffle.raft.output import Role

if TYPE_CHECKING:
    from fluffle.broker.cluster.common_time import CommonTime
    from fluffle.broker.cluster.hosted import HostedGroup
    from fluffle.broker.cluster.links.links import ClusterLinks
    from fluffle.broker.cluster.room import Room
    from fluffle.broker.company import Neighbours
    from fluffle.raft.config import NodeId
    from fluffle.raft.group import Status
    from fluffle.raft.records import GroupId

METADATA_LABELS = {"ra_system": "coordination"}
"""What RabbitMQ calls the group of its definitions since 4.2."""


class Index(NamedTuple):
    """A number of a group: the end of its name, the help, and where it is."""

    name: str
    text: str
    of: Callable[[Status], int]
    kind: Callable[[str, str], Metric] = gauge


INDEXES = (
    Index("raft_term", "Current Raft term number", lambda status: status.term, counter),
    Index("raft_log_snapshot_index", "Raft log snapshot index", lambda status: status.floor),
    Index("raft_log_last_applied_index", "Raft log last applied index", lambda s: s.applied),
    Index("raft_log_commit_index", "Raft log commit index", lambda status: status.commit),
    Index("raft_log_last_written_index", "Raft log last written index", lambda s: s.durable),
)


def links_metrics(links: ClusterLinks) -> Iterator[Metric]:
    counters = links.counters
    is_up = GaugeMetricFamily("fluffle_link_up", "Whether frames can be sent to a node")
    waiting = GaugeMetricFamily(
        "fluffle_link_waiting_bytes", "What is to be sent to a node and has not left, by lane"
    )
    for node in links.peers:
        labelled(is_up, links.is_up(node), node=text_of(node))
        for lane in Lane:
            waits = links.waiting_bytes(node, lane)
            labelled(waiting, waits, node=text_of(node), lane=lane.name.lower())
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
            "Links that were opened, by who dialled",
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


def clock_metrics(time: CommonTime) -> Iterator[Metric]:
    ahead = GaugeMetricFamily(
        "fluffle_clock_ahead_seconds",
        "How far the clock of a node is ahead of the median of all; as far as a majority is known",
    )
    for node, ahead_ms in time.ahead_ms().items():
        labelled(ahead, ahead_ms / 1_000, node=text_of(node))
    yield ahead


def room_metrics(room: Room) -> Iterator[Metric]:
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


class GroupReading(NamedTuple):
    """What a queue's member was at one moment."""

    labels: dict[str, str]
    values: tuple[int, ...]
    """In the order of `INDEXES`."""


def group_steps(
    neighbours: Neighbours, vhosts: Mapping[str, VirtualHost], *, per_object: bool
) -> Iterator[Step]:
    """A little at a time."""
    names: dict[GroupId, dict[str, str]] = {}
    if per_object:
        for named in in_pieces(group_names(vhosts), PIECE):
            names.update(named)
            yield []
    tally = Tally(neighbours.is_alive)
    readings: list[GroupReading] = []
    for piece in in_pieces(tuple(neighbours.groups.items()), PIECE):
        for group, hosted in piece:
            values = tally.add(group, hosted)
            if group in names:
                readings.append(GroupReading(names[group], values))
        yield []
    for column, index in enumerate(INDEXES):
        family = index.kind(index.name, index.text)
        if not per_object:
            labelled(family, tally.totals[column])
        if tally.metadata is not None:
            labelled(family, tally.metadata[column], **METADATA_LABELS)
        yield [family]
        for part in in_pieces(readings, PIECE):
            family = index.kind(index.name, index.text)
            for reading in part:
                labelled(family, reading.values[column], **reading.labels)
            yield [family]
    yield list(tally.metrics())


def group_names(vhosts: Mapping[str, VirtualHost]) -> Iterator[tuple[GroupId, dict[str, str]]]:
    """The labels of queues, by their groups."""
    for vhost in tuple(vhosts.values()):
        name = text_of(vhost.name)
        for queue in tuple(vhost.queues.values()):
            yield queue.definition.id, {"vhost": name, "queue": text_of(queue.name)}


class Tally:
    """What is counted over all groups of a node."""

    def __init__(self, is_alive: Callable[[NodeId], bool]) -> None:
        """`is_alive`: whether a node is believed to be."""
        self._is_alive = is_alive
        self.totals = [0] * len(INDEXES)
        """Over all queues."""
        self.metadata: tuple[int, ...] | None = None
        self._roles = dict.fromkeys(Role, 0)
        self._leaderless = self._quarantined = self._misfits = 0

    def add(self, group: GroupId, hosted: HostedGroup) -> tuple[int, ...]:
        """Count one more; its numbers."""
        status = hosted.status
        self._misfits += hosted.misfit is not None
        self._roles[status.role] += 1
        leader = status.leader
        # Who sees no majority stands for nothing, and follows a leader on that is gone.
        self._leaderless += leader is None or not self._is_alive(leader)
        self._quarantined += status.is_quarantined
        values = tuple(index.of(status) for index in INDEXES)
        if group == METADATA_GROUP:
            self.metadata = values
        else:
            self.totals = [total + value for total, value in zip(self.totals, values, strict=True)]
        return values

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
