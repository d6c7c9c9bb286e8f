"""Options of `fluffle serve` that are about MQTT, a row each; their fields begin with `mqtt_`."""

from __future__ import annotations

from fluffle.broker.config.config import (
    CERT_CLIENT_ID_FROM,
    CERT_NAME_TYPES,
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    QUEUE_TYPES,
    MqttConfig,
)
from fluffle.broker.config.option_values import (
    Option,
    between,
    choice,
    or_none,
    parse_count,
    parse_exchange,
    parse_limit,
    parse_mqtt_string,
    parse_optional_address,
    parse_origins,
    parse_packet_size,
    parse_path,
    parse_size,
    parse_switch,
    parse_vhost,
    present,
)

_MQTT = MqttConfig()
_SECONDS = between(0, 0xFFFF_FFFF)
_16_BITS = between(1, 65_535)


def _address(name: str, field: str, says: str) -> Option:
    """Return an option for addresses to listen at; RabbitMQ's file says `none` of some."""
    return Option(name, "HOST:PORT", says, parse_optional_address, field, collect=present)


def _switch(name: str, field: str, default: str, says: str) -> Option:
    return Option(name, "yes|no", says, parse_switch, field, default, is_switch=True)


def _limit(name: str, field: str, says: str) -> Option:
    return Option(name, "N|none", says, parse_limit, field, "none")


LISTENERS: tuple[Option, ...] = (
    _address("mqtt", "mqtt_listen", "Where to accept MQTT clients, usually :1883."),
    _address("mqtt-tls", "mqtt_tls_listen", "The same with TLS, usually :8883."),
    _address("mqtt-ws", "mqtt_ws_listen", "The same over websockets, usually :15675."),
    _address("mqtt-ws-tls", "mqtt_ws_tls_listen", "The same with TLS, usually :15676."),
    _switch(
        "mqtt-proxy-protocol",
        "mqtt_proxy_protocol",
        "no",
        "As --proxy-protocol, for --mqtt and --mqtt-tls.",
    ),
    _switch(
        "mqtt-ws-proxy-protocol",
        "mqtt_ws_proxy_protocol",
        "no",
        "The same for --mqtt-ws and --mqtt-ws-tls.",
    ),
    Option(
        "mqtt-login-timeout",
        "MS",
        "Time for an MQTT client to log in, in milliseconds.",
        parse_count,
        "mqtt_login_timeout_ms",
        str(_MQTT.login_timeout_ms),
    ),
    _limit("mqtt-connection-max", "mqtt_connections_max", "MQTT clients that this node takes."),
    _limit("mqtt-ws-connection-max", "mqtt_ws_connections_max", "Of these, over websockets."),
    Option(
        "mqtt-ws-path",
        "PATH",
        "Path of the websocket; /mqtt is one, too.",
        parse_path,
        "mqtt_ws_path",
        _MQTT.ws_path,
    ),
    Option(
        "mqtt-ws-max-frame-size",
        "SIZE|none",
        "Largest frame of a websocket; a packet may have many.",
        or_none(parse_size),
        "mqtt_ws_frame_bytes_max",
        "none",
    ),
    Option(
        "mqtt-ws-idle-timeout",
        "MS",
        "Time without a word, nor an answer to a ping, until a websocket is closed.",
        parse_count,
        "mqtt_ws_idle_timeout_ms",
        str(_MQTT.ws_idle_timeout_ms),
    ),
    Option(
        "mqtt-ws-allow-origins",
        "URL,…|all",
        "Sites whose pages may open websockets, such as https://example.org.",
        parse_origins,
        "mqtt_ws_origins",
        "all",
    ),
)
"""Where MQTT clients come in."""

LOGINS: tuple[Option, ...] = (
    _switch(
        "mqtt-allow-anonymous",
        "mqtt_allow_anonymous",
        "yes",
        "Whether who gives no user and no password logs in as --anonymous-login-user.",
    ),
    Option(
        "anonymous-login-user",
        "NAME|none",
        "That user; --loopback-users counts for him as well.",
        or_none(str),
        "mqtt_anonymous_user",
        DEFAULT_USER,
    ),
    Option(
        "anonymous-login-password",
        "TEXT",
        "His password.",
        str,
        "mqtt_anonymous_password",
        DEFAULT_PASSWORD,
        is_secret=True,
    ),
    _switch(
        "mqtt-cert-login",
        "mqtt_cert_login",
        "no",
        "Whether a certificate logs in who gives neither, as --tls-login-from says.",
    ),
    Option(
        "mqtt-cert-client-id-from",
        "WHERE|none",
        f"Where a certificate has what the client id must be: {', '.join(CERT_CLIENT_ID_FROM)}.",
        or_none(choice(*CERT_CLIENT_ID_FROM)),
        "mqtt_cert_client_id_from",
        "none",
    ),
    Option(
        "mqtt-cert-san-type",
        "|".join(CERT_NAME_TYPES),
        "Which kind of alternative name that is.",
        choice(*CERT_NAME_TYPES),
        "mqtt_cert_san_type",
        _MQTT.cert_san_type,
    ),
    Option(
        "mqtt-cert-san-index",
        "N",
        "Which one of that kind, from 0.",
        between(0, 255),
        "mqtt_cert_san_index",
        str(_MQTT.cert_san_index),
    ),
    Option(
        "mqtt-vhost",
        "NAME",
        "Virtual host of MQTT clients who name none.",
        parse_vhost,
        "mqtt_vhost",
        DEFAULT_VHOST,
    ),
    _switch(
        "mqtt-ignore-colons-in-user",
        "mqtt_ignore_colons_in_user",
        "no",
        "Whether a user a:b is called that, and is not b in the virtual host a.",
    ),
)
"""Options for the login of MQTT clients."""

