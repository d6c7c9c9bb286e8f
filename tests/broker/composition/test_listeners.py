"""Connections of each protocol that clients speak."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from fluffle.broker.composition.listeners import CONNECTIONS_OF, NodeListeners
from fluffle.broker.config.config import ListenAddress
from fluffle.broker.config.listeners import AMQP, LISTENER_KINDS

ADDRESS = ListenAddress("127.0.0.1", 0)


def test_each_kind_of_listener_has_a_protocol_of_the_table() -> None:
    assert CONNECTIONS_OF.keys() == {kind.protocol for kind in LISTENER_KINDS}


async def test_an_unknown_protocol_is_an_error_before_anyone_connects() -> None:
    node: Any = None  # is not looked at by then
    parts: Any = SimpleNamespace(catalogue=SimpleNamespace(node_loss_listeners=[]))
    listeners = NodeListeners(parts, node, node, node, addresses={}, at_end=node)
    with pytest.raises(KeyError, match="amqp-ws"):
        await listeners.open_late(replace(AMQP, protocol="amqp-ws"), ADDRESS)
