"""Options of `fluffle serve`, a row each: their names, texts, parsers and fields of the Config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fluffle.broker.base.logs import FORMATS
from fluffle.broker.config.config import (
    AMQP_PORT,
    AUTH_MECHANISMS,
    CERT_CLIENT_ID_FROM,
    CERT_NAME_TYPES,
    CLUSTER_PORT,
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    FOUNDERS,
    KEEP,
    LEADER_LOCATORS,
    MEMORY_HIGH_WATERMARK,
    OVERWRITE,
    QUEUE_TYPES,
    Limits,
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
    parse_address,
    parse_client_address,
    parse_count,
    parse_disk_limit,
    parse_exchange,
    parse_loopback_users,
    parse_mechanisms,
    parse_message_size,
    parse_mqtt_string,
    parse_name,
    parse_optional_address,
    parse_origins,
    parse_packet_size,
    parse_path,
    parse_peers,
    parse_service,
    parse_size,
    parse_timeout_ms,
    parse_user,
    parse_user_rights,
    parse_user_tags,
    parse_vhost,
    parse_watermark,
    switch,
)

_MQTT = MqttConfig()
_SECONDS = between(0, 0xFFFF_FFFF)
_16_BITS = between(1, 65_535)


def _address(name: str, says: str, field: str) -> Option:
    """Return an option for addresses to listen at; RabbitMQ's file says `none` of some."""
    return option(name, "HOST:PORT", says, parse_optional_address, field, collect=tuple)


