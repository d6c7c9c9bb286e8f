"""Options of `fluffle serve` that are about MQTT, a row each; their fields begin with `mqtt_`."""

from __future__ import annotations

from fluffle.broker.config.config import (
    CERT_CLIENT_ID_FROM,
    CERT_NAME_TYPES,
    QUEUE_TYPES,
    MqttConfig,
)
from fluffle.broker.config.option_values import (
    Option,
    between,
    choice,
    limit,
    one_of,
    option,
    or_none,
    parse_count,
    parse_exchange,
    parse_mqtt_string,
    parse_optional_address,
    parse_origins,
    parse_packet_size,
    parse_path,
    parse_size,
    parse_vhost,
    switch,
)

_MQTT = MqttConfig()
_SECONDS = between(0, 0xFFFF_FFFF)
_16_BITS = between(1, 65_535)


def _address(name: str, says: str, field: str) -> Option:
    """Return an option for addresses to listen at; RabbitMQ's file says `none` of some."""
    return option(name, "HOST:PORT", says, parse_optional_address, field, collect=tuple)


LISTENERS: tuple[Option, ...] = (
    _address("mqtt", "Where to accept MQTT clients, usually :1883.", "mqtt_listen"),
    _address("mqtt-tls", "The same with TLS, usually :8883.", "mqtt_tls_listen"),
    _address("mqtt-ws", "The same over websockets, usually :15675.", "mqtt_ws_listen"),
    _address("mqtt-ws-tls", "The same with TLS, usually :15676.", "mqtt_ws_tls_listen"),
    switch("mqtt-proxy-protocol", "As --proxy-protocol, for --mqtt and --mqtt-tls."),
    switch("mqtt-ws-proxy-protocol", "The same for --mqtt-ws and --mqtt-ws-tls."),
    option(
        "mqtt-login-timeout",
        "MS",
        "Time for an MQTT client to log in, in milliseconds.",
        parse_count,
        "mqtt_login_timeout_ms",
    ),
    limit("mqtt-connection-max", "MQTT clients that this node takes.", "mqtt_connections_max"),
    limit("mqtt-ws-connection-max", "Of these, over websockets.", "mqtt_ws_connections_max"),
    option("mqtt-ws-path", "PATH", "Path of the websocket; /mqtt is one, too.", parse_path),
    option(
        "mqtt-ws-max-frame-size",
        "SIZE|none",
        "Largest frame of a websocket; a packet may have many.",
        or_none(parse_size),
        "mqtt_ws_frame_bytes_max",
    ),
    option(
        "mqtt-ws-idle-timeout",
        "MS",
        "Time without a word, nor an answer to a ping, until a websocket is closed.",
        parse_count,
        "mqtt_ws_idle_timeout_ms",
    ),
    option(
        "mqtt-ws-allow-origins",
        "URL,…|all",
        "Sites whose pages may open websockets, such as https://example.org.",
        parse_origins,
        "mqtt_ws_origins",
        default="all",
    ),
)
"""Where MQTT clients come in."""

LOGINS: tuple[Option, ...] = (
    switch(
        "mqtt-allow-anonymous",
        "Whether who gives no user and no password logs in as --anonymous-login-user.",
    ),
    option(
        "anonymous-login-user",
        "NAME|none",
        "That user; --loopback-users counts for him as well.",
        or_none(str),
        "mqtt_anonymous_user",
    ),
    option(
        "anonymous-login-password",
        "TEXT",
        "His password.",
        str,
        "mqtt_anonymous_password",
        is_secret=True,
    ),
    switch(
        "mqtt-cert-login",
        "Whether a certificate logs in who gives neither, as --tls-login-from says.",
    ),
    option(
        "mqtt-cert-client-id-from",
        "WHERE|none",
        f"Where a certificate has what the client id must be: {', '.join(CERT_CLIENT_ID_FROM)}.",
        or_none(choice(*CERT_CLIENT_ID_FROM)),
    ),
    one_of("mqtt-cert-san-type", CERT_NAME_TYPES, "Which kind of alternative name that is."),
    option("mqtt-cert-san-index", "N", "Which one of that kind, from 0.", between(0, 255)),
    option("mqtt-vhost", "NAME", "Virtual host of MQTT clients who name none.", parse_vhost),
    switch(
        "mqtt-ignore-colons-in-user",
        "Whether a user a:b is called that, and is not b in the virtual host a.",
    ),
)
"""Options for the login of MQTT clients."""

