"""Policies of a node, as they are kept, and which one a queue or an exchange falls under.

One of users and one of operators, that with the highest priority of those that find its name and
apply to what it is; policies do not add up.  Of several with equal priority, where RabbitMQ leaves
it open, it is the first by name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from fluffle.broker.base.queue_names import is_delayed_queue
from fluffle.broker.patterns.patterns import Finds, UnusablePattern, compiled
from fluffle.broker.queues.arguments import QueueSpec, QueueType
from fluffle.broker.queues.settings import (
    NO_POLICY,
    EffectivePolicy,
    QueueSettings,
    is_text,
    larger,
    laxer_limit,
    settings_of,
    smaller,
)
from fluffle.broker.routing.exchange import ALTERNATE_EXCHANGE

EVERYWHERE = "^"
"""Meaning of an empty pattern; of a permission it matches nothing."""

ALL = "all"

OPERATOR_POLICY = "operator_policy"
"""The component of parameters that are policies of operators."""


class PolicyTarget(StrEnum):
    """Kind of object that policies apply to: a queue of some type, or an exchange."""

    CLASSIC = "classic"
    QUORUM = "quorum"
    STREAM = "stream"
    EXCHANGE = "exchange"


QUEUES = frozenset({PolicyTarget.CLASSIC, PolicyTarget.QUORUM, PolicyTarget.STREAM})

APPLIES_TO: Mapping[str, frozenset[PolicyTarget]] = {
    ALL: frozenset(PolicyTarget),
    "exchanges": frozenset({PolicyTarget.EXCHANGE}),
    "queues": QUEUES,
    "classic_queues": frozenset({PolicyTarget.CLASSIC}),
    "quorum_queues": frozenset({PolicyTarget.QUORUM}),
    "streams": frozenset({PolicyTarget.STREAM}),
}
"""The words for `apply-to`."""

UNSUPPORTED: Mapping[PolicyTarget, frozenset[str]] = {
    PolicyTarget.CLASSIC: frozenset(
        {
            "max-age",
            "stream-max-segment-size-bytes",
            "initial-cluster-size",
            "delivery-limit",
            "dead-letter-strategy",
            "max-in-memory-length",
            "max-in-memory-bytes",
            "target-group-size",
            "delayed-retry-type",
            "delayed-retry-min",
            "delayed-retry-max",
        }
    ),
    PolicyTarget.QUORUM: frozenset(
        {
            "queue-mode",
            "queue-master-locator",
            "max-age",
            "stream-max-segment-size-bytes",
            "initial-cluster-size",
        }
    ),
}
"""Keys with which a policy does not apply to queues of a type, whatever else it says.

RabbitMQ: `unsupported_policies` of rabbit_classic_queue and rabbit_quorum_queue.
"""


def never(_name: bytes) -> bool:
    return False


@dataclass(frozen=True, slots=True, eq=False)
class Policy:
    """Policy for the queues and exchanges whose names it matches."""

    name: str
    pattern: str
    applies_to: str
    priority: int | float
    definition: EffectivePolicy
    targets: frozenset[PolicyTarget]
    finds: Finds
    """Pattern for the names of queues and exchanges."""


def read_policy(name: str, fields: object) -> Policy:
    """Read a policy as it is kept, which may be unchecked: what cannot be used applies to
    nothing."""
    given: Mapping[str, Any] = fields if isinstance(fields, dict) else {}
    definition, pattern = given.get("definition"), given.get("pattern")
    applies_to, priority = given.get("apply-to", ALL), given.get("priority", 0)
    is_number = isinstance(priority, int | float) and not isinstance(priority, bool)
    policy = Policy(
        name=name,
        pattern=str(pattern),
        applies_to=str(applies_to),
        priority=priority if is_number else 0,
        definition=definition if isinstance(definition, dict) else {},
        targets=frozenset(),
        finds=never,
    )
    try:
        finds = compiled(policy.pattern or EVERYWHERE)
    except UnusablePattern:
        return policy
    targets = frozenset(
        target
        for target in APPLIES_TO.get(policy.applies_to, ())
        if UNSUPPORTED.get(target, frozenset()).isdisjoint(policy.definition)
    )
    return Policy(
        name, policy.pattern, policy.applies_to, policy.priority, policy.definition, targets, finds
    )


MERGED: Mapping[str, Callable[[Any, Any], Any]] = {
    "message-ttl": smaller,
    "expires": smaller,
    "max-length": smaller,
    "max-length-bytes": smaller,
    "max-in-memory-length": smaller,
    "max-in-memory-bytes": smaller,
    "delayed-retry-max": smaller,
    "consumer-timeout": smaller,
    "x-cache-size": smaller,
    "x-cache-ttl": smaller,
    "target-group-size": larger,
    "delayed-retry-min": larger,
    "delivery-limit": laxer_limit,
}
"""How the values of a policy and of an operator's policy are merged, by key; for other keys the
operator's value counts.

