"""Lists by columns: queues, exchanges, bindings, connections, channels, consumers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from fluffle.broker.cli.all_nodes import VOLUMES, rows_everywhere, with_volumes
from fluffle.broker.cli.client import Row
from fluffle.broker.cli.rabbitmq.verb import FLAG, Invocation, RowTable, UsageFailure, Verb

Enrich = Callable[[Invocation, Iterator[Row]], Iterator[Row]]


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
    """Whether each node knows its own alone."""


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
    )


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
    "list_channels": verb(CHANNELS, "Listing channels ...", PID),
    "list_consumers": verb(CONSUMERS, "Listing consumers in vhost {vhost} ...", PID),
}  # fmt: skip
