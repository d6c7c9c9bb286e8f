"""Configuration of a node as plain values, each limit with its unit and its reason.

Defaults are those of RabbitMQ 4.3 where it has the setting.  That a value may come from a command
line, the environment or a file is a matter of `options`; programs make a `Config` themselves.
"""

import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path("/")
V2 = ("sys/fs/cgroup", "memory.max")
V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes")


def memory_limits(root: Path = ROOT) -> Iterator[int]:
    """Return the limits in bytes of the groups of this process and of all above them, where they
    have one.

    In a container a group's path may lie outside of what can be seen: then its own root counts.
    """
    for line in lines(root / "proc/self/cgroup"):
        _, controllers, group = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        tree, name = V1 if controllers else V2
        path = Path(group.lstrip("/"))
        for above in (path, *path.parents):
            limit = lines(root / tree / above / name)
            yield from map(int, filter(str.isdecimal, limit))  # `max` is none


def lines(file: Path) -> list[str]:
    """Return the lines of a file of the kernel's; none where it is not there."""
    try:
        return file.read_text().splitlines()
    except OSError:
        return []


VERSION = "0.1.0"
"""Version of this package; its metadata takes it from here, for reading those is slower than a
start."""

AMQP_PORT = 5672
CLUSTER_PORT = 25672
MEMORY_HIGH_WATERMARK = 0.6
"""Share of the memory: the rest is for garbage, buffers of sockets, and the page cache."""

DEFAULT_USER = DEFAULT_PASSWORD = "guest"
DEFAULT_VHOST = "/"

