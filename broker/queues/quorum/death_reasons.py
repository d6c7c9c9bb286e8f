"""Reasons for which messages die, by their names in facts and in headers."""

from fluffle.broker.queues.quorum.facts import Reason
from fluffle.protocol.deaths import DeathReason

DEATH_REASONS = {
    Reason.REJECTED: DeathReason.REJECTED,
    Reason.EXPIRED: DeathReason.EXPIRED,
    Reason.MAXLEN: DeathReason.MAXLEN,
    Reason.DELIVERY_LIMIT: DeathReason.DELIVERY_LIMIT,
}

REASONS = {death: reason for reason, death in DEATH_REASONS.items()}
