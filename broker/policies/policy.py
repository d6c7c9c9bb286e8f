"""Policy as it is kept, and what it can apply to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fluffle.broker.patterns.patterns import Finds, UnusablePattern, compiled
from fluffle.broker.queues.settings import EffectivePolicy

EVERYWHERE = "^"
"""What an empty pattern finds; of a permission it finds nothing."""

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
    """Whether it is for a queue or exchange with this name."""


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
