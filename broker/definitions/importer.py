"""Definitions into a node: what they name is made, and nothing is taken away.

RabbitMQ's order: users, virtual hosts, permissions, exchanges, topic permissions, parameters,
queues, bindings.  An exchange or a queue that is there stays as it is; names that begin with
`amq.` are skipped.  What this broker refuses, such as a queue type that it does not have, is
skipped too.  A right that cannot be given as it stands ends the import.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias

from fluffle.broker.access import access
from fluffle.broker.access.access import Permission, TopicPermission, User, permissions_of
from fluffle.broker.access.limits import PROTECTED, UserLimits, VhostLimits
from fluffle.broker.access.passwords import (
    SHA256,
    PasswordHash,
    UnusableHash,
    check_storable,
    hashed,
)
from fluffle.broker.base.callbacks import answer_of
from fluffle.broker.base.errors import BrokerError
from fluffle.broker.definitions.catalogue import Catalogue
from fluffle.broker.definitions.changes import keep, set_vhost
from fluffle.broker.definitions.file_format import (
    ENTRIES_AT_ONCE,
    ORDER,
    Definitions,
    DefinitionsError,
    mapping_of,
    table_of,
)
from fluffle.broker.definitions.parameters import VHOST_LIMITS, set_operator_policy, set_policy
from fluffle.broker.durability.fact_codec import guarantee_by_name
from fluffle.broker.metadata.change import NOTHING, Change, Entry, Kind
from fluffle.broker.metadata.metadata import Decide, Metadata
from fluffle.broker.patterns.patterns import UnusablePattern
from fluffle.broker.policies.policies import OPERATOR_POLICY
from fluffle.broker.queues.arguments import (
    DEFAULT_QUEUE_TYPE,
    Declaration,
    with_type,
)
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import RESERVED_PREFIX, ExchangeSpec
from fluffle.broker.routing.topic_filter import filter_of
from fluffle.broker.vhosts.queue_changes import bind, declare_exchange, declare_queue
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.spec import SHORTSTR_BYTES_MAX

DESCRIBED: Mapping[str, object] = {"description": "", "tags": []}
"""Description and tags of a virtual host that gives none."""
POLICY_FIELDS = ("pattern", "definition", "priority", "apply-to")
NO_OWNER = None

Put: TypeAlias = Callable[[Catalogue, Entry], Change]
"""Function that makes the change for an entry."""
Finished: TypeAlias = Callable[[list[str]], None]
"""Called with what was skipped and why, a sentence each."""


class SkippedEntry(Exception):
    """Why an entry was left out."""


async def import_definitions(
    definitions: Definitions, catalogue: Catalogue, metadata: Metadata
) -> list[str]:
    """Make what `definitions` name, some of a category at a time; what was skipped and why.

    DefinitionsError for a user or a permission that cannot be taken; what came before stays.
    """
    skipped: list[str] = []
    for category in ORDER:
        entries = definitions[category]
        for at in range(0, len(entries), ENTRIES_AT_ONCE):
            some = entries[at : at + ENTRIES_AT_ONCE]
            skipped += await answer_of(partial(import_entries, category, some, catalogue, metadata))
            await asyncio.sleep(0)
    return skipped


def import_entries(
    category: str,
    entries: Sequence[Entry],
    catalogue: Catalogue,
    metadata: Metadata,
    finished: Finished,
) -> None:
    """Import some entries of a category, as `import_definitions` does: none waits for another."""
    begun = ImportBatch(finished)
    put = CATEGORIES[category]
    for entry in entries:
        where = f"{category}, {_shown(entry)}"
        begun.begin(where, partial(put, catalogue, entry), metadata)
    begun.over()


class ImportBatch:
    """Entries that were begun, and what was skipped of them.  All are over once `over` is called
    for each, and once more."""

    def __init__(self, finished: Finished) -> None:
        self._finished = finished
        self._open_count = 1
        self._skipped: list[str] = []

    def begin(self, where: str, decide: Decide, metadata: Metadata) -> None:
        """Have an entry made.  DefinitionsError."""

        def skip(reason: str) -> None:
            self._skipped.append(f"{where}: {reason}")
            self.over()

        self._open_count += 1
        try:
            metadata.change(decide, self.over, lambda error: skip(error.explanation))
        except SkippedEntry as skipped:
            skip(str(skipped))
        except BrokerError as error:
            skip(error.explanation)
        except (UnusableHash, UnusablePattern, DefinitionsError) as error:
            raise DefinitionsError(f"{where}: {error}") from error

    def over(self) -> None:
        """Note that one of the entries is done."""
        self._open_count -= 1
        if not self._open_count:
            self._finished(self._skipped)


def _shown(entry: Entry) -> str:
    names = ("vhost", "user", "exchange", "source", "destination", "name")
    return " ".join(f"{name} '{entry[name]}'" for name in names if name in entry)


def put_user(catalogue: Catalogue, entry: Entry) -> Change:
    tags = tags_of(entry.get("tags", []))
    limits = mapping_of(entry.get("limits", {}))
    user = User(
        entry["name"],
        password_of(entry),
        tuple(map(str, tags)),
        UserLimits(limit(limits, "max-connections"), limit(limits, "max-channels")),
    )
    change = access.put_user(user)
    for vhost, permission in permissions_of(mapping_of(entry.get("permissions", {}))).items():
        permission.check()
        _existing_vhost(catalogue, {"vhost": vhost})
        change = change.joined(access.put_permission(user.name, vhost, permission))
    return change


def password_of(entry: Entry) -> PasswordHash | None:
    """Return a hash as it was exported, or one made of a plain password; blank is none."""
    if entry.get("password_hash"):
        stored = PasswordHash(entry["password_hash"], entry.get("hashing_algorithm", SHA256))
        check_storable(stored)
        return stored
    return hashed(entry["password"].encode()) if entry.get("password") else None


def tags_of(value: Any) -> Any:
    """Return a list of them, or a text with commas between."""
    if not isinstance(value, str):
        return value
    return [tag.strip() for tag in value.split(",") if tag.strip()]


def limit(limits: Mapping[str, Any], name: str) -> int | None:
    value = limits.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int):
        raise DefinitionsError(f"'{name}' is no number")
    return value


def put_vhost(catalogue: Catalogue, entry: Entry) -> Change:
    """Limits stand in the parameters, the default type of queues in the metadata; RabbitMQ does not
    read what it writes of both beside them.  As with it, one that is there has the description and
    the tags of the entry from then on, also if that has none."""
    vhost = catalogue.vhosts.get(entry["name"])
    described = vhost.metadata if vhost is not None else ()
    before = {name: blank for name, blank in DESCRIBED.items() if name in described}
    beside = {name: entry[name] for name in DESCRIBED if name in entry}
    metadata = {**before, **entry.get("metadata", {}), **beside}
    if "tags" in metadata:
        metadata["tags"] = tags_of(metadata["tags"])
    if not isinstance(metadata.get(PROTECTED, False), bool):
        raise DefinitionsError(f"'{PROTECTED}' is neither true nor false")
    return set_vhost(catalogue, entry["name"], metadata=metadata)


def put_permission(catalogue: Catalogue, entry: Entry) -> Change:
    user, vhost = _existing_user(catalogue, entry), _existing_vhost(catalogue, entry)
    permission = Permission(entry["configure"], entry["write"], entry["read"])
    permission.check()
    return access.put_permission(user, vhost.name, permission)


def put_topic_permission(catalogue: Catalogue, entry: Entry) -> Change:
    user, vhost = _existing_user(catalogue, entry), _existing_vhost(catalogue, entry)
    permission = TopicPermission(entry["write"], entry["read"])
    permission.check()
    return access.put_topic_permission(user, vhost.name, entry["exchange"], permission)


def put_parameter(catalogue: Catalogue, entry: Entry) -> Change:
    if entry["component"] == OPERATOR_POLICY:
        return put_operator_policy(catalogue, entry)
    if entry["component"] != VHOST_LIMITS:
        return keep(Kind.PARAMETER, entry)
    limits = mapping_of(entry["value"])
    return set_vhost(
        catalogue,
        _existing_vhost(catalogue, entry).name,
        limits=VhostLimits(limit(limits, "max-connections"), limit(limits, "max-queues")),
    )


def put_global_parameter(_catalogue: Catalogue, entry: Entry) -> Change:
    is_ours = entry["name"].startswith("internal")
    return NOTHING if is_ours else keep(Kind.GLOBAL_PARAMETER, entry)


def put_policy(catalogue: Catalogue, entry: Entry) -> Change:
    vhost = _existing_vhost(catalogue, entry)
    fields = {name: entry[name] for name in POLICY_FIELDS if name in entry}
    return set_policy(catalogue, vhost.name, entry["name"], fields)


def put_operator_policy(catalogue: Catalogue, entry: Entry) -> Change:
    """RabbitMQ writes its definition as pairs, which it cannot read itself."""
    vhost, fields = _existing_vhost(catalogue, entry), mapping_of(entry["value"])
    if "definition" in fields:
        fields = fields | {"definition": mapping_of(fields["definition"])}
    return set_operator_policy(catalogue, vhost.name, entry["name"], fields)


def put_exchange(catalogue: Catalogue, entry: Entry) -> Change:
    vhost = _existing_vhost(catalogue, entry)
    name = _unreserved(entry["name"])
    if vhost.topology.find(name) is not None:
        return NOTHING
    return declare_exchange(
        vhost,
        ExchangeSpec(
            name,
            entry["type"],
            durable=entry.get("durable", True),
            auto_delete=entry.get("auto_delete", False),
            internal=entry.get("internal", False),
            arguments=table_of(mapping_of(entry.get("arguments", {}))),
        ),
        catalogue.nodes.entries,
    )


def put_queue(catalogue: Catalogue, entry: Entry) -> Change:
    """Declare a queue; a type beside the arguments counts for nothing, as with RabbitMQ."""
    vhost = _existing_vhost(catalogue, entry)
    name = _unreserved(entry["name"])
    if name in vhost.queues:
        return NOTHING
    declared = Declaration(
        name,
        durable=entry.get("durable", True),
        auto_delete=entry.get("auto_delete", False),
        arguments=table_of(mapping_of(entry.get("arguments", {}))),
        guarantee=guarantee_by_name(name),
    )
    declared = with_type(declared, vhost.metadata.get(DEFAULT_QUEUE_TYPE))
    return declare_queue(vhost, declared, NO_OWNER)


def put_binding(catalogue: Catalogue, entry: Entry) -> Change:
    is_to_queue = entry["destination_type"] == DestinationKind.QUEUE.value
    binding = Binding(
        entry["source"],
        entry["destination"],
        DestinationKind.QUEUE if is_to_queue else DestinationKind.EXCHANGE,
        entry["routing_key"],
        table_of(mapping_of(entry.get("arguments", {}))),
    )
    if filter_of(binding) is None:  # the key of a long filter is not used
        _short(binding.routing_key, "routing key")
    return bind(_existing_vhost(catalogue, entry), binding, NO_OWNER)


def _unreserved(name: str) -> str:
    if name.startswith(RESERVED_PREFIX) or not name:
        raise SkippedEntry("such names are the broker's own")
    return _short(name, "name")


def _short(text: str, what: str) -> str:
    """Check that a text fits AMQP's short strings, so that clients can be sent it."""
    if len(text.encode(errors="surrogatepass")) > SHORTSTR_BYTES_MAX:
        raise SkippedEntry(f"a {what} has at most {SHORTSTR_BYTES_MAX} bytes")
    return text


def _existing_user(catalogue: Catalogue, entry: Entry) -> str:
    name: str = entry["user"]
    if name not in catalogue.access.users:
        raise DefinitionsError(f"there is no user '{name}'")
    return name


def _existing_vhost(catalogue: Catalogue, entry: Entry) -> VirtualHost:
    vhost = catalogue.vhosts.get(entry["vhost"])
    if vhost is None:
        raise DefinitionsError(f"there is no virtual host '{entry['vhost']}'")
    return vhost


CATEGORIES: Mapping[str, Put] = {
    "users": put_user,
    "vhosts": put_vhost,
    "permissions": put_permission,
    "exchanges": put_exchange,
    "topic_permissions": put_topic_permission,
    "global_parameters": put_global_parameter,
    "policies": put_policy,
    "parameters": put_parameter,
    "queues": put_queue,
    "bindings": put_binding,
}
"""Functions that make the change for an entry, by category."""
