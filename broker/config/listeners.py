"""Listeners for clients: where each protocol is spoken, and what RabbitMQ calls that.

`composition.listeners` makes the connections of each protocol; lists of a node show these names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from fluffle.broker.config.config import Config, ListenAddress


class Addresses(NamedTuple):
    """Addresses of the listeners of one kind that a node is to have."""

    all: tuple[ListenAddress, ...]
    is_proxied: bool
    """True if a PROXY header comes first."""


@dataclass(frozen=True, slots=True)
class ListenerKind:
    """Kind of listener: a protocol, in the clear or encrypted."""

    name: str
    """Name of the first address among those of a node; further ones are `name-2` and so on."""
    shown: str
    """RabbitMQ's name of it."""
    protocol: str
    """Protocol of its connections: a key of `CONNECTIONS_OF` in `composition.listeners`."""
    option: str
    """Option that sets its addresses."""
    addresses: Callable[[Config], Addresses]
    is_encrypted: bool = False
    verifies: bool = True
    """True if certificates of clients are verified, if the node wants that at all."""


def amqp_addresses(config: Config) -> Addresses:
    """Return where clients without TLS come in."""
    addresses = (*optional(config.listen), *config.also_listen)
    return Addresses(addresses, config.proxy_protocol)


def optional(address: ListenAddress | None) -> tuple[ListenAddress, ...]:
    return () if address is None else (address,)


AMQP = ListenerKind(
    "amqp", shown="amqp", protocol="amqp", option="listen", addresses=amqp_addresses
)
AMQP_TLS = ListenerKind(
    "amqps",
    shown="amqp/ssl",
    protocol="amqp",
    option="tls-listen",
    addresses=lambda config: Addresses(optional(config.tls_listen), config.proxy_protocol),
    is_encrypted=True,
)
MQTT = ListenerKind(
    "mqtt",
    shown="mqtt",
    protocol="mqtt",
    option="mqtt",
    addresses=lambda config: Addresses(config.mqtt.listen, config.mqtt.proxy_protocol),
)
MQTT_TLS = ListenerKind(
    "mqtts",
    shown="mqtt/ssl",
    protocol="mqtt",
    option="mqtt-tls",
    addresses=lambda config: Addresses(config.mqtt.tls_listen, config.mqtt.proxy_protocol),
    is_encrypted=True,
)
WEB_MQTT = ListenerKind(
    "mqtt-ws",
    shown="http/web-mqtt",
    protocol="web-mqtt",
    option="mqtt-ws",
    addresses=lambda config: Addresses(config.mqtt.ws_listen, config.mqtt.ws_proxy_protocol),
)
WEB_MQTT_TLS = ListenerKind(
    "mqtt-wss",
    shown="https/web-mqtt",
    protocol="web-mqtt",
    option="mqtt-ws-tls",
    addresses=lambda config: Addresses(config.mqtt.ws_tls_listen, config.mqtt.ws_proxy_protocol),
    is_encrypted=True,
    verifies=False,
)

LISTENER_KINDS = (AMQP, AMQP_TLS, MQTT, MQTT_TLS, WEB_MQTT, WEB_MQTT_TLS)
"""In the order in which they are opened.

A new protocol is written on `core/`: `socket_connection` and `input_queue` (reading), `Session` (a
user in a virtual host), `Publisher` (its docstring has an example), `Settlements`, and `consumer`
(likewise), with a `ClientSink`: that is a `Subscription`, unless it keeps what it is given.  A
connection of it is a `core.client.Client`.  It needs, beside its kinds here and its packages
`protocol/NAME` and `protocols/NAME` (test_listeners in tests/broker/config and in
tests/broker/composition say which of the tables have not got its kinds):

- `CONNECTIONS_OF` in `composition/listeners`: what accepts its connections;
- its handler of publishes: it asks `services.alarms.reason` first, and blocks its connection while
  there is one (`mqtt/packet_handlers` shows how), and it turns `base/errors` into its own answers;
- its name and version in events, `erlang_version` in `core/client_events`; its labels in metrics,
  the `TrafficLabels` of its clients (`base/traffic`), shown from its first listener on;
- its options: a part of `Config` (`with_mqtt` in `config/options` and `GROUPS` in
  `config/option_values` show how one is made), rows in `option_table`, and keys of rabbitmq.conf,
  in `rabbitmq_conf/client_rules`, which `rabbitmq_conf/node_rules` may ignore so far;
- its certificates: `check_named` (`daemon/config`) and `has_certificates` (`daemon/daemon`);
- what else names protocols: `CLIENT_PLUGINS` (`admin/nodes`), `PROTOCOLS` (`cli/rabbitmq/nodes`),
  `PROTOCOL_ALIASES` (`base/features`), `PLUGINS` in both `rabbitmq_conf/sources` and
  `cli/rabbitmq/features`, and `OTHER_PROTOCOLS` in `amqp091/event_handlers`, for who comes to the
  wrong port;
- the list of its connections, if RabbitMQ has a command for it: `cli/rabbitmq/objects`;
- in `pyproject.toml` its packages, and the contracts: layers, and that protocols do not know each
  other.
"""


class ClientListener(NamedTuple):
    """Address at which clients are accepted, with its name among those of the node."""

    name: str
    kind: ListenerKind
    address: ListenAddress
    is_proxied: bool


def listeners_of(config: Config) -> Iterator[ClientListener]:
    """All addresses for clients that are wanted, in the order in which they are opened."""
    for kind in LISTENER_KINDS:
        addresses, is_proxied = kind.addresses(config)
        for n, address in enumerate(addresses, 1):
            name = f"{kind.name}-{n}" if n > 1 else kind.name
            yield ClientListener(name, kind, address, is_proxied)


def kind_of(name: str) -> ListenerKind | None:
    """Return the kind of an address of a node; None if it is not for clients."""
    bare, _, number = name.rpartition("-")
    kind = bare if number.isdecimal() else name
    return next((each for each in LISTENER_KINDS if each.name == kind), None)
