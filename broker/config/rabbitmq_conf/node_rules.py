"""Rules about the node itself: its cluster, its queues, its room, its logs, what it begins with.

Also about what it serves over HTTP, and about protocols and plugins that it does not have.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from fluffle.broker.config.config import CLUSTER_PORT, KEEP, OVERWRITE
from fluffle.broker.config.rabbitmq_conf.settings import (
    FALSE,
    TRUE,
    ConfLine,
    ConfSettings,
    IgnoredSetting,
    MappedSetting,
    RefusedSetting,
    Rule,
    Rules,
    Verdict,
    by_word,
    each,
    ignored,
    ignored_unless,
    mapped,
    refused,
    refused_unless,
    to,
)

CLASSIC_CONFIG = ("classic_config", "classic", "config", "rabbit_peer_discovery_classic_config")
KUBERNETES = ("k8s", "kubernetes", "rabbit_peer_discovery_k8s")
DISCOVERY = (
    "nodes are found by cluster_formation.classic_config.nodes.*, or by a headless service of "
    "Kubernetes; a node that finds nobody would be one alone"
)
LEVELS: Mapping[str, str] = {
    "debug": "debug",
    "info": "info",
    "notice": "info",
    "warning": "warning",
    "error": "error",
    "critical": "error",
    "alert": "error",
    "emergency": "error",
    "none": "error",
}
LOCATORS: Mapping[str, str] = {
    "client-local": "client-local",
    "balanced": "balanced",
    "random": "balanced",
    "least-leaders": "balanced",
    "min-masters": "balanced",
}
STANDARD_ERROR = "lines go to standard error; whoever starts the node keeps them"
NOT_FETCHED = "definitions are read from files; fetch them before the start, and name the file"
NOT_ERLANG = "there is no Erlang here"
BUILT_IN = "the log of Raft is kept in another way here"


def own_name(conf: ConfSettings) -> str:
    """Return the name of this node among those of a rabbitmq.conf: that of RabbitMQ there."""
    environment = conf.environment
    host = environment.get("HOSTNAME") or os.uname().nodename
    if environment.get("RABBITMQ_USE_LONGNAME") != TRUE:
        host = host.partition(".")[0]
    name = environment.get("RABBITMQ_NODENAME") or "rabbit"
    return name if "@" in name else f"{name}@{host}"


def classic_node(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map cluster_formation.classic_config.nodes.$: all of them together are --peers."""
    family = ".".join(setting.key[:-1])
    port = conf.environment.get("RABBITMQ_DIST_PORT", str(CLUSTER_PORT))
    nodes = list(dict.fromkeys(conf.below(family).values()))
    if not all(node.partition("@")[2] for node in nodes):
        return RefusedSetting("write NAME@HOST, as in rabbit@node1")
    peers = ",".join(f"{node}={node.partition('@')[2]}:{port}" for node in nodes)
    return mapped(peers=peers, node=own_name(conf), cluster_listen=f":{port}")