FOUNDERS = 3
"""Nodes with the lowest ordinals, unless options say otherwise."""
GROUP_SIZE = 3
"""Members of a quorum queue."""
RECONCILE_INTERVAL_S = 3_600
DEAD_LETTER_TIMEOUT_S = 180
AUTH_MECHANISMS = ("PLAIN", "AMQPLAIN", "EXTERNAL")
QUEUE_TYPES = ("classic", "quorum")
LEADER_LOCATORS = ("client-local", "balanced")
"""The default first."""
DEFAULT_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
"""Unless an option says otherwise."""
MQTT_PACKET_BYTES_MAX = 268_435_460
"""Size of a packet with the largest remaining length, with its fixed header."""
MQTT_PUBLISH_ROOM_BYTES = 131_072
"""In a PUBLISH for what is not its payload: the topic and properties."""
CERT_CLIENT_ID_FROM = ("distinguished_name", "subject_alternative_name")
CERT_NAME_TYPES = ("dns", "ip", "email", "uri")
"""Alternative names of a certificate that Python reads.  The default first."""
OVERWRITE, KEEP = "overwrite", "keep"
"""Values for a stamp: what happens to a header that the client has set."""


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """Where to accept connections: an empty host is every interface, port 0 any free port.

    A host that begins with a slash is the path of a unix socket, which has no port.
    """

    host: str = ""
    port: int = AMQP_PORT

    def __str__(self) -> str:
        if self.host.startswith("/"):
            return f"unix:{self.host}"
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of what one client may do."""

    frame_bytes_max: int = 131_072
    """Proposed in connection.tune: bounds what a peer can make us buffer before we may act."""
    frame_bytes_min: int = 8_192
    """The lowest a client may ask for (RabbitMQ since 4.1); its own start-ok needs that much."""
    initial_frame_bytes_max: int = 8_192
    """Before tune-ok, when we do not know yet who sends."""
    channels_max: int = 2_047
    """Channels of one connection: each costs memory, and a leak of channels should show."""
    heartbeat_s: int = 60
    """Proposed in connection.tune: below the idle timeouts of most load balancers."""
    connections_max: int | None = None
    """Open connections of the node; RabbitMQ has no limit either unless it is given one."""
    consumers_max: int | None = None
    """Most consumers of one channel."""
    queues_max: int | None = None
    """In all virtual hosts; the nodes of a cluster should agree.  So with the next."""
    exchanges_max: int | None = None
    """Most exchanges, predeclared ones included."""
    handshake_timeout_ms: int = 10_000
    """From accept to connection.open: who has not logged in by then holds no socket."""
    message_bytes_max: int = DEFAULT_MESSAGE_BYTES_MAX
    """Body of a message: a message must fit in memory several times."""
    unfinished_bytes_max: int = 64 * 1024 * 1024
    """Bytes of unfinished messages on all channels of a connection, which no queue knows yet:
    four of the largest.  Not less than `message_bytes_max`."""
    uncommitted_bytes_max: int = 128 * 1024 * 1024
    """Bytes of messages in all transactions of a connection: nothing else limits one that never
    ends, not even an alarm, which keeps it from its commit."""


@dataclass(frozen=True, slots=True)
class UserRights:
    """Rights of a user of the first start: expressions, as in permissions, and where they hold."""

    configure: str = ".*"
    write: str = ".*"
    read: str = ".*"
    vhosts: str = ".*"
    """Finds the names of virtual hosts."""


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """Knowledge that a node of a cluster has of the others before it starts."""

    peers: Mapping[str, ListenAddress]
    """The nodes that found the cluster, by name, and where they listen for each other.  All of them
    are given the same, in the same order: without the first no other founds any.  A node that
    is not among them asks them to be let in."""
    secret: bytes = field(repr=False)
    listen: ListenAddress = ListenAddress("", CLUSTER_PORT)
    name: str = "fluffle"
    """Name that keeps nodes of two clusters on one network apart."""
    tls_cert: Path | None = None
    """None: links speak in the clear."""
    tls_key: Path | None = None
    tls_ca: Path | None = None
    admit: bool = True
    """True if a node without data that knows the secret is let in when it asks; else it waits for
    an operator."""
    advertise: ListenAddress | None = None
    """Where this node listens for the others, as they are to dial it, if it is not among `peers`.
    None: as they see it dial, at the port where it listens."""


@dataclass(frozen=True, slots=True)
class QuorumConfig:
    """Where quorum queues are, where their arguments do not say."""

    leader_locator: str = LEADER_LOCATORS[0]
    """Member that leads first."""
    initial_group_size: int = GROUP_SIZE
    reconciliation: bool = False
    """True if those that have fewer members than their target get more, as far as there are nodes.
    In the place of a node that was forgotten another comes also without."""
    reconciliation_interval_s: int = RECONCILE_INTERVAL_S
    target_group_size: int | None = None
    """The least target of all; arguments may say more.  None: they alone say."""
    consumer_timeout_ms: int | None = 1_800_000
    """Time for which a client may hold a message by default.  None: for ever."""
    global_qos: bool = False
    """True if a prefetch that the consumers of a channel share counts for those of quorum queues.
    RabbitMQ refuses them on such a channel."""
    relaxed_redeclare: bool = False
    """True if applications that take one for a classic queue may declare it again as such."""
    dead_letter_timeout_s: int = DEAD_LETTER_TIMEOUT_S
    """Time after which an unconfirmed dead letter is published again."""


@dataclass(frozen=True, slots=True)
class InterceptorConfig:
    """Headers that a node adds to messages: None adds nothing; OVERWRITE and KEEP decide about a
    header that the client has set."""

    received: str | None = None
    """When it came: header `timestamp_in_ms` and property timestamp."""
    routing_node: str | None = None
    """The name of this node: header `x-routed-by`."""
    sent: bool = False
    """True if each delivery says when that is: header `x-opt-rabbitmq-sent-time`."""


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """Listeners for MQTT, its logins, and the limits of sessions and retained messages."""

    listen: tuple[ListenAddress, ...] = ()
    tls_listen: tuple[ListenAddress, ...] = ()
    ws_listen: tuple[ListenAddress, ...] = ()
    """Addresses for MQTT over WebSocket."""
    ws_tls_listen: tuple[ListenAddress, ...] = ()
    proxy_protocol: bool = False
    ws_proxy_protocol: bool = False
    login_timeout_ms: int = 10_000
    """From accept to the answer to CONNECT; the handshake of a websocket counts."""
    connections_max: int | None = None
    ws_connections_max: int | None = None
    """Over websockets; they count among all as well."""

    allow_anonymous: bool = True
    """True if a client without a user, a password and a certificate that names one may log in …"""
    anonymous_user: str | None = DEFAULT_USER
    """… as this user.  None: it may not."""
    anonymous_password: str = field(default=DEFAULT_PASSWORD, repr=False)
    cert_login: bool = False
    """True if a certificate logs in who shows no user and no password."""
    cert_client_id_from: str | None = None
    """Name of a certificate that the client id must be, of `CERT_CLIENT_ID_FROM`; None: it may be
    any."""
    cert_san_type: str = CERT_NAME_TYPES[0]
    cert_san_index: int = 0
    """Index of the alternative name of that type that counts, from 0."""
    vhost: str = DEFAULT_VHOST
    """Virtual host of a client that names none, unless a port or a certificate does."""
    ignore_colons_in_user: bool = False
    """True if a user name that holds a colon names no virtual host before it."""

    exchange: str = "amq.topic"
    durable_queue_type: str | None = None
    """Queue type of sessions that outlive their connection; None: quorum in a cluster, classic on a
    node that is alone."""
    session_expiry_s_max: int | None = 86_400
    """A client may ask for less.  None: as long as it asks for."""
    keep_alive_s_max: int | None = None
    """Longest keep alive: clients that ask for more, or for none, get this (5.0).  None: the
    client decides."""
    prefetch: int = 1_000
    """Messages of QoS 1 and 2 that are sent to a client and not finished, at most; its Receive
    Maximum may be less."""
    receive_max: int = 1_024
    """Most messages under way from a client: the Receive Maximum of CONNACK in MQTT 5.0."""
    topic_alias_max: int = 16
    packet_bytes_max: int = DEFAULT_MESSAGE_BYTES_MAX + MQTT_PUBLISH_ROOM_BYTES
    """Largest packet of a client that is logged in."""
    unauthenticated_packet_bytes_max: int = 65_536
    """Largest packet of a client that is not logged in yet."""
    mailbox_soft_limit: int = 200
    """Most messages of QoS 0 that wait for a client which does not read; more are dropped.  0: none
    is dropped."""
    sparkplug: bool = False
    """True if the dot of a topic's first level spAv1.0 or spBv1.0 is no separator."""
    disconnect_on_unauthorized: bool = False
    """True if a PUBLISH or SUBSCRIBE without the right ends the connection."""
    server_reference: str | None = None
    """Server Reference for clients of MQTT 5.0 when this node stops or is drained: servers with
    spaces between them."""
    sys_interval_s: int = 10
    """How often the figures below $SYS are sent to those who subscribe to them; 0: never."""
    response_information: str | None = None
    """Given to a client that asks for it."""
    retained: bool = True
    """True if messages are retained at all."""
    retained_messages_max: int = 100_000
    """In one virtual host; so is the next."""
    retained_bytes_max: int = 1 << 30

    ws_path: str = "/ws"
    """Path of the websocket, besides /mqtt, which is always there."""
    ws_frame_bytes_max: int | None = None
    ws_idle_timeout_ms: int = 60_000
    """Nothing came for so long, not even the answer to a ping: the client is gone."""
    ws_origins: frozenset[str] | None = None
    """Sites whose pages may connect, as browsers name them.  None: all."""

    def has_certificates(self) -> bool:
        """True if the certificate of the node is shown at any of its addresses."""
        return bool(self.tls_listen or self.ws_tls_listen)


