"""Options of `fluffle serve`, a row each: their names, texts, parsers and fields of the Config."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from fluffle.broker.base.logs import FORMATS
from fluffle.broker.config.config import (
    AMQP_PORT,
    AUTH_MECHANISMS,
    CLUSTER_PORT,
    DEAD_LETTER_TIMEOUT_S,
    DEFAULT_PASSWORD,
    DEFAULT_USER,
    DEFAULT_VHOST,
    FOUNDERS,
    GROUP_SIZE,
    KEEP,
    LEADER_LOCATORS,
    MEMORY_HIGH_WATERMARK,
    OVERWRITE,
    QUEUE_TYPES,
    RECONCILE_INTERVAL_S,
    Limits,
)
from fluffle.broker.config.mqtt_options import MQTT
from fluffle.broker.config.option_values import (
    Option,
    between,
    choice,
    or_none,
    parse_address,
    parse_client_address,
    parse_count,
    parse_disk_limit,
    parse_limit,
    parse_loopback_users,
    parse_mechanisms,
    parse_message_size,
    parse_name,
    parse_optional_address,
    parse_peers,
    parse_service,
    parse_switch,
    parse_timeout_ms,
    parse_user,
    parse_user_rights,
    parse_user_tags,
    parse_vhost,
    parse_watermark,
)

_LIMITS = Limits()


def _limit(name: str, says: str, field: str) -> Option:
    """Return an option for a number, or for no limit."""
    return Option(name, "N|none", says, parse_limit, f"limits_{field}", "none")


LIMITS: tuple[Option, ...] = (
    Option(
        "heartbeat",
        "SECONDS",
        "Heartbeat that clients are proposed; 0 for none.",
        between(0, 65_535),
        "limits_heartbeat_s",
        str(_LIMITS.heartbeat_s),
    ),
    Option(
        "frame-max",
        "BYTES",
        "Largest frame of a client.",
        between(_LIMITS.frame_bytes_min, 1 << 31),
        "limits_frame_bytes_max",
        str(_LIMITS.frame_bytes_max),
    ),
    Option(
        "channel-max",
        "N",
        "Channels of one connection.",
        between(1, 65_535),
        "limits_channels_max",
        str(_LIMITS.channels_max),
    ),
    _limit("connection-max", "Connections of clients that this node takes.", "connections_max"),
    _limit("consumer-max-per-channel", "Consumers of one channel.", "consumers_max"),
    _limit(
        "cluster-queue-limit",
        "Queues in all virtual hosts; give it to each node of a cluster.",
        "queues_max",
    ),
    _limit(
        "cluster-exchange-limit",
        "The same of exchanges, those included that are there from the start.",
        "exchanges_max",
    ),
    Option(
        "max-message-size",
        "SIZE",
        "Largest message.",
        parse_message_size,
        "limits_message_bytes_max",
        "16MiB",
    ),
    Option(
        "handshake-timeout",
        "MS",
        "Time for a client to log in, in milliseconds.",
        parse_count,
        "limits_handshake_timeout_ms",
        str(_LIMITS.handshake_timeout_ms),
    ),
)
"""Options for the limits of one client; defaults are those of `Limits`."""

STAMPS: tuple[Option, ...] = (
    Option(
        "set-header-timestamp",
        f"{OVERWRITE}|{KEEP}",
        "Tell consumers when a message came: header timestamp_in_ms and property timestamp; "
        "overwrite or keep what the publisher has set.",
        choice(OVERWRITE, KEEP),
        "stamps_received",
    ),
    Option(
        "set-header-routing-node",
        f"{OVERWRITE}|{KEEP}",
        "Tell them which node it came to: header x-routed-by.",
        choice(OVERWRITE, KEEP),
        "stamps_routing_node",
    ),
    Option(
        "set-header-sent-time",
        "yes|no",
        "Tell them when it was sent to them: header x-opt-rabbitmq-sent-time.",
        parse_switch,
        "stamps_sent",
        "no",
        is_switch=True,
    ),
)
"""Options for headers that a node adds to messages."""


LEVELS = ("debug", "info", "warning", "error")
TLS_VERSIONS = ("1.2", "1.3")
TLS_VERIFY = ("none", "request", "require")
TLS_LOGIN_FROM = ("distinguished_name", "common_name", "subject_alternative_name")

OPTIONS: Mapping[str, Option] = {
    option.name: option
    for option in (
        Option("node", "NAME", "Name of this node.", parse_name, "node_name", "fluffle@HOSTNAME"),
        Option("data-dir", "DIR", "Where the node keeps its data.", Path, "data_dir", "data"),
        Option(
            "listen",
            "HOST:PORT",
            "Where to accept AMQP clients; or unix:PATH; or none, for TLS alone.",
            parse_optional_address,
            "listen",
            f":{AMQP_PORT}",
        ),
        Option(
            "also-listen",
            "HOST:PORT",
            "Another address for them.",
            parse_client_address,
            "also_listen",
            collect=tuple,
        ),
        Option(
            "tls-listen",
            "HOST:PORT",
            "Where to accept AMQP clients with TLS, usually :5671.",
            parse_address,
            "tls_listen",
        ),
        Option("tls-cert", "FILE", "Certificate chain for TLS, as PEM.", Path, "tls_cert"),
        Option("tls-key", "FILE", "Its key, if that is in a file of its own.", Path, "tls_key"),
        Option("tls-ca", "FILE", "Who signs the certificates of clients.", Path, "tls_ca"),
        Option(
            "tls-verify",
            "|".join(TLS_VERIFY),
            "Whether clients may or must show a certificate.",
            choice(*TLS_VERIFY),
            "tls_verify",
            "none",
        ),
        Option(
            "tls-login-from",
            "WHERE",
            f"Where EXTERNAL finds the user in a certificate: {', '.join(TLS_LOGIN_FROM)}.",
            choice(*TLS_LOGIN_FROM),
            "tls_login_from",
            "distinguished_name",
        ),
        Option(
            "tls-min-version",
            "|".join(TLS_VERSIONS),
            "The oldest version of TLS that clients may speak.",
            choice(*TLS_VERSIONS),
            "tls_version_min",
            TLS_VERSIONS[0],
        ),
        Option(
            "tls-ciphers",
            "NAME:…",
            "Cipher suites of TLS 1.2, as OpenSSL names them; those of 1.3 are always there.",
            str,
            "tls_ciphers",
        ),
        Option(
            "auth-mechanisms",
            "NAME,…",
            "How clients may log in.",
            parse_mechanisms,
            "auth_mechanisms",
            ",".join(AUTH_MECHANISMS),
        ),
        Option(
            "proxy-protocol",
            "yes|no",
            "Whether AMQP clients come through a proxy that says who they are; "
            "nobody but the proxy may reach the ports then.",
            parse_switch,
            "proxy_protocol",
            "no",
            is_switch=True,
        ),
        *LIMITS,
        *MQTT,
        *STAMPS,
        Option(
            "event-exchange",
            "yes|no",
            "Whether to tell what happens (queue.created, …) to amq.rabbitmq.event in /.",
            parse_switch,
            "event_exchange",
            "no",
            is_switch=True,
        ),
        Option(
            "log-exchange",
            f"none|{'|'.join(LEVELS)}",
            "From which level on lines of the log come to amq.rabbitmq.log, too, in the first "
            "virtual host.",
            or_none(choice(*LEVELS)),
            "log_exchange",
            "none",
        ),
        Option(
            "management",
            "HOST:PORT",
            "Where to serve the management API and its pages, usually :15672.",
            parse_address,
            "management_listen",
        ),
        Option(
            "management-tls",
            "yes|no",
            "Whether that speaks HTTPS alone, with the certificate of --tls-cert.",
            parse_switch,
            "management_tls",
            "no",
            is_switch=True,
        ),
        Option(
            "metrics",
            "HOST:PORT",
            "Where to serve metrics for Prometheus, usually :15692.",
            parse_address,
            "metrics_listen",
        ),
        Option(
            "cluster-listen",
            "HOST:PORT",
            "Where to accept the other nodes of a cluster.",
            parse_address,
            "cluster_listen",
            f":{CLUSTER_PORT}",
        ),
        Option(
            "peers",
            "a=HOST:PORT,…",
            "The nodes that found a cluster, the same for each of them, in the same order; put "
            "those that come later at the end.",
            parse_peers,
            "cluster_peers",
        ),
        Option(
            "discover",
            "SERVICE:PORT",
            "Or find them by DNS: hosts name-0, name-1 … of a headless service.",
            parse_service,
            "cluster_discover",
        ),
        Option(
            "cluster-size",
            "N",
            "How many of these found the cluster.",
            parse_count,
            "cluster_size",
            str(FOUNDERS),
        ),
        Option(
            "cluster-admit",
            "yes|no",
            "Whether a node without data that knows the secret is let in by itself; else by "
            "`fluffle cluster add`.",
            parse_switch,
            "cluster_admit",
            "yes",
            is_switch=True,
        ),
        Option(
            "cluster-secret",
            "TEXT",
            "What the nodes of a cluster share, and nobody else knows.",
            str,
            "cluster_secret",
            is_secret=True,
        ),
        Option(
            "cluster-secret-file", "FILE", "Or a file that holds it.", Path, "cluster_secret_file"
        ),
        Option(
            "cluster-name", "NAME", "Name of the cluster.", parse_name, "cluster_name", "fluffle"
        ),
        Option(
            "cluster-tls-cert",
            "FILE",
            "Certificate chain for TLS between nodes, as PEM.",
            Path,
            "cluster_tls_cert",
        ),
        Option(
            "cluster-tls-key",
            "FILE",
            "Its key, if that is in a file of its own.",
            Path,
            "cluster_tls_key",
        ),
        Option(
            "cluster-tls-ca",
            "FILE",
            "Who signs the certificates of the nodes.",
            Path,
            "cluster_tls_ca",
        ),
        Option(
            "default-queue-type",
            "|".join(QUEUE_TYPES),
            "Type of queues that do not say, in virtual hosts that are made from now on.",
            choice(*QUEUE_TYPES),
            "default_queue_type",
        ),
        Option(
            "queue-leader-locator",
            "|".join(LEADER_LOCATORS),
            "Who leads a new quorum queue that does not say: the node where it is declared, or "
            "whoever leads the fewest.",
            choice(*LEADER_LOCATORS),
            "quorum_leader_locator",
            LEADER_LOCATORS[0],
        ),
        Option(
            "quorum-initial-group-size",
            "N",
            "On how many nodes a new quorum queue is that does not say.",
            parse_count,
            "quorum_initial_group_size",
            str(GROUP_SIZE),
        ),
        Option(
            "quorum-reconciliation",
            "yes|no",
            "Whether quorum queues on fewer nodes than their target size get more members.",
            parse_switch,
            "quorum_reconciliation",
            "no",
            is_switch=True,
        ),
        Option(
            "quorum-reconciliation-interval",
            "SECONDS",
            "Between two looks at that, nodes that come apart.",
            parse_count,
            "quorum_reconciliation_interval_s",
            str(RECONCILE_INTERVAL_S),
        ),
        Option(
            "quorum-target-group-size",
            "N",
            "The least target size of all of them.",
            parse_count,
            "quorum_target_group_size",
        ),
        Option(
            "quorum-dead-letter-timeout",
            "SECONDS",
            "After so long a queue is given again what must arrive there and is not confirmed.",
            parse_count,
            "quorum_dead_letter_timeout_s",
            str(DEAD_LETTER_TIMEOUT_S),
        ),
        Option(
            "consumer-timeout",
            "MS|none",
            "How long a client may hold a message of a quorum queue in milliseconds, if neither it "
            "nor the queue says.",
            parse_timeout_ms,
            "quorum_consumer_timeout_ms",
            "1800000",
        ),
        Option(
            "quorum-global-qos",
            "yes|no",
            "Whether basic.qos with global counts for consumers of quorum queues; RabbitMQ refuses "
            "them.",
            parse_switch,
            "quorum_global_qos",
            "no",
            is_switch=True,
        ),
        Option(
            "quorum-relaxed-redeclare",
            "yes|no",
            "Whether a quorum queue may be declared again as a classic one, by applications that "
            "still do.",
            parse_switch,
            "quorum_relaxed_redeclare",
            "no",
            is_switch=True,
        ),
        Option(
            "user",
            "NAME:PASSWORD",
            "A user besides guest, made at the first start with every right in every virtual host.",
            parse_user,
            "users",
            collect=dict,
            is_secret=True,
        ),
        Option(
            "default-user",
            "NAME",
            "The first of them, in the place of guest.",
            str,
            "first_user",
            DEFAULT_USER,
        ),
        Option(
            "default-password",
            "TEXT",
            "Its password.",
            str,
            "first_password",
            DEFAULT_PASSWORD,
            is_secret=True,
        ),
        Option(
            "default-vhost",
            "NAME",
            "The first virtual host, in the place of /.",
            parse_vhost,
            "first_vhost",
            DEFAULT_VHOST,
        ),
        Option(
            "user-tags",
            "NAME=TAG,…",
            "Tags of a user of the first start, in the place of administrator.",
            parse_user_tags,
            "user_tags",
            collect=dict,
        ),
        Option(
            "user-rights",
            "NAME CONFIGURE WRITE READ [VHOSTS]",
            "What a user of the first start may do, and in which virtual hosts; else everything.",
            parse_user_rights,
            "user_rights",
            collect=dict,
        ),
        Option(
            "vhost",
            "NAME",
            "A virtual host besides /, made at the first start.",
            parse_vhost,
            "vhosts",
            collect=tuple,
        ),
        Option(
            "loopback-users",
            "NAME,…|none",
            "Who may only connect from this machine.",
            parse_loopback_users,
            "loopback_users",
            DEFAULT_USER,
        ),
        Option(
            "definitions",
            "FILE|DIR",
            "Definitions to load at each start, as exported by RabbitMQ; or a directory of such.",
            Path,
            "definitions",
        ),
        Option(
            "definitions-skip-unchanged",
            "yes|no",
            "Whether to load them only if they have changed.",
            parse_switch,
            "definitions_skip_unchanged",
            "no",
            is_switch=True,
        ),
        Option(
            "memory-high-watermark",
            "SHARE|SIZE",
            "Memory, or a share of what there is, above which publishers are paused.",
            parse_watermark,
            "memory_bytes_max",
            str(MEMORY_HIGH_WATERMARK),
        ),
        Option(
            "product", "NAME", "Product that clients are told.", parse_name, "product", "RabbitMQ"
        ),
        Option(
            "product-version", "VERSION", "Its version.", parse_name, "product_version", "4.3.5"
        ),
        Option(
            "disk-free-limit",
            "SIZE|TIMES",
            "Free space below which publishers are paused; 1.5 is 1.5 times the memory.",
            parse_disk_limit,
            "disk_free_bytes_min",
            "50MB",
        ),
        Option(
            "log-format",
            "|".join(FORMATS),
            "How to write log lines.",
            choice(*FORMATS),
            "log_format",
            "text",
        ),
        Option("log-level", "|".join(LEVELS), "What to log.", choice(*LEVELS), "log_level", "info"),
    )
}
