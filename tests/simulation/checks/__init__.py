"""The invariants, each where it can be seen; their numbers are in the README of the simulator."""

from collections.abc import Mapping

from fluffle.raft.config import NodeId
from tests.simulation.checks.commits import Commits
from tests.simulation.checks.elections import Elections
from tests.simulation.checks.logs import Logs
from tests.simulation.checks.members import Members
from tests.simulation.checks.snapshots import Snapshots
from tests.simulation.watch import Checker, Disk


def standard(disks: Mapping[NodeId, Disk]) -> list[Checker]:
    """Checkers that hold for any image."""
    return [Elections(), Logs(disks), Commits(), Members(), Snapshots(disks)]
