"""What Prometheus is told of a node of a cluster: its links to the others, its clock, its room."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from fluffle.broker.cluster.ports import TrafficClass
from fluffle.broker.observability.metrics.families import labelled, text_of

if TYPE_CHECKING:
    from fluffle.broker.cluster.common_time import CommonTime
    from fluffle.broker.cluster.disk_full import DiskFullHandover
    from fluffle.broker.cluster.links.links import ClusterLinks
    from fluffle.raft.config import NodeId


def links_metrics(links: ClusterLinks) -> Iterator[Metric]:
    counters = links.counters
    is_up = GaugeMetricFamily("fluffle_link_up", "Whether frames can be sent to a node")
    waiting = GaugeMetricFamily(
        "fluffle_link_waiting_bytes", "What is to be sent to a node and has not left, by lane"
    )
    for node in links.peers:
        labelled(is_up, links.is_up(node), node=text_of(node))
        for lane in TrafficClass:
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