MQTT_LISTENERS: tuple[Option, ...] = (
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

MQTT_LOGINS: tuple[Option, ...] = (
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

MQTT_SESSIONS: tuple[Option, ...] = (
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
        "The longest keep alive; CONNACK of MQTT 5.0 has it as Server Keep Alive if more is asked.",
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
        "Response Information in CONNACK, for clients of MQTT 5.0 that request it.",
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

MQTT: tuple[Option, ...] = (*MQTT_LISTENERS, *MQTT_LOGINS, *MQTT_SESSIONS)


_LIMITS = Limits()


LIMITS: tuple[Option, ...] = (
    option(
        "heartbeat",
        "SECONDS",
        "Heartbeat that clients are proposed; 0 for none.",
        between(0, 65_535),
        "limits_heartbeat_s",
    ),
    option(
        "frame-max",
        "BYTES",
        "Largest frame of a client.",
        between(_LIMITS.frame_bytes_min, 1 << 31),
        "limits_frame_bytes_max",
    ),
    option(
        "channel-max", "N", "Channels of one connection.", between(1, 65_535), "limits_channels_max"
    ),
    limit(
        "connection-max", "Connections of clients that this node takes.", "limits_connections_max"
    ),
    limit("consumer-max-per-channel", "Consumers of one channel.", "limits_consumers_max"),
    limit(
        "cluster-queue-limit",
        "Queues in all virtual hosts; give it to each node of a cluster.",
        "limits_queues_max",
    ),
    limit(
        "cluster-exchange-limit",
        "The same of exchanges, those included that are there from the start.",
        "limits_exchanges_max",
    ),
    option(
        "max-message-size",
        "SIZE",
        "Largest message.",
        parse_message_size,
        "limits_message_bytes_max",
        default="16MiB",
    ),
    option(
        "handshake-timeout",
        "MS",
        "Time for a client to log in, in milliseconds.",
        parse_count,
        "limits_handshake_timeout_ms",
    ),
)
"""Options for the limits of one client; defaults are those of `Limits`."""

STAMPS: tuple[Option, ...] = (
    one_of(
        "set-header-timestamp",
        (OVERWRITE, KEEP),
        "Tell consumers when a message came: header timestamp_in_ms and property timestamp; "
        "overwrite or keep what the publisher has set.",
        "stamps_received",
    ),
    one_of(
        "set-header-routing-node",
        (OVERWRITE, KEEP),
        "Tell them which node it came to: header x-routed-by.",
        "stamps_routing_node",
    ),
    switch(
        "set-header-sent-time",
        "Tell them when it was sent to them: header x-opt-rabbitmq-sent-time.",
        "stamps_sent",
    ),
)
"""Options for headers that a node adds to messages."""


LEVELS = ("debug", "info", "warning", "error")
TLS_VERSIONS = ("1.2", "1.3")
TLS_VERIFY = ("none", "request", "require")
TLS_LOGIN_FROM = ("distinguished_name", "common_name", "subject_alternative_name")

OPTIONS: Mapping[str, Option] = {
    each.name: each
    for each in (
        option(
            "node",
            "NAME",
            "Name of this node.",
            parse_name,
            "node_name",
            default="fluffle@HOSTNAME",
        ),
        option("data-dir", "DIR", "Where the node keeps its data.", Path),
        option(
            "listen",
            "HOST:PORT",
            "Where to accept AMQP clients; or unix:PATH; or none, for TLS alone.",
            parse_optional_address,
            default=f":{AMQP_PORT}",
        ),
        option(
            "also-listen",
            "HOST:PORT",
            "Another address for them.",
            parse_client_address,
            collect=tuple,
        ),
        option(
            "tls-listen",
            "HOST:PORT",
            "Where to accept AMQP clients with TLS, usually :5671.",
            parse_address,
        ),
        option("tls-cert", "FILE", "Certificate chain for TLS, as PEM.", Path),
        option("tls-key", "FILE", "Its key, if that is in a file of its own.", Path),
        option("tls-ca", "FILE", "Who signs the certificates of clients.", Path),
        one_of("tls-verify", TLS_VERIFY, "Whether clients may or must show a certificate."),
        option(
            "tls-login-from",
            "WHERE",
            f"Where EXTERNAL finds the user in a certificate: {', '.join(TLS_LOGIN_FROM)}.",
            choice(*TLS_LOGIN_FROM),
        ),
        one_of(
            "tls-min-version",
            TLS_VERSIONS,
            "The oldest version of TLS that clients may speak.",
            "tls_version_min",
        ),
        option(
            "tls-ciphers",
            "NAME:…",
            "Cipher suites of TLS 1.2, as OpenSSL names them; those of 1.3 are always there.",
            str,
        ),
        option(
            "auth-mechanisms",
            "NAME,…",
            "How clients may log in.",
            parse_mechanisms,
            default=",".join(AUTH_MECHANISMS),
        ),
        switch(
            "proxy-protocol",
            "Whether AMQP clients come through a proxy that says who they are; "
            "nobody but the proxy may reach the ports then.",
        ),
        *LIMITS,
        *MQTT,
        *STAMPS,
        switch(
            "event-exchange",
            "Whether to tell what happens (queue.created, …) to amq.rabbitmq.event in /.",
        ),
        option(
            "log-exchange",
            f"none|{'|'.join(LEVELS)}",
            "From which level on lines of the log come to amq.rabbitmq.log, too, in the first "
            "virtual host.",
            or_none(choice(*LEVELS)),
        ),
        option(
            "management",
            "HOST:PORT",
            "Where to serve the management API and its pages, usually :15672.",
            parse_address,
            "management_listen",
        ),
        switch(
            "management-tls", "Whether that speaks HTTPS alone, with the certificate of --tls-cert."
        ),
        option(
            "metrics",
            "HOST:PORT",
            "Where to serve metrics for Prometheus, usually :15692.",
            parse_address,
            "metrics_listen",
        ),
        option(
            "cluster-listen",
            "HOST:PORT",
            "Where to accept the other nodes of a cluster.",
            parse_address,
            default=f":{CLUSTER_PORT}",
        ),
        option(
            "peers",
            "a=HOST:PORT,…",
            "The nodes that found a cluster, the same for each of them, in the same order; put "
            "those that come later at the end.",
            parse_peers,
            "cluster_peers",
        ),
        option(
            "discover",
            "SERVICE:PORT",
            "Or find them by DNS: hosts name-0, name-1 … of a headless service.",
            parse_service,
            "cluster_discover",
        ),
        option(
            "cluster-size",
            "N",
            "How many of these found the cluster.",
            parse_count,
            default=str(FOUNDERS),
        ),
        switch(
            "cluster-admit",
            "Whether a node without data that knows the secret is let in by itself; else by "
            "`fluffle cluster add`.",
        ),
        option(
            "cluster-secret",
            "TEXT",
            "What the nodes of a cluster share, and nobody else knows.",
            str,
            is_secret=True,
        ),
        option("cluster-secret-file", "FILE", "Or a file that holds it.", Path),
        option("cluster-name", "NAME", "Name of the cluster.", parse_name),
        option(
            "cluster-tls-cert", "FILE", "Certificate chain for TLS between nodes, as PEM.", Path
        ),
        option("cluster-tls-key", "FILE", "Its key, if that is in a file of its own.", Path),
        option("cluster-tls-ca", "FILE", "Who signs the certificates of the nodes.", Path),
        one_of(
            "default-queue-type",
            QUEUE_TYPES,
            "Type of queues that do not say, in virtual hosts that are made from now on.",
        ),
        one_of(
            "queue-leader-locator",
            LEADER_LOCATORS,
            "Who leads a new quorum queue that does not say: the node where it is declared, or "
            "whoever leads the fewest.",
            "quorum_leader_locator",
        ),
        option(
            "quorum-initial-group-size",
            "N",
            "On how many nodes a new quorum queue is that does not say.",
            parse_count,
        ),
        switch(
            "quorum-reconciliation",
            "Whether quorum queues on fewer nodes than their target size get more members.",
        ),
        option(
            "quorum-reconciliation-interval",
            "SECONDS",
            "Between two looks at that, nodes that come apart.",
            parse_count,
            "quorum_reconciliation_interval_s",
        ),
        option(
            "quorum-target-group-size", "N", "The least target size of all of them.", parse_count
        ),
        option(
            "quorum-dead-letter-timeout",
            "SECONDS",
            "After so long a queue is given again what must arrive there and is not confirmed.",
            parse_count,
            "quorum_dead_letter_timeout_s",
        ),
        option(
            "consumer-timeout",
            "MS|none",
            "How long a client may hold a message of a quorum queue in milliseconds, if neither it "
            "nor the queue says.",
            parse_timeout_ms,
            "quorum_consumer_timeout_ms",
        ),
        switch(
            "quorum-global-qos",
            "Whether basic.qos with global counts for consumers of quorum queues; RabbitMQ refuses "
            "them.",
        ),
        switch(
            "quorum-relaxed-redeclare",
            "Whether a quorum queue may be declared again as a classic one, by applications that "
            "still do.",
        ),
        option(
            "user",
            "NAME:PASSWORD",
            "A user besides guest, made at the first start with every right in every virtual host.",
            parse_user,
            "users",
            collect=dict,
            is_secret=True,
        ),
        option(
            "default-user",
            "NAME",
            "The first of them, in the place of guest.",
            str,
            "first_user",
            default=DEFAULT_USER,
        ),
        option(
            "default-password",
            "TEXT",
            "Its password.",
            str,
            "first_password",
            default=DEFAULT_PASSWORD,
            is_secret=True,
        ),
        option(
            "default-vhost",
            "NAME",
            "The first virtual host, in the place of /.",
            parse_vhost,
            "first_vhost",
            default=DEFAULT_VHOST,
        ),
        option(
            "user-tags",
            "NAME=TAG,…",
            "Tags of a user of the first start, in the place of administrator.",
            parse_user_tags,
            collect=dict,
        ),
        option(
            "user-rights",
            "NAME CONFIGURE WRITE READ [VHOSTS]",
            "What a user of the first start may do, and in which virtual hosts; else everything.",
            parse_user_rights,
            collect=dict,
        ),
        option(
            "vhost",
            "NAME",
            "A virtual host besides /, made at the first start.",
            parse_vhost,
            "vhosts",
            collect=tuple,
        ),
        option(
            "loopback-users",
            "NAME,…|none",
            "Who may only connect from this machine.",
            parse_loopback_users,
            default=DEFAULT_USER,
        ),
        option(
            "definitions",
            "FILE|DIR",
            "Definitions to load at each start, as exported by RabbitMQ; or a directory of such.",
            Path,
        ),
        switch("definitions-skip-unchanged", "Whether to load them only if they have changed."),
        option(
            "memory-high-watermark",
            "SHARE|SIZE",
            "Memory, or a share of what there is, above which publishers are paused.",
            parse_watermark,
            "memory_bytes_max",
            default=str(MEMORY_HIGH_WATERMARK),
        ),
        option(
            "product",
            "NAME",
            "Product that the broker names to clients.",
            parse_name,
        ),
        option("product-version", "VERSION", "Its version.", parse_name),
        option(
            "disk-free-limit",
            "SIZE|TIMES",
            "Free space below which publishers are paused; 1.5 is 1.5 times the memory.",
            parse_disk_limit,
            "disk_free_bytes_min",
            default="50MB",
        ),
        one_of("log-format", tuple(FORMATS), "How to write log lines."),
        one_of("log-level", LEVELS, "What to log."),
    )
}
