"""Reason codes of MQTT for what the core refuses."""

from __future__ import annotations

from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    ConnectionForced,
    NodeStops,
    NotAllowed,
    NotFound,
    NotImplementedHere,
    PreconditionFailed,
    ResourceLocked,
)
from fluffle.protocol.mqtt.codes import ReasonCode

CODES: dict[type[BrokerError], ReasonCode] = {
    AccessRefused: ReasonCode.NOT_AUTHORIZED,
    NotAllowed: ReasonCode.NOT_AUTHORIZED,
    ResourceLocked: ReasonCode.NOT_AUTHORIZED,
    ConnectionForced: ReasonCode.ADMINISTRATIVE_ACTION,
    NodeStops: ReasonCode.SERVER_SHUTTING_DOWN,
    PreconditionFailed: ReasonCode.QUOTA_EXCEEDED,
    NotFound: ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
    NotImplementedHere: ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR,
}
"""Reason code for each error of the core; all others are `UNSPECIFIED_ERROR`."""

REFUSED_LOGIN = "login was refused, see the log of the broker"
"""Reason that a client gets: what was wrong is for those who may read the log."""

REASON_LENGTH_MAX = 1_000
"""Most characters of a Reason String; the rest of an operator's reason is cut off."""


def code_of(error: BrokerError) -> ReasonCode:
    """Return the reason code for an error of the core, by the nearest of its classes."""
    for kind in type(error).__mro__:
        if kind in CODES:
            return CODES[kind]
    return ReasonCode.UNSPECIFIED_ERROR
