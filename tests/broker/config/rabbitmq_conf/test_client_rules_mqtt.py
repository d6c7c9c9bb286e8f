"""Mapping of the settings about MQTT in a rabbitmq.conf."""

import pytest

from fluffle.broker.config.rabbitmq_conf.settings import (
    IgnoredSetting,
    MappedSetting,
    RefusedSetting,
)
from tests.support.rabbitmq_conf import options, verdicts

SHARED = "ssl_options.certfile = /c\nssl_options.keyfile = /k\n"
FILES = {"tls-cert": "/c", "tls-key": "/k"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mqtt.listeners.tcp.default = 1884", {"mqtt": ":1884"}),
        ("mqtt.listeners.tcp.1 = ::1:1883", {"mqtt": "[::1]:1883"}),
        ("mqtt.listeners.tcp = none", {"mqtt": "none"}),
        ("mqtt.listeners.ssl.default = 8883", {"mqtt-tls": ":8883"}),
        ("mqtt.listeners.ssl = none", {"mqtt-tls": "none"}),
        ("mqtt.proxy_protocol = true", {"mqtt-proxy-protocol": "true"}),
        ("mqtt.login_timeout = 5000", {"mqtt-login-timeout": "5000"}),
        ("mqtt.max_connections = infinity", {"mqtt-connection-max": "none"}),
        ("mqtt.allow_anonymous = false", {"mqtt-allow-anonymous": "false"}),
        ("anonymous_login_user = none", {"anonymous-login-user": "none"}),
        ("anonymous_login_pass = p", {"anonymous-login-password": "p"}),
        ("mqtt.ssl_cert_login = true", {"mqtt-cert-login": "true"}),
        (
            "mqtt.ssl_cert_client_id_from = subject_alternative_name\n"
            "mqtt.ssl_cert_login_san_type = uri\nmqtt.ssl_cert_login_san_index = 1",
            {
                "mqtt-cert-client-id-from": "subject_alternative_name",
                "mqtt-cert-san-type": "uri",
                "mqtt-cert-san-index": "1",
            },
        ),
        ("mqtt.vhost = v\nmqtt.exchange = e", {"mqtt-vhost": "v", "mqtt-exchange": "e"}),
        ("mqtt.durable_queue_type = quorum", {"mqtt-durable-queue-type": "quorum"}),
        ("mqtt.max_session_expiry_interval_seconds = 60", {"mqtt-max-session-expiry": "60"}),
        (
            "mqtt.max_session_expiry_interval_seconds = infinity",
            {"mqtt-max-session-expiry": "none"},
        ),
        ("mqtt.prefetch = 10", {"mqtt-prefetch": "10"}),
        ("mqtt.topic_alias_maximum = 0", {"mqtt-topic-alias-maximum": "0"}),
        ("mqtt.max_packet_size_authenticated = 268435455", {"mqtt-max-packet-size": "268435455"}),
        (
            "mqtt.max_packet_size_unauthenticated = 4096",
            {"mqtt-max-packet-size-unauthenticated": "4096"},
        ),
        ("mqtt.mailbox_soft_limit = 0", {"mqtt-mailbox-soft-limit": "0"}),
        ("mqtt.sparkplug = true", {"mqtt-sparkplug": "true"}),
        ("mqtt.sys_interval = 0", {"mqtt-sys-interval": "0"}),
        ("mqtt.disconnect_on_unauthorized = true", {"mqtt-disconnect-on-unauthorized": "true"}),
        ("mqtt.message_interceptors.incoming.set_client_id_annotation.enabled = false", {}),
        (
            "mqtt.retained_message_store = rabbit_mqtt_retained_msg_store_noop",
            {"mqtt-retained": "no"},
        ),
        (
            "mqtt.retained_message_store = rabbit_mqtt_retained_msg_store_dets",
            {"mqtt-retained": "yes"},
        ),
        (
            "mqtt.retained_message_store.max_messages = 7\n"
            "mqtt.retained_message_store.max_size_bytes = 1024",
            {"mqtt-max-retained-messages": "7", "mqtt-max-retained-size": "1024"},
        ),
        ("mqtt.tcp_listen_options.nodelay = true", {}),
        ("web_mqtt.tcp.port = 15677", {"mqtt-ws": ":15677"}),
        ("web_mqtt.tcp.ip = ::1", {"mqtt-ws": "[::1]:15675"}),
        ("web_mqtt.tcp.listener = none", {"mqtt-ws": "none"}),
        ("web_mqtt.tcp.listener = 127.0.0.1:80", {"mqtt-ws": "127.0.0.1:80"}),
        (
            SHARED + "web_mqtt.ssl.port = 15677\nweb_mqtt.ssl.certfile = /c\n"
            "web_mqtt.ssl.keyfile = /k",
            {**FILES, "mqtt-ws-tls": ":15677"},
        ),
        (
            "ssl_options.versions.1 = tlsv1.3\nweb_mqtt.ssl.versions.1 = tlsv1.3",
            {"tls-min-version": "1.3"},
        ),
        ("web_mqtt.ws_path = /mq", {"mqtt-ws-path": "/mq"}),
        ("web_mqtt.max_connections = 5", {"mqtt-ws-connection-max": "5"}),
        ("web_mqtt.proxy_protocol = true", {"mqtt-ws-proxy-protocol": "true"}),
        ("web_mqtt.ws_opts.max_frame_size = infinity", {"mqtt-ws-max-frame-size": "none"}),
        ("web_mqtt.ws_opts.idle_timeout = 30000", {"mqtt-ws-idle-timeout": "30000"}),
        (
            "web_mqtt.allow_origins.1 = https://a\nweb_mqtt.allow_origins.2 = https://b",
            {"mqtt-ws-allow-origins": "https://a,https://b"},
        ),
        (
            "web_mqtt.allow_origins = https://a, https://b",
            {"mqtt-ws-allow-origins": "https://a,https://b"},
        ),
    ],
)
def test_what_a_setting_is_here(text: str, said: dict[str, str]) -> None:
    assert options(text) == said


