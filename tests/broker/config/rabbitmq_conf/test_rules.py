"""Mapping of the settings in a rabbitmq.conf."""

import pytest

from fluffle.broker.config.rabbitmq_conf.settings import (
    ConfLine,
    ConfSettings,
    IgnoredSetting,
    MappedSetting,
    RefusedSetting,
)
from fluffle.broker.config.rabbitmq_conf.sources import RULES
from tests.support.rabbitmq_conf import FILE, options, verdicts

SHARED = "ssl_options.certfile = /c\nssl_options.keyfile = /k\n"
FILES = {"tls-cert": "/c", "tls-key": "/k"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("listeners.tcp.default = 5673", {"listen": ":5673"}),
        ("listeners.tcp.1 = 127.0.0.1:5673", {"listen": "127.0.0.1:5673"}),
        ("listeners.tcp.1 = ::1:5673", {"listen": "[::1]:5673"}),
        ("listeners.tcp.1 = [::1]:5673", {"listen": "[::1]:5673"}),
        ("listeners.tcp = none", {"listen": "none"}),
        (
            "listeners.tcp.1 = 127.0.0.1:5672\nlisteners.tcp.2 = ::1:5672",
            {"listen": "127.0.0.1:5672", "also-listen": "[::1]:5672"},
        ),
        ("listeners.ssl.default = 5671", {"tls-listen": ":5671"}),
        ("ssl_options = none", {}),
        ("ssl_options.verify = verify_none", {"tls-verify": "none"}),
        ("ssl_options.verify = verify_peer", {"tls-verify": "request"}),
        (
            "ssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true",
            {"tls-verify": "require"},
        ),
        ("ssl_options.versions.1 = tlsv1.3", {"tls-min-version": "1.3"}),
        (
            "ssl_options.ciphers.10 = B\nssl_options.ciphers.2 = A",
            {"tls-ciphers": "A:B"},
        ),
        ("ssl_cert_login_from = subject_alt_name", {"tls-login-from": "subject_alternative_name"}),
        ("auth_mechanisms.1 = plain", {"auth-mechanisms": "PLAIN"}),
        ("auth_backends.1 = internal", {}),
        ("loopback_users = none", {"loopback-users": "none"}),
        ("loopback_users.guest = false", {"loopback-users": "none"}),
        ("loopback_users.a = true\nloopback_users.b = true", {"loopback-users": "a,b"}),
        ("frame_max = 128kb", {"frame-max": "131072"}),
        ("channel_max = 0", {"channel-max": "65535"}),
        ("connection_max = infinity", {"connection-max": "none"}),
        ("handshake_timeout = 5000", {"handshake-timeout": "5000"}),
        ("max_message_size = 134217728", {"max-message-size": "134217728"}),
        ("vm_memory_high_watermark.relative = 0.4", {"memory-high-watermark": "0.4"}),
        ("vm_memory_high_watermark.absolute = 2GiB", {"memory-high-watermark": "2GiB"}),
        ("total_memory_available_override_value = 1000", {"memory-high-watermark": "600"}),
        ("disk_free_limit.relative = 2", {"disk-free-limit": "2.0"}),
        ("disk_free_limit.absolute = 1GB", {"disk-free-limit": "1GB"}),
        ("default_queue_type = rabbit_quorum_queue", {"default-queue-type": "quorum"}),
        ("queue_leader_locator = least-leaders", {"queue-leader-locator": "balanced"}),
        ("load_definitions = /d.json", {"definitions": "/d.json"}),
        ("definitions.import_backend = local_filesystem", {}),
        ("definitions.local.path = /d", {"definitions": "/d"}),
        ("definitions.skip_if_unchanged = true", {"definitions-skip-unchanged": "true"}),
        ("management.tcp.port = 15673", {"management": ":15673"}),
        (
            SHARED + "management.ssl.port = 15673",
            {**FILES, "management": ":15673", "management-tls": "yes"},
        ),
        (
            SHARED + "management.ssl.ip = ::1\nmanagement.ssl.certfile = /c\n"
            "management.ssl.keyfile = /k\nmanagement.ssl.verify = verify_none",
            {**FILES, "management": "[::1]:15671", "management-tls": "yes"},
        ),
        ("prometheus.tcp.ip = ::1", {"metrics": "[::1]:15692"}),
        ("log.console.formatter = json", {"log-format": "json"}),
        ("log.file.level = critical", {"log-level": "error"}),
        ("deprecated_features.permit.global_qos = true", {}),
        (
            "message_interceptors.incoming.set_header_timestamp.overwrite = true",
            {"set-header-timestamp": "overwrite"},
        ),
        (
            "message_interceptors.incoming.set_header_routing_node.overwrite = false",
            {"set-header-routing-node": "keep"},
        ),
        (
            "quorum_queue.property_equivalence.relaxed_checks_on_redeclaration = true",
            {"quorum-relaxed-redeclare": "true"},
        ),
        ("log.exchange = false", {"log-exchange": "none"}),
        ("log.exchange = true", {"log-exchange": "info"}),
        ("log.exchange = true\nlog.exchange.level = warning", {"log-exchange": "warning"}),
        ("log.exchange = true\nlog.exchange.level = none", {"log-exchange": "none"}),
        (
            "log.exchange = true\nlog.default.level = error",
            {"log-exchange": "error", "log-level": "error"},
        ),
        (
            "message_interceptors.outgoing.timestamp.enabled = true",
            {"set-header-sent-time": "true"},
        ),
        ("consumer_timeout = 900000", {"consumer-timeout": "900000"}),
        ("cluster_formation.peer_discovery_backend = classic_config", {}),
    ],
)
def test_what_a_setting_is_here(text: str, said: dict[str, str]) -> None:
    assert options(text) == said


