"""Rules about MQTT: where its clients come in, who they are, and what they may do."""

from __future__ import annotations

from fluffle.broker.config.config import CERT_CLIENT_ID_FROM, CERT_NAME_TYPES
from fluffle.broker.config.rabbitmq_conf.client_rules import address_of, infinite
from fluffle.broker.config.rabbitmq_conf.parser import ConfLine
from fluffle.broker.config.rabbitmq_conf.verdicts import (
    FALSE,
    TRUE,
    ConfSettings,
    IgnoredSetting,
    MappedSetting,
    RefusedSetting,
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

MQTT_PORT, WS_PORT, WS_TLS_PORT = "1883", "15675", "15676"
LISTENERS = {"tcp": "mqtt", "ssl": "mqtt-tls"}
WEB_LISTENERS = {"tcp": ("mqtt-ws", WS_PORT), "ssl": ("mqtt-ws-tls", WS_TLS_PORT)}
"""The option for each, and where it is if nothing is said."""
STORE = "rabbit_mqtt_retained_msg_store_"

SUBSCRIPTION_TTL = (
    "Since 3.13 mqtt.subscription_ttl (in milliseconds) is unsupported. Use "
    "mqtt.max_session_expiry_interval_seconds (in seconds) instead"
)
REMOVED_USER = (
    "RabbitMQ 4 has no such key any more; write anonymous_login_user and anonymous_login_pass"
)
SHARED_TLS = (
    "TLS is the same for all clients: write the same below ssl_options, or give that and leave "
    "this out"
)
SOCKETS = "sockets are as the system makes them, without delay, and 1024 may wait to be accepted"
NO_HTTP = "a websocket is opened by one request, with limits and a time of its own"


def listener(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map mqtt.listeners.tcp.$name and those with TLS."""
    family = ".".join(setting.key[:-1])
    if conf.value(family) == "none":
        return IgnoredSetting(f"{family} = none switches it off")
    return MappedSetting({LISTENERS[setting.key[-2]]: (address_of(setting.value),)})


def no_listeners(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.value != "none":
        return RefusedSetting(f"write none, or {setting.name}.default = PORT")
    return MappedSetting({LISTENERS[setting.key[-1]]: ("none",)})


def web_listener(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map web_mqtt.tcp.listener, or .ip and .port; and those with TLS."""
    kind = setting.key[1]
    option, port = WEB_LISTENERS[kind]
    whole = conf.value(f"web_mqtt.{kind}.listener")
    if whole and setting.key[-1] != "listener":
        return IgnoredSetting(f"web_mqtt.{kind}.listener counts")
    if whole == "none":
        return MappedSetting({option: ("none",)})
    host = conf.value(f"web_mqtt.{kind}.ip")
    parts = f"{host}:{conf.value(f'web_mqtt.{kind}.port', port)}"
    return MappedSetting({option: (address_of(whole or parts),)})


def shared_with_clients(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Compare a key of web_mqtt.ssl with that of ssl_options; of a list all of them."""
    name = ".".join(("ssl_options", *setting.key[2:]))
    if setting.key[-2] in {"versions", "ciphers"}:
        theirs = conf.below(name.rpartition(".")[0])
        is_same = set(theirs.values()) == set(conf.beside(setting).values())
    else:
        is_same = conf.value(name) == setting.value
    return MappedSetting() if is_same else RefusedSetting(SHARED_TLS)


def origins(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map web_mqtt.allow_origins and the numbered keys below it: all of them are one option."""
    named = conf.value("web_mqtt.allow_origins")
    given = [*(named.split(",") if named else ()), *conf.below("web_mqtt.allow_origins").values()]
    return mapped(mqtt_ws_allow_origins=",".join(origin.strip() for origin in given))


_SHARED = "certfile keyfile cacertfile crl_check depth versions.$ ciphers.$"

RULES: Rules = {
    "mqtt.listeners.tcp": no_listeners,
    "mqtt.listeners.tcp.$": listener,
    "mqtt.listeners.ssl": no_listeners,
    "mqtt.listeners.ssl.$": listener,
    "mqtt.proxy_protocol": to("mqtt-proxy-protocol"),
    "mqtt.login_timeout": to("mqtt-login-timeout"),
    "mqtt.max_connections": infinite("mqtt-connection-max"),
    "mqtt.allow_anonymous": to("mqtt-allow-anonymous"),
    "anonymous_login_user": to("anonymous-login-user"),
    "anonymous_login_pass": to("anonymous-login-password"),
    **each("default_user default_pass", refused(REMOVED_USER), "mqtt."),
    "mqtt.ssl_cert_login": to("mqtt-cert-login"),
    "mqtt.ssl_cert_client_id_from": by_word(
        "mqtt-cert-client-id-from", {word: word for word in CERT_CLIENT_ID_FROM}
    ),
    "mqtt.ssl_cert_login_san_type": by_word(
        "mqtt-cert-san-type", {word: word for word in CERT_NAME_TYPES}
    ),
    "mqtt.ssl_cert_login_san_index": to("mqtt-cert-san-index"),
    "mqtt.vhost": to("mqtt-vhost"),
    "mqtt.exchange": to("mqtt-exchange"),
    "mqtt.durable_queue_type": to("mqtt-durable-queue-type"),
    "mqtt.max_session_expiry_interval_seconds": infinite("mqtt-max-session-expiry"),
    "mqtt.subscription_ttl": refused(SUBSCRIPTION_TTL),
    "mqtt.prefetch": to("mqtt-prefetch"),
    "mqtt.topic_alias_maximum": to("mqtt-topic-alias-maximum"),
    "mqtt.max_packet_size_authenticated": to("mqtt-max-packet-size"),
    "mqtt.max_packet_size_unauthenticated": to("mqtt-max-packet-size-unauthenticated"),
    "mqtt.mailbox_soft_limit": to("mqtt-mailbox-soft-limit"),
    "mqtt.sparkplug": to("mqtt-sparkplug"),
    "mqtt.sys_interval": to("mqtt-sys-interval"),
    "mqtt.disconnect_on_unauthorized": to("mqtt-disconnect-on-unauthorized"),
    "mqtt.message_interceptors.incoming.set_client_id_annotation.enabled": ignored_unless(
        (FALSE,), "messages do not tell consumers which client has published them"
    ),
    "mqtt.retained_message_store": by_word(
        "mqtt-retained", {f"{STORE}dets": "yes", f"{STORE}ets": "yes", f"{STORE}noop": "no"}
    ),
    "mqtt.retained_message_store.max_messages": to("mqtt-max-retained-messages"),
    "mqtt.retained_message_store.max_size_bytes": to("mqtt-max-retained-size"),
    "mqtt.retained_message_store_dets_sync_interval": ignored(
        "what is retained is on disk before the publisher is told"
    ),
    "mqtt.tcp_listen_options": refused_unless(
        ("none",), "write the keys below mqtt.tcp_listen_options"
    ),
    "mqtt.tcp_listen_options.nodelay": ignored_unless((TRUE,), SOCKETS),
    "mqtt.tcp_listen_options.**": ignored(SOCKETS),
    **each("tcp ssl", ignored("there is no such thing here"), "mqtt.num_acceptors."),
    **each("listener ip port", web_listener, "web_mqtt.tcp."),
    **each("listener ip port", web_listener, "web_mqtt.ssl."),
    **each("backlog", ignored(SOCKETS), "web_mqtt.tcp."),
    **each("backlog", ignored(SOCKETS), "web_mqtt.ssl."),
    **each(_SHARED, shared_with_clients, "web_mqtt.ssl."),
    "web_mqtt.ssl.password": refused(
        "encrypted keys are not read; decrypt it (openssl pkey -in KEY -out PLAIN_KEY), and let "
        "the permissions of the file guard it"
    ),
    **each(
        "honor_cipher_order honor_ecc_order reuse_sessions",
        ignored("OpenSSL's way is kept"),
        "web_mqtt.ssl.",
    ),
    "web_mqtt.ssl.secure_renegotiate": refused_unless((TRUE,), "renegotiation is never insecure"),
    "web_mqtt.ssl.client_renegotiation": ignored_unless((FALSE,), "nobody may renegotiate"),
    "web_mqtt.ws_path": to("mqtt-ws-path"),
    "web_mqtt.max_connections": infinite("mqtt-ws-connection-max"),
    "web_mqtt.proxy_protocol": to("mqtt-ws-proxy-protocol"),
    "web_mqtt.allow_origins": origins,
    "web_mqtt.allow_origins.$": origins,
    "web_mqtt.ws_opts.compress": ignored_unless(
        (FALSE,), "frames are not compressed, which would cost memory for each client"
    ),
    "web_mqtt.ws_opts.max_frame_size": infinite("mqtt-ws-max-frame-size"),
    "web_mqtt.ws_opts.idle_timeout": to("mqtt-ws-idle-timeout"),
    "web_mqtt.cowboy_opts.**": ignored(NO_HTTP),
    **each("tcp ssl", ignored("there is no such thing here"), "web_mqtt.num_acceptors."),
    "web_mqtt.use_file_handle_cache": ignored("there is no such thing here"),
}
