"""Settings that may be in the log of a simulated queue."""

from __future__ import annotations

import pytest

from fluffle.broker.cluster.queues.quorum_members import CLUSTER_REVISIONS
from fluffle.broker.metadata.change import Change, Fact, Kind
from fluffle.broker.metadata.state import MetadataState, Proposal
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.quorum.entry_codec import encode_settings
from fluffle.broker.queues.quorum.facts import SpecChanged
from fluffle.broker.queues.settings import QueueSettings
from tests.simulation.facts import Violation
from tests.simulation.queues.settings_checks import PolicyHistory, SettingsChecks

SPEC = QueueSpec("q", queue_type=QueueType.QUORUM)


def sayings(*lengths: int) -> PolicyHistory:
    """History of a policy that had these lengths one after the other, from the first revision
    on."""
    definitions, made = MetadataState(), PolicyHistory()
    for number, length in enumerate(lengths, 1):
        value = {"pattern": "^q", "definition": {"max-length": length}}
        change = Change(puts=(Fact(Kind.POLICY, ("/", "p"), value),))
        definitions.apply(Proposal("a", 1, number, 0, change, ()))
        made.note(definitions)
    return made


def fact(revision: int, length: int) -> SpecChanged:
    return SpecChanged(
        CLUSTER_REVISIONS + revision, encode_settings(QueueSettings(max_length=length))
    )


def test_a_log_says_what_definitions_did_at_that_revision() -> None:
    found = SettingsChecks(SPEC, sayings(2, 10), 7)
    found.apply(fact(1, 2))
    assert not found.is_up_to_date
    found.apply(fact(2, 10))
    assert found.is_up_to_date
    assert found.changes == 2


def test_else_it_is_found() -> None:
    with pytest.raises(Violation, match=r"rule 17: .* is to say"):
        SettingsChecks(SPEC, sayings(2, 10), 7).apply(fact(1, 10))


def test_nothing_older_takes_the_place_of_what_is_newer() -> None:
    found = SettingsChecks(SPEC, sayings(2, 10), 7)
    found.apply(fact(2, 10))
    with pytest.raises(Violation, match=r"rule 17: .* comes after"):
        found.apply(fact(1, 2))
