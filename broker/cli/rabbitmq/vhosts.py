"""Virtual hosts: what is said of them, and their firehose."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    NOT_FOUND,
    TEXT,
    Invocation,
    Report,
    RowTable,
    UsageFailure,
    Verb,
    calls,
)

METADATA: Mapping[str, str] = {"description": TEXT, "tags": TEXT, "default-queue-type": TEXT}
COLUMNS = ("name", "tracing", "description", "tags", "default_queue_type", "metadata")


def metadata(call: Invocation) -> Row:
    """Return what was said of one."""
    options = call.options
    tags = options.get("tags")
    fields = {
        "description": options.get("description"),
        "tags": None if tags is None else [tag for tag in tags.split(",") if tag],
        "queue_type": options.get("default-queue-type"),
    }
    return {name: value for name, value in fields.items() if value is not None}


def is_there(call: Invocation, name: str) -> bool:
    return any(row["name"] == name for row in call.client.rows("vhosts.list"))


def add_vhost(call: Invocation) -> None:
    """Add a virtual host; one that is there already stays as it is."""
    if not is_there(call, call.words[0]):
        call.client.call("vhosts.add", name=call.words[0], **metadata(call))


def update_vhost_metadata(call: Invocation) -> None:
    fields = metadata(call)
    if not fields:
        raise UsageFailure("say something: --description, --tags, --default-queue-type")
    call.client.call("vhosts.metadata", name=call.words[0], **fields)


def protect(call: Invocation, *, is_protected: bool) -> None:
    call.client.call("vhosts.metadata", name=call.words[0], is_protected=is_protected)


def set_vhost_tags(call: Invocation) -> None:
    call.client.call("vhosts.metadata", name=call.words[0], tags=list(call.words[1:]))


def list_vhosts(call: Invocation) -> RowTable:
    columns = call.words or ("name",)
    for name in columns:
        if name not in COLUMNS:
            raise UsageFailure(f"Info key(s) {name} are not supported")
    return RowTable(columns, call.client.rows("vhosts.list"))


def trace(call: Invocation, *, on: bool) -> Report:
    call.client.call("vhosts.trace", name=call.vhost, on=on)
    return Report([f"Trace {'enabled' if on else 'disabled'} for vhost {call.vhost}"])


MISSING = {NOT_FOUND: DATA}

VERBS: Mapping[str, Verb] = {
    "add_vhost": Verb(add_vhost, "<vhost>", 'Adding vhost "{0}" ...', (1, 1), METADATA),
    "delete_vhost": Verb(
        calls("vhosts.delete", "name"), "<vhost>", 'Deleting vhost "{0}" ...', (1, 1),
        failures=MISSING,
    ),
    "update_vhost_metadata": Verb(
        update_vhost_metadata, "<vhost>", 'Updating metadata of vhost "{0}" ...', (1, 1), METADATA,
        MISSING,
    ),
    "set_vhost_tags": Verb(
        set_vhost_tags, "<vhost> <tag> [...]",
        lambda call: f'Setting tags for virtual host "{call.word(0)}" to '
        f"[{', '.join(call.words[1:])}] ...",
        (1, None), failures=MISSING,
    ),
    "enable_vhost_protection_from_deletion": Verb(
        partial(protect, is_protected=True), "<vhost>",
        "Protecting virtual host {0} from removal...", (1, 1),
        failures=MISSING,
        note="not in RabbitMQ 4.0",
    ),
    "disable_vhost_protection_from_deletion": Verb(
        partial(protect, is_protected=False), "<vhost>",
        "Removing protection of virtual host {0}...", (1, 1),
        failures=MISSING,
        note="not in RabbitMQ 4.0",
    ),
    "list_vhosts": Verb(list_vhosts, "[<column> ...]", "Listing vhosts ...", (0, None)),
    "trace_on": Verb(partial(trace, on=True), "", 'Starting tracing for vhost "{vhost}" ...'),
    "trace_off": Verb(partial(trace, on=False), "", 'Stopping tracing for vhost "{vhost}" ...'),
}  # fmt: skip
