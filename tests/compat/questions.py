"""Questions to RabbitMQ: which entry of which file has the answers."""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from tests.compat.entries import Asked
from tests.compat.estate import ESTATE_AT, asked_for_estate
from tests.compat.fingerprint import QualifiedName, Root, fingerprint
from tests.compat.nodes import Drive as DriveNodes
from tests.compat.nodes import load_nodes_scenarios
from tests.compat.nodes import run as run_nodes
from tests.compat.quorum import NAMES as OF_QUORUM_QUEUES
from tests.compat.quorum import run as run_with_quorum_queues
from tests.compat.scenario import (
    ALARMS,
    CROSSINGS,
    AlarmScenario,
    Crossing,
    Peer,
    Scenario,
    load_scenarios,
)

NODE_AT = (ESTATE_AT, QualifiedName("tests.compat.oracle", "EXCHANGE_PLUGINS"))
"""Names of what the node contains that most are asked of."""

DISCOVERY_AT = QualifiedName("tests.compat.clusters", "DISCOVERY")


def asked_alone(scenario: Scenario) -> Asked:
    """Question to one node."""
    seen = fingerprint(scenario.drive, Scenario.run, *NODE_AT)
    return Asked(scenario.name.partition(".")[0], scenario.name, seen)


def asked_with_quorum_queues(scenario: Scenario) -> Asked:
    """Question to one node, with quorum queues in the place of classic ones."""
    seen = fingerprint(scenario.drive, run_with_quorum_queues, Peer.hang_up, *NODE_AT)
    return Asked("quorum", f"quorum.{scenario.name}", seen)


def asked_under_alarm(scenario: AlarmScenario) -> Asked:
    seen = fingerprint(scenario.drive, AlarmScenario.run, *NODE_AT)
    return Asked(scenario.name.partition(".")[0], scenario.name, seen)


def asked_across(scenario: Crossing) -> Asked:
    """Question to a node that ends and is started again in between."""
    seen = fingerprint(scenario.drive, Peer.hang_up, *NODE_AT, said=scenario.end.name)
    return Asked("restarts", scenario.name, seen)


def asked_of_nodes(name: str, drive: DriveNodes) -> Asked:
    """Question to three nodes."""
    return Asked("nodes", name, fingerprint(drive, run_nodes, DISCOVERY_AT))


QUESTIONS: dict[str, Asked] = {}
"""Questions that no scenario asks, by name."""


def asks(name: str, *roots: Root, said: object = "") -> Asked:
    """Register what a file of tests asks, under the name of its subject and of itself."""
    asked = Asked(name.partition(".")[0], name, fingerprint(*roots, said=said))
    known = QUESTIONS.setdefault(name, asked)  # a file may be imported twice
    assert known == asked, f"two questions are called {name}"
    return asked


def all_asked() -> Iterator[Asked]:
    """Everything that RabbitMQ is asked and that is recorded."""
    scenarios = load_scenarios()
    yield asked_for_estate()
    yield from map(asked_alone, scenarios.values())
    yield from map(asked_under_alarm, ALARMS.values())
    yield from map(asked_across, CROSSINGS.values())
    yield from (asked_with_quorum_queues(scenarios[name]) for name in OF_QUORUM_QUEUES)
    yield from (asked_of_nodes(*each) for each in load_nodes_scenarios().items())
    for path in sorted(Path(__file__).parent.glob("test_*.py")):
        import_module(f"{__package__}.{path.stem}")
    yield from QUESTIONS.values()