SESSIONS: tuple[Option, ...] = (
    option(
        "mqtt-exchange",
        "NAME",
        "Topic exchange that MQTT clients publish to and subscribe at.",
        parse_exchange,
    ),
    one_of(
        "mqtt-durable-queue-type",
        QUEUE_TYPES,
        "Type of queues of sessions that outlive their connection; else quorum in a cluster and "
        "classic on a lone node.",
    ),
    option(
        "mqtt-max-session-expiry",
        "SECONDS|none",
        "How long a session lasts without its client, at most.",
        or_none(_SECONDS),
        "mqtt_session_expiry_s_max",
    ),
    option(
        "mqtt-keep-alive-max",
        "SECONDS|none",
        "The longest keep alive; clients of MQTT 5.0 that want more are told.",
        or_none(_16_BITS),
        "mqtt_keep_alive_s_max",
    ),
    option("mqtt-prefetch", "N", "Messages of QoS 1 and 2 under way to one client.", _16_BITS),
    option("mqtt-receive-maximum", "N", "The same from one client.", _16_BITS, "mqtt_receive_max"),
    option(
        "mqtt-topic-alias-maximum",
        "N",
        "Topic aliases that a client may use, and that are used towards it if it takes some.",
        between(0, 65_535),
        "mqtt_topic_alias_max",
    ),
    option(
        "mqtt-max-packet-size",
        "SIZE",
        "Largest MQTT packet; 128KiB above --max-message-size if nothing is said.",
        parse_packet_size,
        "mqtt_packet_bytes_max",
        default=f"{_MQTT.packet_bytes_max >> 10}KiB",
    ),
    option(
        "mqtt-max-packet-size-unauthenticated",
        "SIZE",
        "The same before a client has logged in.",
        parse_packet_size,
        "mqtt_unauthenticated_packet_bytes_max",
    ),
    option(
        "mqtt-mailbox-soft-limit",
        "N",
        "Messages of QoS 0 that wait for a client which reads too slowly; more are dropped, "
        "with 0 none.",
        between(0, 1 << 31),
    ),
    switch(
        "mqtt-sparkplug", "Whether AMQP clients see spBv1.0 of a topic as spBv1___0, as one level."
    ),
    switch(
        "mqtt-disconnect-on-unauthorized",
        "Whether to disconnect a client that publishes without the right where no packet can say "
        "so: with QoS 0, or before MQTT 5.0; else the message is dropped.",
    ),
    option(
        "mqtt-server-reference",
        "HOST:PORT …",
        "Where a client of MQTT 5.0 may go when this node stops or is put out of service.",
        parse_mqtt_string,
    ),
    option(
        "mqtt-sys-interval",
        "SECONDS",
        "How often figures of the node are sent to who subscribes below $SYS; 0: never.",
        between(0, 86_400),
        "mqtt_sys_interval_s",
    ),
    option(
        "mqtt-response-information",
        "TEXT",
        "What a client of MQTT 5.0 is told that asks for response information.",
        parse_mqtt_string,
    ),
    switch("mqtt-retained", "Whether messages are retained."),
    option(
        "mqtt-max-retained-messages",
        "N",
        "How many are retained in one virtual host.",
        between(0, 1 << 31),
        "mqtt_retained_messages_max",
    ),
    option(
        "mqtt-max-retained-size",
        "SIZE",
        "Size of them all.",
        parse_size,
        "mqtt_retained_bytes_max",
        default=f"{_MQTT.retained_bytes_max >> 30}GiB",
    ),
)
"""Options for the limits and the sessions of MQTT clients."""

MQTT: tuple[Option, ...] = (*LISTENERS, *LOGINS, *SESSIONS)