def test_the_nodes_of_a_cluster_are_its_peers() -> None:
    nodes = "cluster_formation.classic_config.nodes"
    text = f"{nodes}.1 = rabbit@h1\n{nodes}.2 = rabbit@h2"
    assert options(text, HOSTNAME="h1.example.org") == {
        "peers": "rabbit@h1=h1:25672,rabbit@h2=h2:25672",
        "node": "rabbit@h1",
        "cluster-listen": ":25672",
    }
    ports = options(text, RABBITMQ_NODENAME="rabbit@h2", RABBITMQ_DIST_PORT="7000")
    assert ports["peers"] == "rabbit@h1=h1:7000,rabbit@h2=h2:7000"
    assert (ports["node"], ports["cluster-listen"]) == ("rabbit@h2", ":7000")
    long = options(text, HOSTNAME="h.example.org", RABBITMQ_USE_LONGNAME="true")
    assert long["node"] == "rabbit@h.example.org"


def test_kubernetes_is_asked_through_its_headless_service() -> None:
    backend = "cluster_formation.peer_discovery_backend = kubernetes"
    named = f"{backend}\ncluster_formation.k8s.service_name = mq"
    assert options(named) == {"discover": "mq:25672", "cluster-listen": ":25672"}
    assert options(backend, K8S_SERVICE_NAME="mq")["discover"] == "mq:25672"
    suffixed = f"{named}\ncluster_formation.k8s.hostname_suffix = .mq.ns.svc.cluster.local"
    assert options(suffixed)["discover"] == "mq.ns.svc.cluster.local:25672"
    assert isinstance(verdicts(backend)[0], RefusedSetting)


def test_the_first_users() -> None:
    text = (
        "default_user = u\ndefault_pass = p\ndefault_vhost = v\ndefault_permissions.read = ^a b\n"
        "default_user_tags.monitoring = true\ndefault_user_tags.administrator = false\n"
    )
    assert options(text) == {
        "default-user": "u",
        "default-password": "p",
        "default-vhost": "v",
        "user-rights": "u '.*' '.*' '^a b'",
        "user-tags": "u=monitoring",
    }
    more = "default_users.w.password = p\ndefault_users.w.vhost_pattern = ^v$"
    assert options(more) == {
        "user": "w:p",
        "user-rights": "w '.*' '.*' '.*' '^v$'",
        "user-tags": "w=",
    }
    ignored = verdicts(f"load_definitions = /d\n{text}")
    assert all(isinstance(each, IgnoredSetting) for each in ignored[1:]), (
        "definitions bring the users"
    )


