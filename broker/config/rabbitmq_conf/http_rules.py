"""Rules about what is served over HTTP, and about protocols and plugins that are not here."""

from __future__ import annotations

from fluffle.broker.config.rabbitmq_conf.parser import ConfLine
from fluffle.broker.config.rabbitmq_conf.verdicts import (
    FALSE,
    ConfSettings,
    MappedSetting,
    RefusedSetting,
    Rule,
    Rules,
    Verdict,
    each,
    ignored,
    ignored_unless,
    refused,
    refused_unless,
)

MANAGEMENT, METRICS = "management", "metrics"
"""The options for the two, and …"""
PORTS = {MANAGEMENT: "15672", METRICS: "15692"}
"""… where RabbitMQ serves them if nothing is said."""

CLEAR = (
    "it is served in the clear, and passwords with it; put a proxy that speaks TLS in front, let "
    "it alone reach the port, and leave this out"
)
ENCRYPTED = (
    "--management-tls has it served with the certificate of ssl_options: write the same certfile "
    "and keyfile in both, or give that and leave this out"
)
NOT_VERIFIED = "who asks it shows a password, no certificate"
ENCRYPTED_PORT = "15671"
ALONE = "it is served by HTTPS or in the clear, not both; leave out management.tcp, or this"
TUNING = "the server has times and limits of its own"
NO_OAUTH = "nobody logs in with OAuth here; leave it out"


def served(option: str, family: str) -> Rule:
    """HOST:PORT, of two keys."""

    def rule(conf: ConfSettings, _setting: ConfLine) -> Verdict:
        host = conf.value(f"{family}.ip")
        host = f"[{host}]" if ":" in host and not host.startswith("[") else host
        port = conf.value(f"{family}.port", PORTS[option])
        return MappedSetting({option: (f"{host}:{port}",)})

    return rule


def served_encrypted(conf: ConfSettings, _setting: ConfLine) -> Verdict:
    """HOST:PORT and HTTPS alone, with the certificate of ssl_options."""
    if any(conf.value(f"management.tcp.{name}") for name in ("ip", "port")):
        return RefusedSetting(ALONE)
    for name in ("certfile", "keyfile"):
        shared = conf.value(f"ssl_options.{name}")
        if not shared or conf.value(f"management.ssl.{name}", shared) != shared:
            return RefusedSetting(ENCRYPTED)
    host = conf.value("management.ssl.ip")
    host = f"[{host}]" if ":" in host and not host.startswith("[") else host
    address = f"{host}:{conf.value('management.ssl.port', ENCRYPTED_PORT)}"
    return MappedSetting({MANAGEMENT: (address,), "management-tls": ("yes",)})


_TUNING = "compress idle_timeout inactivity_timeout request_timeout shutdown_timeout max_keepalive"

RULES: Rules = {
    **{
        f"{family}.{name}": served(option, family)
        for option, family in (
            (MANAGEMENT, "management.tcp"),
            (MANAGEMENT, "management.listener"),
            (METRICS, "prometheus.tcp"),
        )
        for name in ("ip", "port")
    },
    **each(_TUNING, ignored(TUNING), "management.tcp."),
    **each(_TUNING, ignored(TUNING), "prometheus.tcp."),
    **each(_TUNING, ignored(TUNING), "management.listener.server."),
    "prometheus.tcp.listener": ignored("prometheus.tcp.port and .ip say where"),
    **each("ip port certfile keyfile", served_encrypted, "management.ssl."),
    "management.ssl.verify": refused_unless(("verify_none",), NOT_VERIFIED),
    "management.ssl.fail_if_no_peer_cert": refused_unless((FALSE,), NOT_VERIFIED),
    "management.ssl.cacertfile": ignored(NOT_VERIFIED),
    "management.ssl.**": refused(ENCRYPTED),
    "management.listener.ssl": refused_unless((FALSE,), ENCRYPTED),
    "management.listener.ssl_opts": refused(ENCRYPTED),
    "management.listener.ssl_opts.**": refused(ENCRYPTED),
    "prometheus.ssl.**": refused(CLEAR),
    "prometheus.authentication.enabled": refused_unless(
        (FALSE,), "metrics are for all who reach the port; guard the port, and leave this out"
    ),
    "prometheus.path": ignored_unless(("/metrics",), "the path is /metrics"),
    "prometheus.return_per_object_metrics": ignored_unless(
        (FALSE,), "they are at /metrics/per-object"
    ),
    "prometheus.filter_aggregated_queue_metrics_pattern": ignored("all queues are counted"),
    **each(
        "disable_metrics_collector filter_aggregated_queue_metrics_pattern",
        ignored("what is counted is always counted"),
        "management_agent.",
    ),
    "management.path_prefix": ignored("paths begin with /api; let a proxy add a prefix"),
    "management.disable_basic_auth": refused_unless((FALSE,), "there is no other way to log in"),
    **each(
        "oauth_enabled oauth_disable_basic_auth", refused_unless((FALSE,), NO_OAUTH), "management."
    ),
    **each(
        "oauth_provider_url oauth_client_id oauth_client_secret oauth_response_type oauth_scopes "
        "oauth_metadata_url oauth_initiated_logon_type oauth_resource_servers.$.**",
        ignored(NO_OAUTH),
        "management.",
    ),
    **each(
        "operator_policy_changes.disabled quorum_queue_replica_operations.disabled",
        refused_unless((FALSE,), "who is an administrator may do it; give fewer that tag"),
        "management.restrictions.",
    ),
    **each(
        "cors.allow_origins cors.allow_origins.$ cors.max_age csp.policy hsts.policy "
        "headers.content_type_options headers.xss_protection headers.frame_options",
        ignored("other sites are never let in, and the headers are as strict as they can be"),
        "management.",
    ),
    **each(
        "http_log_dir http.max_body_size login_session_timeout db_cache_multiplier disable_stats "
        "enable_queue_totals rates_mode sample_retention_policies.$.$",
        ignored("pages and answers are always up to date and have limits of their own"),
        "management.",
    ),
    **each("stomp.** web_stomp.**", ignored("there is no STOMP here")),
    "stream.**": ignored("there are no streams here"),
    "shovel.**": ignored("there are no shovels here"),
    "tracing.**": ignored("`fluffle vhosts trace` copies messages; nothing writes them to files"),
    "aws.**": ignored("nothing here asks AWS"),
    "event_exchange.vhost": ignored_unless(("/",), "--event-exchange switches it on, in / alone"),
}
