"""Damage: what runs of the simulator found."""

from fluffle.raft.tuning import Tuning
from tests.raft.cluster import GROUP, Cluster


def test_damage_found_at_the_start_is_remembered_before_the_log_is_received_again() -> None:
    """The entries behind the damage go as soon as the first is there again, so a crash in between
    leaves a log that is sound and too short: only what was remembered keeps it from voting."""
    cluster = Cluster(tuning=Tuning(append_bytes_max=1))
    cluster.create()
    cluster.elect("a")
    cluster.propose("one", "two", "three", "four")
    cluster.advance(500)
    c = cluster["c"]
    last = c.status().durable
    c.crash()
    c.disk.groups[GROUP].damaged.add(last - 3)
    c.start()
    cluster.link_all()
    for _ in range(1_000):
        if c.disk.groups[GROUP].last < last:
            break
        if cluster.network:
            cluster.deliver()
        elif not any(host.sync() for host in cluster.up):
            cluster.now_ms += 10
            for host in cluster.up:
                host.do()
    assert c.disk.groups[GROUP].last < last, "nothing was sent again"
    c.crash()
    c.start()
    assert c.status().is_quarantined