SESSIONS: tuple[Option, ...] = (
    Option(
        "mqtt-exchange",
        "NAME",
        "Topic exchange that MQTT clients publish to and subscribe at.",
        parse_exchange,
        "mqtt_exchange",
        _MQTT.exchange,
    ),
    Option(
        "mqtt-durable-queue-type",
        "|".join(QUEUE_TYPES),
        "Type of queues of sessions that outlive their connection; else quorum in a cluster and "
        "classic on a lone node.",
        choice(*QUEUE_TYPES),
        "mqtt_durable_queue_type",
    ),
    Option(
        "mqtt-max-session-expiry",
        "SECONDS|none",
        "How long a session lasts without its client, at most.",
        or_none(_SECONDS),
        "mqtt_session_expiry_s_max",
        str(_MQTT.session_expiry_s_max),
    ),
    Option(
        "mqtt-keep-alive-max",
        "SECONDS|none",
        "The longest keep alive; clients of MQTT 5.0 that want more are told.",
        or_none(_16_BITS),
        "mqtt_keep_alive_s_max",
        "none",
    ),
    Option(
        "mqtt-prefetch",
        "N",
        "Messages of QoS 1 and 2 under way to one client.",
        _16_BITS,
        "mqtt_prefetch",
        str(_MQTT.prefetch),
    ),
    Option(
        "mqtt-receive-maximum",
        "N",
        "The same from one client.",
        _16_BITS,
        "mqtt_receive_max",
        str(_MQTT.receive_max),
    ),
    Option(
        "mqtt-topic-alias-maximum",
        "N",
        "Topic aliases that a client may use, and that are used towards it if it takes some.",
        between(0, 65_535),
        "mqtt_topic_alias_max",
        str(_MQTT.topic_alias_max),
    ),
    Option(
        "mqtt-max-packet-size",
        "SIZE",
        "Largest MQTT packet; 128KiB above --max-message-size if nothing is said.",
        parse_packet_size,
        "mqtt_packet_bytes_max",
        f"{_MQTT.packet_bytes_max >> 10}KiB",
    ),
    Option(
        "mqtt-max-packet-size-unauthenticated",
        "SIZE",
        "The same before a client has logged in.",
        parse_packet_size,
        "mqtt_unauthenticated_packet_bytes_max",
        str(_MQTT.unauthenticated_packet_bytes_max),
    ),
    Option(
        "mqtt-mailbox-soft-limit",
        "N",
        "Messages of QoS 0 that wait for a client which reads too slowly; more are dropped, "
        "with 0 none.",
        between(0, 1 << 31),
        "mqtt_mailbox_soft_limit",
        str(_MQTT.mailbox_soft_limit),
    ),
    _switch(
        "mqtt-sparkplug",
        "mqtt_sparkplug",
        "no",
        "Whether AMQP clients see spBv1.0 of a topic as spBv1___0, as one level.",
    ),
    _switch(
        "mqtt-disconnect-on-unauthorized",
        "mqtt_disconnect_on_unauthorized",
        "no",
        "Whether to disconnect who publishes or subscribes without the right; else he is told.",
    ),
    Option(
        "mqtt-server-reference",
        "HOST:PORT …",
        "Where a client of MQTT 5.0 may go when this node stops or is put out of service.",
        parse_mqtt_string,
        "mqtt_server_reference",
    ),
    Option(
        "mqtt-sys-interval",
        "SECONDS",
        "How often figures of the node are sent to who subscribes below $SYS; 0: never.",
        between(0, 86_400),
        "mqtt_sys_interval_s",
        str(_MQTT.sys_interval_s),
    ),
    Option(
        "mqtt-response-information",
        "TEXT",
        "What a client of MQTT 5.0 is told that asks for response information.",
        parse_mqtt_string,
        "mqtt_response_information",
    ),
    _switch("mqtt-retained", "mqtt_retained", "yes", "Whether messages are retained."),
    Option(
        "mqtt-max-retained-messages",
        "N",
        "How many are retained in one virtual host.",
        between(0, 1 << 31),
        "mqtt_retained_messages_max",
        str(_MQTT.retained_messages_max),
    ),
    Option(
        "mqtt-max-retained-size",
        "SIZE",
        "Size of them all.",
        parse_size,
        "mqtt_retained_bytes_max",
        f"{_MQTT.retained_bytes_max >> 30}GiB",
    ),
)
"""Options for the limits and the sessions of MQTT clients."""

MQTT: tuple[Option, ...] = (*LISTENERS, *LOGINS, *SESSIONS)
