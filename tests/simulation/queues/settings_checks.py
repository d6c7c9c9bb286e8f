"""Settings by which queues go, by their logs, and what policies said at each revision: rule 17.

A log names the revision of the definitions that its settings come from.  They are what these said,
no older ones take their place, and once all is quiet they are what is so now.
"""

from __future__ import annotations

from bisect import bisect_right

from fluffle.broker.cluster.queues.quorum_members import CLUSTER_REVISIONS
from fluffle.broker.definitions.catalogue import take_policy
from fluffle.broker.metadata.change import Kind
from fluffle.broker.metadata.state import MetadataState
from fluffle.broker.policies.policies import Policies
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.quorum import facts as f
from fluffle.broker.queues.quorum.entry_codec import settings_on_record
from fluffle.broker.queues.settings import QueueSettings, settings_of
from fluffle.raft.log import GroupId
from tests.simulation.facts import Violation
from tests.simulation.queues.node_registration import VHOST


class PolicyHistory:
    """History of what policies said of all queues of a run."""

    def __init__(self) -> None:
        self._revisions = [0]
        self._policies = [Policies()]
        """From each of these revisions on."""

    def note(self, definitions: MetadataState) -> None:
        """Some have changed."""
        policies = Policies()
        for name in definitions:
            known = definitions.find(name)
            if name[0] is Kind.POLICY and known is not None:
                take_policy(policies, *name, known.value)  # type: ignore[arg-type]
        self._revisions.append(definitions.last_revision)
        self._policies.append(policies)

    def at(self, revision: int, spec: QueueSpec) -> QueueSettings:
        """Settings that a queue was to have at a revision."""
        place = bisect_right(self._revisions, revision) - 1
        return self._policies[place].settings_of(VHOST, spec)

    def now(self, spec: QueueSpec) -> QueueSettings:
        return self._policies[-1].settings_of(VHOST, spec)


class SettingsChecks:
    """Checks of one queue's settings, up to the last fact of its log."""

    def __init__(self, spec: QueueSpec, policy_history: PolicyHistory, group: GroupId) -> None:
        self._spec = spec
        self._policy_history = policy_history
        self._group = group
        self._revision = 0
        self.settings = settings_of(spec)
        self.changes = 0
        """How often there were others."""

    def apply(self, fact: f.SpecChanged) -> None:
        """The queue goes by others from now on."""
        wanted = self._policy_history.at(fact.revision - CLUSTER_REVISIONS, self._spec)
        self.settings = said(fact, self._spec)
        self.changes += 1
        if fact.revision <= self._revision:
            raise Violation(f"rule 17: {fact} of {self._group} comes after {self._revision}")
        if self.settings != wanted:
            raise Violation(f"rule 17: {fact} of {self._group} is to say {wanted}")
        self._revision = fact.revision

    @property
    def is_up_to_date(self) -> bool:
        return self.settings == self._policy_history.now(self._spec)


def said(fact: f.SpecChanged, spec: QueueSpec) -> QueueSettings:
    return settings_on_record(fact.spec, spec)