@pytest.mark.parametrize(
    "text",
    [
        "auth_backends.1 = ldap",
        "auth_backends.1.authn = oauth2",
        "auth_backends.2.authz = http",
        "auth_mechanisms.1 = ANONYMOUS",
        "listeners.ssl.1 = 5671\nlisteners.ssl.2 = 5673",
        "listeners.ssl = all",
        "ssl_options.verify = verify_peer\nssl_options.depth = 1",
        "ssl_options.fail_if_no_peer_cert = true",
        "ssl_options.crl_check = peer",
        "ssl_options.password = secret",
        "ssl_options.key.PrivateKeyInfo = x",
        "ssl_cert_login_san_type = email",
        "credential_validator.validation_backend = min_password_length",
        "cluster_formation.peer_discovery_backend = consul",
        "cluster_formation.classic_config.nodes.1 = rabbit",
        "cluster_formation.node_type = ram",
        "default_queue_type = stream",
        "log.exchange = on",
        "log.exchange = true\nlog.exchange.level = loud",
        "default_policies.operator.a.max_length = 5",
        "default_limits.vhosts.1.max_queues = 5",
        "default_users.w.tags = a",
        "definitions.import_backend = https",
        "management.ssl.port = 15671",
        SHARED + "management.ssl.port = 15671\nmanagement.ssl.certfile = /other",
        SHARED + "management.ssl.port = 15671\nmanagement.tcp.port = 15672",
        SHARED + "management.ssl.verify = verify_peer",
        SHARED + "management.ssl.password = secret",
        "management.listener.ssl = true",
        "management.disable_basic_auth = true",
        "prometheus.ssl.port = 15691",
        "prometheus.authentication.enabled = true",
        "queue_leader_locator = anywhere",
        "frame_max = large",
        "heartbaet = 5",
        "default_pass = encrypted:VGhpcyBpcw==",
    ],
)
def test_what_no_node_runs_with(text: str) -> None:
    assert any(isinstance(verdict, RefusedSetting) for verdict in verdicts(text))


@pytest.mark.parametrize(
    "text",
    [
        "auth_ldap.servers.1 = ldap.example.org",
        "stomp.default_user = guest",
        "raft.segment_max_entries = 4096",
        "net_ticktime = 60",
        "cluster_partition_handling = autoheal",
        "log.file = rabbit.log",
        "log.file.rotation.size = 10485760",
        "log.connection.level = debug",
        "log.exchange.level = debug",
        "log.exchange.formatter = json",
        "deprecated_features.permit.transient_nonexcl_queues = false",
        "queue_master_locator = min-masters",
        "tcp_listen_options.backlog = 128",
        "vm_memory_high_watermark_paging_ratio = 0.5",
        "management.path_prefix = /mq",
    ],
)
def test_what_nothing_comes_of(text: str) -> None:
    (verdict,) = verdicts(text)
    assert isinstance(verdict, IgnoredSetting)
    assert len(verdict.reason) > 10


def test_one_of_several_counts() -> None:
    levels = "log.console.level = debug\nlog.file.level = error\nlog.default.level = error"
    assert verdicts(levels)[0] == MappedSetting({"log-level": ("debug",)})
    sizes = "vm_memory_high_watermark.absolute = 1GB\nvm_memory_high_watermark.relative = 0.4"
    assert verdicts(sizes)[1] == IgnoredSetting("vm_memory_high_watermark.absolute counts")
    versions = "ssl_options.versions.1 = tlsv1.1\nssl_options.versions.2 = tlsv1.2"
    first, second = verdicts(versions)
    assert isinstance(first, IgnoredSetting)
    assert second == MappedSetting({"tls-min-version": ("1.2",)})


def test_what_is_unknown_may_have_been_meant() -> None:
    (verdict,) = verdicts("defualt_user = x")
    assert verdict == RefusedSetting("RabbitMQ has no such key; did you mean default_user?")
    (verdict,) = verdicts("zzzzzz = x")
    assert verdict == RefusedSetting("RabbitMQ has no such key; take it out")


def test_reasons_are_sentences_of_one_kind() -> None:
    for name, rule in RULES.items():
        key = tuple("1" if part in {"$", "**"} else part for part in name.split("."))
        setting = ConfLine(key, "x", FILE, 1)
        verdict = rule(ConfSettings({key: setting}), setting)
        if not isinstance(verdict, MappedSetting):
            assert verdict.reason[-1] not in ".;", name