@pytest.mark.parametrize(
    "text",
    [
        "mqtt.subscription_ttl = 86400000",
        "mqtt.default_user = guest",
        "mqtt.listeners.tcp = all",
        "mqtt.retained_message_store = my_store",
        "mqtt.ssl_cert_login_san_type = other_name",
        "mqtt.ssl_cert_client_id_from = common_name",
        "web_mqtt.ssl.certfile = /c",
        SHARED + "web_mqtt.ssl.certfile = /other",
        "web_mqtt.ssl.versions.1 = tlsv1.3",
        "web_mqtt.ssl.password = secret",
    ],
)
def test_what_no_node_runs_with(text: str) -> None:
    assert any(isinstance(verdict, RefusedSetting) for verdict in verdicts(text))


@pytest.mark.parametrize(
    "text",
    [
        "mqtt.retained_message_store_dets_sync_interval = 2000",
        "mqtt.tcp_listen_options.backlog = 4096",
        "mqtt.message_interceptors.incoming.set_client_id_annotation.enabled = true",
        "mqtt.num_acceptors.tcp = 10",
        "web_mqtt.ws_opts.compress = true",
        "web_mqtt.cowboy_opts.max_headers = 10",
        "web_mqtt.ssl.reuse_sessions = true",
    ],
)
def test_what_nothing_comes_of(text: str) -> None:
    (verdict,) = verdicts(text)
    assert isinstance(verdict, IgnoredSetting)
    assert len(verdict.reason) > 10


def test_none_counts_more_than_the_listeners_beside_it() -> None:
    family = "mqtt.listeners.tcp"
    assert verdicts(f"{family} = none\n{family}.1 = 1883") == [
        MappedSetting({"mqtt": ("none",)}),
        IgnoredSetting(f"{family} = none switches it off"),
    ]
    web = "web_mqtt.tcp"
    assert verdicts(f"{web}.listener = none\n{web}.port = 80") == [
        MappedSetting({"mqtt-ws": ("none",)}),
        IgnoredSetting(f"{web}.listener counts"),
    ]


def test_a_time_to_live_of_subscriptions_is_refused_in_the_words_of_rabbitmq() -> None:
    (verdict,) = verdicts("mqtt.subscription_ttl = 86400000")
    assert verdict == RefusedSetting(
        "Since 3.13 mqtt.subscription_ttl (in milliseconds) is unsupported. Use "
        "mqtt.max_session_expiry_interval_seconds (in seconds) instead"
    )