def backend(conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.value in CLASSIC_CONFIG:
        return MappedSetting()
    if setting.value not in KUBERNETES:
        return RefusedSetting(DISCOVERY)
    named = conf.value("cluster_formation.k8s.service_name")
    service = named or conf.environment.get("K8S_SERVICE_NAME", "")
    suffix = conf.value("cluster_formation.k8s.hostname_suffix").lstrip(".")
    if not (suffix or service):
        return RefusedSetting("name the headless service with cluster_formation.k8s.service_name")
    port = conf.environment.get("RABBITMQ_DIST_PORT", str(CLUSTER_PORT))
    return mapped(discover=f"{suffix or service}:{port}", cluster_listen=f":{port}")


def in_kubernetes(conf: ConfSettings, _setting: ConfLine) -> Verdict:
    if conf.value("cluster_formation.peer_discovery_backend") in KUBERNETES:
        return backend(conf, conf.settings[("cluster_formation", "peer_discovery_backend")])
    return IgnoredSetting("cluster_formation.peer_discovery_backend is another one")


def memory(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map a share of memory: a size counts before it, and it may be of a total that is given."""
    if setting.key[-1] == "relative":
        if conf.value("vm_memory_high_watermark.absolute"):
            return IgnoredSetting("vm_memory_high_watermark.absolute counts")
        total = conf.value("total_memory_available_override_value")
        if total.isdecimal() and is_share(setting.value):
            return mapped(memory_high_watermark=str(int(float(setting.value) * int(total))))
    return mapped(memory_high_watermark=setting.value)


def total_memory(conf: ConfSettings, setting: ConfLine) -> Verdict:
    if conf.value("vm_memory_high_watermark.absolute"):
        return IgnoredSetting("vm_memory_high_watermark.absolute counts")
    share = conf.value("vm_memory_high_watermark.relative", "0.6")
    if not (setting.value.isdecimal() and is_share(share)):
        return RefusedSetting("write a number of bytes")
    return mapped(memory_high_watermark=str(int(float(share) * int(setting.value))))


def is_share(text: str) -> bool:
    return text.replace(".", "", 1).isdecimal()


def disk(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map a limit relative to memory: a size counts before it."""
    if setting.key[-1] == "absolute":
        return mapped(disk_free_limit=setting.value)
    if conf.value("disk_free_limit.absolute"):
        return IgnoredSetting("disk_free_limit.absolute counts")
    return mapped(disk_free_limit=f"{setting.value}{'' if '.' in setting.value else '.0'}")


def milliseconds(option: str) -> Rule:
    """Map whole seconds to an option in milliseconds."""

    def rule(_conf: ConfSettings, setting: ConfLine) -> Verdict:
        if not setting.value.isdecimal():
            return RefusedSetting("write a number of milliseconds")
        return MappedSetting({option: (str(max(1, round(int(setting.value) / 1_000))),)})

    return rule


def level(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map the level of the console if it has one, else that of the file, else the default."""
    keys = ("log.console.level", "log.file.level", "log.default.level")
    first = next(key for key in keys if conf.value(key))
    if setting.name != first:
        return IgnoredSetting(f"{first} counts")
    word = setting.value.lstrip("=!<")
    if word not in LEVELS:
        return RefusedSetting(f"there is no '{setting.value}'; write {', '.join(LEVELS)}")
    return mapped(log_level=LEVELS[word])


def log_exchange(conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.value == FALSE:
        return mapped(log_exchange="none")
    if setting.value != TRUE:
        return RefusedSetting(f"there is no '{setting.value}'; write {TRUE} or {FALSE}")
    word = conf.value("log.exchange.level") or conf.value("log.default.level", "info")
    if word not in LEVELS:
        return RefusedSetting(f"there is no '{word}'; write {', '.join(LEVELS)}")
    return mapped(log_exchange="none" if word == "none" else LEVELS[word])


def log_exchange_level(conf: ConfSettings, _setting: ConfLine) -> Verdict:
    """Map the level of the log exchange, which counts only where there is that exchange."""
    if conf.value("log.exchange") != TRUE:
        return IgnoredSetting("log.exchange does not say true")
    return log_exchange(conf, conf.settings[("log", "exchange")])


def formatter(conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.key[1] == "file" and conf.value("log.console.formatter"):
        return IgnoredSetting("log.console.formatter counts")
    return by_word("log-format", {"plaintext": "text", "json": "json"})(conf, setting)


def queue_type(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    word = setting.value.removeprefix("rabbit_").removesuffix("_queue")
    if word == "stream":
        return RefusedSetting("there are no streams here; write classic or quorum")
    return mapped(default_queue_type=word)


def definitions(conf: ConfSettings, setting: ConfLine) -> Verdict:
    local = conf.value("definitions.local.path")
    if setting.key != ("definitions", "local", "path") and local and local != setting.value:
        return IgnoredSetting("definitions.local.path counts")
    return mapped(definitions=setting.value)


def import_backend(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    local = ("local_filesystem", "local", "rabbit_definitions_import_local_filesystem")
    return MappedSetting() if setting.value in local else RefusedSetting(NOT_FETCHED)


def stamp(option: str) -> Rule:
    """Rule that sets a stamp to overwrite or to keep the client's header; either way the header is
    set."""
    return by_word(option, {TRUE: OVERWRITE, FALSE: KEEP})


def deprecated(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map permits of deprecated features: what RabbitMQ is about to drop is not dropped here."""
    if setting.value == TRUE:
        return MappedSetting()
    return IgnoredSetting("what it forbids is not forbidden here; see the page on compatibility")


_LOGS = "console exchange syslog file"
_CATEGORIES = "connection channel mirroring queue federation upgrade ra default"
_FORMATS = "time_format level_format single_line plaintext.format json.field_map json.verbosity_map"

RULES: Rules = {
    "cluster_name": to("cluster-name"),
    "cluster_formation.peer_discovery_backend": backend,
    "cluster_formation.classic_config.nodes.$": classic_node,
    "cluster_formation.target_cluster_size_hint": to("cluster-size"),
    "cluster_formation.k8s.service_name": in_kubernetes,
    "cluster_formation.k8s.hostname_suffix": in_kubernetes,
    **each(
        "k8s.** aws.** consul.** etcd.** dns.hostname proxy.**",
        ignored("nodes are not found by asking a service"),
        "cluster_formation.",
    ),
    "cluster_formation.node_type": refused_unless(
        ("disc", "disk"), "every node keeps its data on disk; leave it out"
    ),
    **each(
        "internal_lock_retries lock_retry_limit lock_retry_timeout discovery_retry_limit "
        "discovery_retry_interval registration.enabled",
        ignored("a node looks for the others until it finds them"),
        "cluster_formation.",
    ),
    "cluster_formation.node_cleanup.**": ignored("`fluffle cluster forget` removes a node"),
    "cluster_partition_handling": ignored_unless(
        ("pause_minority",), "who has no majority changes nothing; there is no other way"
    ),
    "cluster_partition_handling.pause_if_all_down.**": ignored("a majority decides, always"),
    **each(
        "cluster_keepalive_interval net_ticktime mnesia_table_loading_retry_timeout "
        "mnesia_table_loading_retry_limit metadata_store.khepri.default_timeout",
        ignored("links and definitions have times of their own"),
    ),
    "cluster_tags.$": ignored("a cluster has no tags"),
    "node_tags.$": ignored("a node has no tags"),
    "distribution.**": ignored("--cluster-listen says where nodes hear each other"),
    "default_queue_type": queue_type,
    "queue_leader_locator": by_word("queue-leader-locator", LOCATORS),
    "queue_master_locator": ignored("a classic queue is where it is declared"),
    "consumer_timeout": to("consumer-timeout"),
    "quorum_queue.initial_cluster_size": to("quorum-initial-group-size"),
    **{
        f"quorum_queue.continuous_membership_reconciliation.{name}": rule
        for name, rule in {
            "enabled": to("quorum-reconciliation"),
            "interval": milliseconds("quorum-reconciliation-interval"),
            "target_group_size": to("quorum-target-group-size"),
            "trigger_interval": ignored("ten seconds after a node has come"),
            "auto_remove": ignored_unless((TRUE,), "members of nodes that were forgotten go"),
        }.items()
    },
    "quorum_queue.compute_checksums": ignored_unless((TRUE,), "all that is on disk has them"),
    "quorum_queue.property_equivalence.relaxed_checks_on_redeclaration": to(
        "quorum-relaxed-redeclare"
    ),
    "classic_queue.default_version": ignored("classic queues are of one kind"),
    "raft.**": ignored(BUILT_IN),
    "vm_memory_high_watermark.relative": memory,
    "vm_memory_high_watermark.absolute": memory,
    "total_memory_available_override_value": total_memory,
    "disk_free_limit.relative": disk,
    "disk_free_limit.absolute": disk,
    **each(
        "vm_memory_high_watermark_paging_ratio memory_monitor_interval "
        "vm_memory_calculation_strategy queue_index_embed_msgs_below "
        "message_store_shutdown_timeout",
        ignored("memory is watched, and messages are on disk, in a way of our own"),
    ),
    **each(
        "vhost_max runtime_parameters.limits.$",
        ignored("there is no such limit; `fluffle vhosts limits` limits the queues of each"),
    ),
    **each(
        "default_policies.operator.$.**",
        refused("make operator policies with definitions; without them nothing would be limited"),
    ),
    "default_limits.vhosts.$.**": refused(
        "set limits of virtual hosts with definitions, or `fluffle vhosts limits`; without them "
        "nothing would be limited"
    ),
    "load_definitions": definitions,
    "management.load_definitions": definitions,
    "definitions.local.path": definitions,
    "definitions.import_backend": import_backend,
    "definitions.skip_if_unchanged": to("definitions-skip-unchanged"),
    "definitions.hashing.algorithm": ignored("SHA-256 is used"),
    "definitions.https.url": refused(NOT_FETCHED),
    "definitions.tls.**": ignored(NOT_FETCHED),
    "product.name": to("product"),
    "product.version": to("product-version"),
    "deprecated_features.permit.$": deprecated,
    "log.console.level": level,
    "log.file.level": level,
    "log.default.level": level,
    "log.console.formatter": formatter,
    "log.file.formatter": formatter,
    "log.console": ignored_unless((TRUE,), STANDARD_ERROR),
    "log.file": ignored_unless((FALSE,), STANDARD_ERROR),
    "log.exchange": log_exchange,
    "log.exchange.level": log_exchange_level,
    "log.exchange.formatter": ignored("lines have the form of those on standard error"),
    **each("dir console.stdio journald syslog", ignored(STANDARD_ERROR), "log."),
    **each("use_colors color_esc_seqs.**", ignored("lines have no colours"), "log.console."),
    **each(
        "syslog.level syslog.formatter journald.level "
        "journald.fields syslog.identity syslog.facility syslog.multiline_mode syslog.ip "
        "syslog.host syslog.port syslog.transport syslog.protocol syslog.ssl_options.**",
        ignored(STANDARD_ERROR),
        "log.",
    ),
    **{
        f"log.{kind}.formatter.{name}": ignored("a line has one form, text or JSON")
        for kind in _LOGS.split()
        for name in _FORMATS.split()
    },
    **{
        f"log.{name}.rotation.**": ignored(STANDARD_ERROR)
        for name in ("file", *_CATEGORIES.split())
    },
    **each(
        " ".join(f"{name}.level {name}.file" for name in _CATEGORIES.split() if name != "default"),
        ignored("all lines have one level, log.console.level"),
        "log.",
    ),
    **each(
        "erlang.K hipe_compile background_gc_enabled background_gc_target_interval "
        "delegate_count default_worker_pool_size sysmon_handler.**",
        ignored(NOT_ERLANG),
    ),
    **each(
        "mirroring_sync_batch_size mirroring_sync_max_throughput",
        ignored("there are no mirrored queues, as in RabbitMQ 4; declare quorum queues"),
    ),
    **each(
        "collect_statistics collect_statistics_interval",
        ignored("what is counted is always up to date"),
    ),
    "vhost_restart_strategy": ignored("a virtual host does not fail alone"),
    "message_interceptors.incoming.set_header_timestamp.overwrite": stamp("set-header-timestamp"),
    "message_interceptors.incoming.set_header_routing_node.overwrite": stamp(
        "set-header-routing-node"
    ),
    "message_interceptors.outgoing.timestamp.enabled": to("set-header-sent-time"),
    "message_interceptors.**": refused("RabbitMQ has no such interceptor; take it out"),
    "motd_file": ignored("there is no message of the day"),
}


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
NO_OAUTH = "there is no login with OAuth; leave it out"


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

SERVED_RULES: Rules = {
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