RabbitMQ: merge_policy_value of rabbit_policies and rabbit_quorum_queue; 4.3 for delayed keys."""


def merged(policy: EffectivePolicy, operator: EffectivePolicy) -> EffectivePolicy:
    """Merge two definitions, in the order of their keys, as RabbitMQ shows them."""
    both = {**policy, **operator}
    for key in policy.keys() & operator.keys():
        both[key] = merged_value(key, policy[key], operator[key])
    return dict(sorted(both.items()))


def merged_value(key: str, policy: object, operator: object) -> object:
    """Unchecked values may be no numbers: then the operator is right."""
    merge = MERGED.get(key)
    if merge is None or not (isinstance(policy, int) and isinstance(operator, int)):
        return operator
    result: object = merge(policy, operator)
    return result


LEADER_LOCATOR = "queue-leader-locator"
REMEMBERED_MAX = 1 << 14
"""Clients choose the names of queues, so that there must be an end to what is remembered."""


class EffectivePolicies(NamedTuple):
    """Policies in effect for one queue or exchange."""

    policy: Policy | None
    operator_policy: Policy | None
    definition: EffectivePolicy | None
    """Merged definition; None if there are no policies."""


NO_EFFECTIVE_POLICIES = EffectivePolicies(None, None, None)


class PolicySet:
    """Policies of users, or of operators, in one virtual host."""

    def __init__(self) -> None:
        self._by_name: dict[str, Policy] = {}
        self._in_order: tuple[Policy, ...] = ()

    def __iter__(self) -> Iterator[Policy]:
        """Iterate over the policies in the order in which they count."""
        return iter(self._in_order)

    @property
    def count(self) -> int:
        return len(self._in_order)

    def put(self, policy: Policy) -> None:
        """Put a policy in the place of one with its name."""
        self._by_name[policy.name] = policy
        self._sort()

    def remove(self, name: str) -> None:
        self._by_name.pop(name, None)
        self._sort()

    def _sort(self) -> None:
        policies = self._by_name.values()
        self._in_order = tuple(sorted(policies, key=lambda each: (-each.priority, each.name)))

    def first(self, target: PolicyTarget, name: bytes) -> Policy | None:
        """Return the policy that counts for a queue or exchange with that name."""
        for policy in self._in_order:
            if target in policy.targets and policy.finds(name):
                return policy
        return None


class VhostPolicies:
    """Policies of one virtual host."""

    def __init__(self) -> None:
        self.of_users = PolicySet()
        self.of_operators = PolicySet()
        self._merged: dict[tuple[Policy, Policy], EffectivePolicy] = {}
        """Merged definitions of the pairs that occurred."""
        self._remembered: dict[tuple[PolicyTarget, str], EffectivePolicies] = {}
        """Lists ask for each name again and again."""

    @property
    def count(self) -> int:
        return self.of_users.count + self.of_operators.count

    def in_force(self, target: PolicyTarget, name: str) -> EffectivePolicies:
        """Return the policies in force for a queue or an exchange with that name."""
        if not self.count:
            return NO_EFFECTIVE_POLICIES
        key = target, name
        known = self._remembered.get(key)
        if known is None:
            if len(self._remembered) >= REMEMBERED_MAX:
                self._remembered.clear()
            known = self._remembered[key] = self._found(target, name)
        return known

    def _found(self, target: PolicyTarget, name: str) -> EffectivePolicies:
        octets = name.encode(errors="surrogateescape")
        policy = self.of_users.first(target, octets)
        operator = self.of_operators.first(target, octets)
        if policy is None and operator is None:
            return NO_EFFECTIVE_POLICIES
        return EffectivePolicies(policy, operator, self._together(policy, operator))

    def _together(self, policy: Policy | None, operator: Policy | None) -> EffectivePolicy:
        if policy is None or operator is None:
            only = policy or operator
            assert only is not None
            return only.definition
        pair = policy, operator
        if pair not in self._merged:
            self._merged[pair] = merged(policy.definition, operator.definition)
        return self._merged[pair]

    def put(self, policy: Policy) -> None:
        """Put a policy of users."""
        self.of_users.put(policy)
        self._forget()

    def put_operators(self, policy: Policy) -> None:
        """Put an operator policy."""
        self.of_operators.put(policy)
        self._forget()

    def remove(self, name: str) -> None:
        """Remove a policy of users."""
        self.of_users.remove(name)
        self._forget()

    def remove_operators(self, name: str) -> None:
        """Remove an operator policy."""
        self.of_operators.remove(name)
        self._forget()

    def _forget(self) -> None:
        self._merged.clear()
        self._remembered.clear()


class Policies:
    """Policies of a node, by virtual host."""

    def __init__(self) -> None:
        self._by_vhost: dict[str, VhostPolicies] = {}

    def of(self, vhost: str) -> VhostPolicies:
        """Return the policies of a virtual host, none unless some were set."""
        return self._by_vhost.setdefault(vhost, VhostPolicies())

    def count(self, vhost: str) -> int:
        """Return how many a virtual host has."""
        of_vhost = self._by_vhost.get(vhost)
        return of_vhost.count if of_vhost is not None else 0

    def for_queue(self, vhost: str, spec: QueueSpec) -> EffectivePolicies:
        """Return the policies of a queue; those of types that no policy can name have none, nor
        have delayed queues, which are the broker's own."""
        of_vhost = self._by_vhost.get(vhost)
        is_out = is_delayed_queue(spec.name) or spec.queue_type is QueueType.MQTT_QOS0
        if of_vhost is None or is_out:
            return NO_EFFECTIVE_POLICIES
        return of_vhost.in_force(PolicyTarget(spec.queue_type.value), spec.name)

    def for_exchange(self, vhost: str, name: str) -> EffectivePolicies:
        of_vhost = self._by_vhost.get(vhost)
        return (
            NO_EFFECTIVE_POLICIES
            if of_vhost is None
            else of_vhost.in_force(PolicyTarget.EXCHANGE, name)
        )

    def settings_of(self, vhost: str, spec: QueueSpec) -> QueueSettings:
        """Return the effective settings of a queue."""
        return settings_of(spec, self.definition_of(vhost, spec))

    def definition_of(self, vhost: str, spec: QueueSpec) -> EffectivePolicy:
        """Return the merged definition of a queue's policies."""
        return self.for_queue(vhost, spec).definition or NO_POLICY

    def locator_of(self, vhost: str, spec: QueueSpec) -> str | None:
        """Return the leader locator for a queue that is declared now: a word that was checked."""
        locator = (self.for_queue(vhost, spec).definition or NO_POLICY).get(LEADER_LOCATOR)
        return None if locator is None else str(locator)

    def alternate_of(self, vhost: str, exchange: str) -> str | None:
        """Return the alternate exchange of policies, for an exchange whose arguments name none."""
        alternate = (self.for_exchange(vhost, exchange).definition or NO_POLICY).get(
            ALTERNATE_EXCHANGE
        )
        return alternate if isinstance(alternate, str) and is_text(alternate) else None
