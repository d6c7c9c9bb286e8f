"""What a policy and an operator's policy say together.

RabbitMQ: merge_policy_value of rabbit_policies and rabbit_quorum_queue; 4.3 for what is delayed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from fluffle.broker.queues.settings import EffectivePolicy, larger, laxer_limit, smaller

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
"""Of other keys it is the operator who is right."""


def merged(policy: EffectivePolicy, operator: EffectivePolicy) -> EffectivePolicy:
    """Both; in the order of their keys, as RabbitMQ shows it."""
    both = {**policy, **operator}
    for key in policy.keys() & operator.keys():
        both[key] = merged_value(key, policy[key], operator[key])
    return dict(sorted(both.items()))


def merged_value(key: str, policy: object, operator: object) -> object:
    """Numbers that nobody has checked may be none: then the operator is right."""
    merge = MERGED.get(key)
    if merge is None or not (isinstance(policy, int) and isinstance(operator, int)):
        return operator
    result: object = merge(policy, operator)
    return result
