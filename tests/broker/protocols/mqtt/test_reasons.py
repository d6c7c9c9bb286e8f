"""Reason codes for errors of the core."""

import pytest

from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    BrokerFailed,
    ConnectionForced,
    QueueDeleted,
    Unreachable,
)
from fluffle.broker.core.connections import forced_close
from fluffle.broker.protocols.mqtt.reasons import code_of
from fluffle.protocol.mqtt.codes import ReasonCode


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (AccessRefused("no"), ReasonCode.NOT_AUTHORIZED),
        (ConnectionForced("bye"), ReasonCode.ADMINISTRATIVE_ACTION),
        (forced_close("shutdown"), ReasonCode.SERVER_SHUTTING_DOWN),
        (QueueDeleted("gone"), ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR),
        (Unreachable("away"), ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR),
        (BrokerFailed(), ReasonCode.UNSPECIFIED_ERROR),
    ],
)
def test_an_error_has_the_code_of_the_nearest_of_its_classes(
    error: BrokerError, code: ReasonCode
) -> None:
    assert code_of(error) is code
