"""Queues, exchanges, bindings, connections, channels, consumers: listed by columns, and ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from fluffle.broker.cli.client import VOLUMES, close_everywhere, rows_everywhere, with_volumes
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    FLAG,
    NOT_FOUND,
    TEXT,
    USAGE,
    Invocation,
    Report,
    RowTable,
    UsageFailure,
    Verb,
    calls,
)


@dataclass(frozen=True, slots=True)
class ListingVerb:
    """A listing with its columns, and the verb of the control socket behind it."""

    control_verb: str
    default: Sequence[str]
    """Columns where none are named."""
    others: Sequence[str]
    renamed: Mapping[str, str]
    """Columns that are called otherwise in our rows."""
    is_of_vhost: bool = True
    is_of_node: bool = False
    """True if each node knows its own alone."""
    protocol: str = ""
    """Prefix of the protocol's name, in a list of the connections of one protocol."""


UNNAMED: Mapping[str, str] = {}

QUEUES = ListingVerb(
    "queues.list",
    ("name", "messages"),
    (
        "durable", "auto_delete", "exclusive", "arguments", "policy", "operator_policy",
        "effective_policy_definition", "state", "type", "messages_ready",
        "messages_unacknowledged", "consumers", "leader", "members", "online", "vhost",
        "single_active_consumer_tag", "exclusive_consumer_tag", "owner_pid", "pid", *VOLUMES,
    ),
    {"owner_pid": "owner", "pid": "leader"},
)  # fmt: skip
EXCHANGES = ListingVerb(
    "exchanges.list",
    ("name", "type"),
    ("durable", "auto_delete", "internal", "arguments", "policy", "vhost"),
    UNNAMED,
)
BINDINGS = ListingVerb(
    "bindings.list",
    (
        "source_name", "source_kind", "destination_name", "destination_kind", "routing_key",
        "arguments",
    ),
    ("vhost",),
    UNNAMED,
)  # fmt: skip
CONNECTIONS = ListingVerb(
    "connections.list",
    ("user", "peer_host", "peer_port", "state"),
    (
        "name", "pid", "port", "host", "ssl", "channels", "protocol", "vhost", "timeout",
        "frame_max", "channel_max", "user_provided_name", "auth_mechanism", "client_properties",
        "connected_at", "ssl_protocol", "ssl_key_exchange", "ssl_cipher", "ssl_hash",
        "peer_cert_subject", "peer_cert_issuer", "peer_cert_validity",
    ),
    {"pid": "name"},
    is_of_vhost=False,
    is_of_node=True,
)  # fmt: skip
MQTT_CONNECTIONS = ListingVerb(
    "connections.of_protocol",
    ("client_id", "conn_name"),
    (
        "clean_sess", "connection_state", "exchange", "host", "messages_unacknowledged",
        "messages_unconfirmed", "peer_host", "peer_port", "pid", "port", "prefetch", "protocol",
        "recv_cnt", "recv_oct", "send_cnt", "send_oct", "send_pend", "ssl", "ssl_cipher",
        "ssl_hash", "ssl_key_exchange", "ssl_login_name", "ssl_protocol", "user",
        "user_property", "vhost", "will_msg",
    ),
    {"conn_name": "name", "pid": "name", "connection_state": "state"},
    is_of_vhost=False,
    is_of_node=True,
    protocol="MQTT",
)  # fmt: skip
WEB_MQTT_CONNECTIONS = replace(MQTT_CONNECTIONS, protocol="Web MQTT")
CHANNELS = ListingVerb(
    "channels.list",
    ("pid", "user", "consumer_count", "messages_unacknowledged"),
    (
        "name", "connection", "number", "vhost", "transactional", "confirm",
        "messages_unconfirmed", "messages_uncommitted", "acks_uncommitted", "prefetch_count",
        "global_prefetch_count",
    ),
    {"pid": "name"},
    is_of_vhost=False,
    is_of_node=True,
)  # fmt: skip
CONSUMERS = ListingVerb(
    "consumers.list",
    (
        "queue_name", "channel_pid", "consumer_tag", "ack_required", "prefetch_count", "active",
        "arguments",
    ),
    ("exclusive", "priority", "activity_status", "messages_unacknowledged"),
    {"channel_pid": "channel"},
    is_of_node=True,
)  # fmt: skip


def columns_of(inventory: ListingVerb, call: Invocation) -> Sequence[str]:
    """Return the columns that were asked for.  UsageFailure for one that there is not."""
    known = {*inventory.default, *inventory.others}
    columns = [name for word in call.words for name in word.split(",") if name]
    for name in columns:
        if name not in known:
            raise UsageFailure(f"Info key(s) {name} are not supported")
    return columns or inventory.default


def listed(inventory: ListingVerb, call: Invocation) -> RowTable:
    where = {"vhost": call.vhost} if inventory.is_of_vhost else {}
    if inventory.protocol:
        where["protocol"] = inventory.protocol
    name, client = inventory.control_verb, call.client
    is_of_node = inventory.is_of_node
    rows = rows_everywhere(client, name, **where) if is_of_node else client.rows(name, **where)
    columns = columns_of(inventory, call)
    if not {*VOLUMES}.isdisjoint(columns):
        rows = with_volumes(client, rows, call.vhost)
    return RowTable(columns, shown(inventory, call, rows))


