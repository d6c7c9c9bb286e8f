"""Rules about clients of AMQP and of MQTT: where they come in, who they are, what they may do."""

from __future__ import annotations

from shlex import join

from fluffle.broker.config.config import CERT_CLIENT_ID_FROM, CERT_NAME_TYPES
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

OURS = frozenset({"PLAIN", "AMQPLAIN", "EXTERNAL"})
INTERNAL = ("internal", "rabbit_auth_backend_internal")
NO_BACKEND = "users are those of the node alone; import them as definitions, and leave this out"
OTHER_BACKEND = "there is no such backend here, and auth_backends cannot name it"
INLINE = "certificates and keys are read from PEM files; name them with certfile and keyfile"
GUEST = "guest"


def address_of(value: str) -> str:
    """PORT, HOST:PORT or [IPv6]:PORT; also ::1:5672, as RabbitMQ takes it."""
    if value.isdecimal():
        return f":{value}"
    host, _, port = value.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    return f"[{bare}]:{port}" if ":" in bare else f"{bare}:{port}"


def listener(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map listeners.tcp.$name: the first one is --listen.  There is one address for TLS."""
    family = ".".join(setting.key[:-1])
    if conf.value(family) == "none":
        return IgnoredSetting(f"{family} = none switches it off")
    addresses = list(dict.fromkeys(map(address_of, conf.below(family).values())))
    address = address_of(setting.value)
    if setting.key[1] == "tcp":
        return MappedSetting({"listen" if address == addresses[0] else "also-listen": (address,)})
    if len(addresses) > 1:
        return RefusedSetting(
            "with TLS a node listens at one address; keep one, without a host for every interface"
        )
    return MappedSetting({"tls-listen": (address,)})


def no_listeners(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.value != "none":
        return RefusedSetting("write none, or listeners.tcp.default = PORT")
    return mapped(listen="none") if setting.key[1] == "tcp" else MappedSetting()


def verify(conf: ConfSettings, _setting: ConfLine) -> Verdict:
    """verify and fail_if_no_peer_cert are one option."""
    must = conf.value("ssl_options.fail_if_no_peer_cert", FALSE) == TRUE
    if conf.value("ssl_options.verify", "verify_none") == "verify_peer":
        return mapped(tls_verify="require" if must else "request")
    if must:
        return RefusedSetting("fail_if_no_peer_cert needs verify = verify_peer; write that, too")
    return mapped(tls_verify="none")


def tls_version(conf: ConfSettings, setting: ConfLine) -> Verdict:
    versions = set(conf.below("ssl_options.versions").values())
    if not versions <= {"tlsv1", "tlsv1.1", "tlsv1.2", "tlsv1.3"}:
        return RefusedSetting("write tlsv1.2 or tlsv1.3")
    if versions == {"tlsv1.3"}:
        return mapped(tls_min_version="1.3")
    if setting.value in {"tlsv1", "tlsv1.1"}:
        return IgnoredSetting("older than 1.2 is never spoken; clients of it are refused")
    return mapped(tls_min_version="1.2")


def depth(conf: ConfSettings, _setting: ConfLine) -> Verdict:
    if conf.value("ssl_options.verify") != "verify_peer":
        return IgnoredSetting("certificates of clients are not verified")
    return RefusedSetting(
        "the length of chains is not limited but by the authorities themselves (pathlen); name "
        "in cacertfile only those that may sign, and leave this out"
    )


def ciphers(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map ciphers; those of TLS 1.3 are on always."""
    family = conf.below("ssl_options.ciphers")
    names = [family[name] for name in sorted(family, key=by_number)]
    older = [name for name in names if not name.startswith("TLS_")]
    if setting.value.startswith("TLS_") or not older:
        return IgnoredSetting("suites of TLS 1.3 cannot be chosen: all that OpenSSL has are on")
    return MappedSetting({"tls-ciphers": (":".join(older),)})


def by_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdecimal() else (1 << 31, name)


def mechanism(conf: ConfSettings, setting: ConfLine) -> Verdict:
    named = {value.upper() for value in conf.below("auth_mechanisms").values()}
    if not named & OURS:
        return RefusedSetting(f"there are {', '.join(sorted(OURS))} here; name one of them")
    if setting.value.upper() not in OURS:
        return IgnoredSetting(f"there is no {setting.value} here: nobody logs in with it")
    return MappedSetting({"auth-mechanisms": (",".join(sorted(named & OURS)),)})


def loopback(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map loopback_users.NAME: those that are true, and no others."""
    if setting.key == ("loopback_users",):
        return (
            mapped(loopback_users="none")
            if setting.value == "none"
            else RefusedSetting("write none")
        )
    if conf.value("loopback_users") == "none":
        return IgnoredSetting("loopback_users = none says more")
    names = [name for name, value in conf.below("loopback_users").items() if value == TRUE]
    return MappedSetting({"loopback-users": (",".join(names) or "none",)})


def first_user(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """default_user and what is said of it."""
    if conf.value("load_definitions") or conf.has("definitions"):
        return IgnoredSetting(
            "where definitions are imported there is no default user, as with RabbitMQ"
        )
    name = conf.environment.get("RABBITMQ_DEFAULT_USER") or conf.value("default_user", GUEST)
    if setting.key[0] == "default_permissions":
        given = conf.below("default_permissions")
        rights = [given.get(right, ".*") for right in ("configure", "write", "read")]
        return MappedSetting({"user-rights": (join([name, *rights]),)})
    if setting.key[0] == "default_user_tags":
        tags = [tag for tag, value in conf.below("default_user_tags").items() if value == TRUE]
        return MappedSetting({"user-tags": (f"{name}={','.join(tags)}",)})
    option = {"default_user": "default-user", "default_pass": "default-password"}
    return MappedSetting({option.get(setting.key[0], "default-vhost"): (setting.value,)})


def more_users(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map default_users.NAME: made at the first start here, in the virtual hosts that there are."""
    name = setting.key[1]
    given = conf.beside(setting)
    if not given.get("password"):
        return RefusedSetting(
            "a user without a password cannot be made; set default_users.NAME.password"
        )
    tags = ",".join(tag.strip() for tag in given.get("tags", "").split(","))
    options = {
        "user": (f"{name}:{given['password']}",),
        "user-tags": (f"{name}={tags}",),
    }
    rights = [given.get(right, ".*") for right in ("configure", "write", "read")]
    options["user-rights"] = (join([name, *rights, given.get("vhost_pattern", ".*")]),)
    return MappedSetting(options)


def san_type(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map the type of the subject's alternative name: only names of hosts are looked at."""
    is_there = setting.value in {"dns", "0"}
    return (
        MappedSetting()
        if is_there
        else RefusedSetting("of alternative names the first of a host is taken")
    )


def no_limit(option: str, highest: str) -> Rule:
    """0 stands for no limit."""

    def rule(_conf: ConfSettings, setting: ConfLine) -> Verdict:
        return MappedSetting({option: (highest if setting.value == "0" else setting.value,)})

    return rule


def infinite(option: str) -> Rule:
    def rule(_conf: ConfSettings, setting: ConfLine) -> Verdict:
        return MappedSetting({option: ("none" if setting.value == "infinity" else setting.value,)})

    return rule


def kilobytes(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Cuttlefish counts in powers of 1024, whatever the unit is called."""
    text = setting.value.lower()
    units = {"kb": 10, "mb": 20, "gb": 30}
    number, shift = text, 0
    for unit, power in units.items():
        if text.endswith(unit):
            number, shift = text.removesuffix(unit), power
    if not number.isdecimal():
        return RefusedSetting("write a number of bytes such as 131072 or 128kb")
    return MappedSetting({"frame-max": (str(int(number) << shift),)})


RULES: Rules = {
    "listeners.tcp": no_listeners,
    "listeners.tcp.$": listener,
    "listeners.ssl": no_listeners,
    "listeners.ssl.$": listener,
    "ssl_options": refused_unless(("none",), "write none, or the keys below ssl_options"),
    "ssl_options.certfile": to("tls-cert"),
    "ssl_options.keyfile": to("tls-key"),
    "ssl_options.cacertfile": to("tls-ca"),
    "ssl_options.verify": verify,
    "ssl_options.fail_if_no_peer_cert": verify,
    "ssl_options.versions.$": tls_version,
    "ssl_options.ciphers.$": ciphers,
    "ssl_cert_login_from": by_word(
        "tls-login-from",
        {
            "distinguished_name": "distinguished_name",
            "common_name": "common_name",
            "subject_alternative_name": "subject_alternative_name",
            "subject_alt_name": "subject_alternative_name",
        },
    ),
    "ssl_cert_login_san_type": san_type,
    "ssl_cert_login_san_index": san_type,
    "auth_mechanisms.$": mechanism,
    "loopback_users": loopback,
    "loopback_users.$": loopback,
    "default_user_tags.$": first_user,
    "heartbeat": to("heartbeat"),
    "frame_max": kilobytes,
    "channel_max": no_limit("channel-max", "65535"),
    "connection_max": infinite("connection-max"),
    "consumer_max_per_channel": infinite("consumer-max-per-channel"),
    "cluster_queue_limit": infinite("cluster-queue-limit"),
    "cluster_exchange_limit": infinite("cluster-exchange-limit"),
    "max_message_size": to("max-message-size"),
    "handshake_timeout": to("handshake-timeout"),
    "proxy_protocol": to("proxy-protocol"),
    **each("default_user default_pass default_vhost", first_user),
    **each("configure write read", first_user, "default_permissions."),
    **each("vhost_pattern password configure read write tags", more_users, "default_users.$."),
    **each("cert cacerts.$", refused(INLINE), "ssl_options."),
    **each("RSAPrivateKey DSAPrivateKey PrivateKeyInfo", refused(INLINE), "ssl_options.key."),
    "ssl_options.password": refused(
        "encrypted keys are not read; decrypt it (openssl pkey -in KEY -out PLAIN_KEY), and let "
        "the permissions of the file guard it"
    ),
    "ssl_options.crl_check": refused_unless(
        (FALSE,), "revoked certificates cannot be found; give out short-lived ones"
    ),
    "ssl_options.depth": depth,
    "ssl_options.psk_identity": refused("there is no TLS with keys that were shared before"),
    **each("dh dhfile", ignored("OpenSSL chooses the groups"), "ssl_options."),
    **each(
        "honor_cipher_order honor_ecc_order reuse_sessions log_level log_alert bypass_pem_cache",
        ignored("OpenSSL's way is kept"),
        "ssl_options.",
    ),
    "ssl_options.secure_renegotiate": refused_unless((TRUE,), "renegotiation is never insecure"),
    "ssl_options.client_renegotiation": ignored_unless((FALSE,), "TLS renegotiation is always off"),
    "ssl_allow_poodle_attack": ignored("SSL 3 is never spoken"),
    "ssl_handshake_timeout": ignored("the time for a handshake is always five seconds"),
    "auth_backends.$": refused_unless(INTERNAL, NO_BACKEND),
    "auth_backends.$.authn": refused_unless(INTERNAL, NO_BACKEND),
    "auth_backends.$.authz": refused_unless(INTERNAL, NO_BACKEND),
    "auth_ldap.**": ignored(OTHER_BACKEND),
    "auth_http.**": ignored(OTHER_BACKEND),
    "auth_oauth2.**": ignored(OTHER_BACKEND),
    "auth_cache.**": ignored(OTHER_BACKEND),
    "trust_store.**": ignored("certificates are good if ssl_options.cacertfile has signed them"),
    "password_hashing_module": ignored(
        "`fluffle users add --algorithm` chooses how a new password is hashed; all are read"
    ),
    "credential_validator.validation_backend": refused_unless(
        ("accept_everything", "rabbit_credential_validator_accept_everything"),
        "passwords are not judged; judge them where they are set, and leave this out",
    ),
    **each("min_length regexp", ignored("no password is judged"), "credential_validator."),
    "initial_frame_max": ignored("before the login frames are 8192 bytes at most"),
    **each(
        "channel_max_per_node session_max_per_connection link_max_per_session ranch_connection_max",
        ignored("there is no such limit; channel_max, connection_max and those of users are"),
    ),
    "tcp_listen_options": refused_unless(("none",), "write the keys below tcp_listen_options"),
    "tcp_listen_options.**": ignored("sockets are as the system makes them, without delay"),
    **each(
        "num_acceptors.tcp num_acceptors.ssl socket_writer.gc_threshold reverse_dns_lookups",
        ignored("there is no such thing here"),
    ),
}


MQTT_PORT, WS_PORT, WS_TLS_PORT = "1883", "15675", "15676"
MQTT_LISTENERS = {"tcp": "mqtt", "ssl": "mqtt-tls"}
WEB_MQTT_LISTENERS = {"tcp": ("mqtt-ws", WS_PORT), "ssl": ("mqtt-ws-tls", WS_TLS_PORT)}
"""The option for each, and where it is if nothing is said."""
RETAINED_STORE = "rabbit_mqtt_retained_msg_store_"

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
MQTT_SOCKETS = (
    "sockets are as the system makes them, without delay, and 1024 may wait to be accepted"
)
NO_HTTP = "a websocket is opened by one request, with limits and a time of its own"


def mqtt_listener(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map mqtt.listeners.tcp.$name and those with TLS."""
    family = ".".join(setting.key[:-1])
    if conf.value(family) == "none":
        return IgnoredSetting(f"{family} = none switches it off")
    return MappedSetting({MQTT_LISTENERS[setting.key[-2]]: (address_of(setting.value),)})


def no_mqtt_listeners(_conf: ConfSettings, setting: ConfLine) -> Verdict:
    if setting.value != "none":
        return RefusedSetting(f"write none, or {setting.name}.default = PORT")
    return MappedSetting({MQTT_LISTENERS[setting.key[-1]]: ("none",)})


def web_mqtt_listener(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map web_mqtt.tcp.listener, or .ip and .port; and those with TLS."""
    kind = setting.key[1]
    option, port = WEB_MQTT_LISTENERS[kind]
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


def web_mqtt_origins(conf: ConfSettings, setting: ConfLine) -> Verdict:
    """Map web_mqtt.allow_origins and the numbered keys below it: all of them are one option."""
    named = conf.value("web_mqtt.allow_origins")
    given = [*(named.split(",") if named else ()), *conf.below("web_mqtt.allow_origins").values()]
    return mapped(mqtt_ws_allow_origins=",".join(origin.strip() for origin in given))


_SHARED = "certfile keyfile cacertfile crl_check depth versions.$ ciphers.$"

MQTT_RULES: Rules = {
    "mqtt.listeners.tcp": no_mqtt_listeners,
    "mqtt.listeners.tcp.$": mqtt_listener,
    "mqtt.listeners.ssl": no_mqtt_listeners,
    "mqtt.listeners.ssl.$": mqtt_listener,
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
        "mqtt-retained",
        {
            f"{RETAINED_STORE}dets": "yes",
            f"{RETAINED_STORE}ets": "yes",
            f"{RETAINED_STORE}noop": "no",
        },
    ),
    "mqtt.retained_message_store.max_messages": to("mqtt-max-retained-messages"),
    "mqtt.retained_message_store.max_size_bytes": to("mqtt-max-retained-size"),
    "mqtt.retained_message_store_dets_sync_interval": ignored(
        "a retained message is on disk before its PUBACK or PUBREC"
    ),
    "mqtt.tcp_listen_options": refused_unless(
        ("none",), "write the keys below mqtt.tcp_listen_options"
    ),
    "mqtt.tcp_listen_options.nodelay": ignored_unless((TRUE,), MQTT_SOCKETS),
    "mqtt.tcp_listen_options.**": ignored(MQTT_SOCKETS),
    **each("tcp ssl", ignored("there is no such thing here"), "mqtt.num_acceptors."),
    **each("listener ip port", web_mqtt_listener, "web_mqtt.tcp."),
    **each("listener ip port", web_mqtt_listener, "web_mqtt.ssl."),
    **each("backlog", ignored(MQTT_SOCKETS), "web_mqtt.tcp."),
    **each("backlog", ignored(MQTT_SOCKETS), "web_mqtt.ssl."),
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
    "web_mqtt.ssl.client_renegotiation": ignored_unless(
        (FALSE,), "TLS renegotiation is always off"
    ),
    "web_mqtt.ws_path": to("mqtt-ws-path"),
    "web_mqtt.max_connections": infinite("mqtt-ws-connection-max"),
    "web_mqtt.proxy_protocol": to("mqtt-ws-proxy-protocol"),
    "web_mqtt.allow_origins": web_mqtt_origins,
    "web_mqtt.allow_origins.$": web_mqtt_origins,
    "web_mqtt.ws_opts.compress": ignored_unless(
        (FALSE,), "frames are not compressed, which would cost memory for each client"
    ),
    "web_mqtt.ws_opts.max_frame_size": infinite("mqtt-ws-max-frame-size"),
    "web_mqtt.ws_opts.idle_timeout": to("mqtt-ws-idle-timeout"),
    "web_mqtt.cowboy_opts.**": ignored(NO_HTTP),
    **each("tcp ssl", ignored("there is no such thing here"), "web_mqtt.num_acceptors."),
    "web_mqtt.use_file_handle_cache": ignored("there is no such thing here"),
}