@dataclass(frozen=True, slots=True)
class Config:
    """All of it.  `users` maps names to passwords and is left out when a Config is printed."""

    node_name: str = field(default_factory=lambda: f"fluffle@{os.uname().nodename or 'localhost'}")
    data_dir: Path = Path("data")
    listen: ListenAddress | None = ListenAddress()
    """None: clients come with TLS alone."""
    also_listen: tuple[ListenAddress, ...] = ()
    """Further addresses for clients without TLS."""
    tls_listen: ListenAddress | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    """None when it is in the file of the certificate."""
    tls_ca: Path | None = None
    tls_verify: str = "none"
    tls_version_min: str = "1.2"
    tls_ciphers: str | None = None
    """Ciphers of TLS 1.2, as OpenSSL names them with colons between; None: its safe defaults."""
    tls_login_from: str = "distinguished_name"
    auth_mechanisms: frozenset[str] = frozenset(AUTH_MECHANISMS)
    proxy_protocol: bool = False
    event_exchange: bool = False
    """True if `amq.rabbitmq.event` is there, and hears what happens."""
    log_exchange: str | None = None
    """From which level on what is logged comes to `amq.rabbitmq.log` of the default virtual host;
    None: there is none."""
    default_vhost: str = DEFAULT_VHOST
    """The first of those that are made at the first start, if it is made."""
    management_listen: ListenAddress | None = None
    management_tls: bool = False
    """True if it is served with the certificate that clients are shown, and not in the clear."""
    metrics_listen: ListenAddress | None = None
    cluster: ClusterConfig | None = None
    """None for a node that is alone."""
    quorum: QuorumConfig = QuorumConfig()
    limits: Limits = Limits()
    mqtt: MqttConfig = MqttConfig()
    stamps: InterceptorConfig = InterceptorConfig()
    """Messages are as clients publish them unless it says otherwise."""
    users: Mapping[str, str] = field(
        default_factory=lambda: {DEFAULT_USER: DEFAULT_PASSWORD}, repr=False
    )
    """Made at the first start, with all rights in every virtual host …"""
    user_tags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    user_rights: Mapping[str, UserRights] = field(default_factory=dict)
    """… but for those that are named here."""
    vhosts: tuple[str, ...] = (DEFAULT_VHOST,)
    """Made at the first start."""
    definitions: Path | None = None
    """RabbitMQ's JSON of what is made at each start, if it is not there; or a directory of such."""
    definitions_skip_unchanged: bool = False
    """True if they are left alone if they are what was imported last."""
    default_queue_type: str | None = None
    """Default queue type of virtual hosts made from now on without one; None: classic."""
    loopback_users: frozenset[str] = frozenset({DEFAULT_USER})
    """Users that may log in from this machine alone, since their passwords are well known."""
    memory_bytes_max: int = field(
        default_factory=lambda: int(MEMORY_HIGH_WATERMARK * memory_bytes())
    )
    """Resident memory beyond which publishers are paused."""
    disk_free_bytes_min: int = 50_000_000
    """Space that must stay free in `data_dir`; with less, publishers are paused."""
    log_format: str = "text"
    log_level: str = "info"
    product: str = "RabbitMQ"
    """Clients choose their behaviour by this and the next, so we say whom we behave like …"""
    product_version: str = "4.3.5"
    version: str = VERSION
    """… and by this and the next who we are."""
    platform: str = field(
        default_factory=lambda: f"fluffle on {interpreter()} {sys.version.split()[0]}"
    )


def interpreter() -> str:
    """Return what `platform` reports of the interpreter, without that slow import."""
    name = sys.implementation.name
    return {"cpython": "CPython", "pypy": "PyPy"}.get(name, name)


def memory_bytes(root: Path = ROOT) -> int:
    """Memory this process may use: what the machine has, or its cgroups allow if that is less."""
    machine_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return min([machine_bytes, *memory_limits(root)])