def shown(inventory: ListingVerb, call: Invocation, rows: Iterator[Row]) -> Iterator[Row]:
    """Return rows by RabbitMQ's names.  `--online` and `--offline` are about queues."""
    for row in rows:
        is_down = row.get("state") in ("down", "minority", "crashed")
        if (call.has("online") and is_down) or (call.has("offline") and not is_down):
            continue
        if inventory is CONNECTIONS and row.get("type") == "direct":
            continue  # RabbitMQ's lists have those of sockets
        if row.get("type") == "classic" and row["members"] is None:
            row |= {"leader": row["node"], "members": [row["node"]]}
        yield {**row, **{name: row[ours] for name, ours in inventory.renamed.items()}}


def verb(inventory: ListingVerb, banner: str, note: str = "", **options: str) -> Verb:
    return Verb(
        lambda call: listed(inventory, call),
        "[<column> ...]",
        banner,
        (0, None),
        options,
        check=lambda call: columns_of(inventory, call),
        note=note,
        columns=(*inventory.default, *inventory.others),
    )


MQTT_NOTE = "`pid` is the name of the connection, and there is no `retainer_pid`"
PID = "`pid` is a name, since there are no Erlang processes"

VERBS: Mapping[str, Verb] = {
    "list_queues": verb(
        QUEUES,
        "Timeout: 60.0 seconds ...\nListing queues for vhost {vhost} ...",
        f"{PID} (of the leader); arguments in JSON are an object; --local is accepted",
        online=FLAG, offline=FLAG, local=FLAG,
    ),
    "list_exchanges": verb(EXCHANGES, "Listing exchanges for vhost {vhost} ..."),
    "list_bindings": verb(BINDINGS, "Listing bindings for vhost {vhost}..."),
    "list_connections": verb(CONNECTIONS, "Listing connections ...", PID),
    "list_mqtt_connections": verb(MQTT_CONNECTIONS, "Listing MQTT connections ...", MQTT_NOTE),
    "list_web_mqtt_connections": verb(
        WEB_MQTT_CONNECTIONS, "Listing Web MQTT connections ...", MQTT_NOTE
    ),
    "list_channels": verb(CHANNELS, "Listing channels ...", PID),
    "list_consumers": verb(CONSUMERS, "Listing consumers in vhost {vhost} ...", PID),
}  # fmt: skip


def delete_queue(call: Invocation) -> Report:
    messages = call.client.call(
        "queues.delete",
        name=call.words[0],
        vhost=call.vhost,
        if_empty=call.has("if-empty"),
        if_unused=call.has("if-unused"),
    )["messages"]
    count = "an unknown number of" if messages is None else messages
    return Report([f"Queue was successfully deleted with {count} ready messages"])


def close_connection(call: Invocation) -> None:
    """Close a connection by the name that `list_connections name` or `pid` shows."""
    close_everywhere(call.client, name=call.words[0], reason=call.word(1))


def close_all_connections(call: Invocation) -> Report:
    which = {"everybody": True} if call.has("global") else {"vhost": call.vhost}
    closed = close_everywhere(call.client, reason=call.words[0], **which)
    return Report([f"Closed {closed} connections"])


def close_all_user_connections(call: Invocation) -> None:
    close_everywhere(call.client, user=call.words[0], reason=call.word(1))


def delete_banner(call: Invocation) -> str:
    conditions = [
        text
        for option, text in (("if-empty", "is empty"), ("if-unused", "is unused"))
        if call.has(option)
    ]
    if_ = f" if queue {' and '.join(conditions)}" if conditions else ""
    return f"Deleting queue '{call.word(0)}' on vhost '{call.vhost}'{if_} ..."


def close_all_banner(call: Invocation) -> str:
    where = "" if call.has("global") else f" in vhost {call.vhost}"
    return f"Closing all connections{where}, reason: {call.word(0)}..."


OPERATIONS: Mapping[str, Verb] = {
    "purge_queue": Verb(
        calls("queues.purge", "name", in_vhost=True), "<queue>",
        "Purging queue '{0}' in vhost '{vhost}' ...", (1, 1),
        failures={NOT_FOUND: DATA},
    ),
    "delete_queue": Verb(
        delete_queue, "<queue>", delete_banner, (1, 1), {"if-empty": FLAG, "if-unused": FLAG,
        "force": FLAG}, {NOT_FOUND: USAGE}, {NOT_FOUND: "Queue not found"},
        note="--if-empty and --if-unused count for quorum queues, too; --force is accepted",
    ),
    "close_connection": Verb(
        close_connection, "<connection> <explanation>",
        "Closing connection {0}, reason: {1}...", (2, 2),
        note="a connection is named as list_connections shows it, not by an Erlang process",
    ),
    "close_all_connections": Verb(
        close_all_connections, "<explanation>", close_all_banner, (1, 1),
        {"global": FLAG, "per-connection-delay": TEXT, "limit": TEXT},
        note="connections of this node; --limit and --per-connection-delay are accepted",
    ),
    "close_all_user_connections": Verb(
        close_all_user_connections, "<username> <explanation>",
        "Closing connections of user {0}, reason: {1}...", (2, 2),
        note="connections of this node",
    ),
}  # fmt: skip
