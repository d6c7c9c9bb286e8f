"""Virtual hosts: what is said of them, and their firehose."""

from __future__ import annotations

from collections.abc import Mapping

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


def delete_vhost(call: Invocation) -> None:
    call.client.call("vhosts.delete", name=call.words[0])


def update_vhost_metadata(call: Invocation) -> None:
    fields = metadata(call)
    if not fields:
        raise UsageFailure("say something: --description, --tags, --default-queue-type")
    call.client.call("vhosts.metadata", name=call.words[0], **fields)


def enable_protection(call: Invocation) -> None:
    call.client.call("vhosts.metadata", name=call.words[0], is_protected=True)


def disable_protection(call: Invocation) -> None:
    call.client.call("vhosts.metadata", name=call.words[0], is_protected=False)


def set_vhost_tags(call: Invocation) -> None:
    call.client.call("vhosts.metadata", name=call.words[0], tags=list(call.words[1:]))


def list_vhosts(call: Invocation) -> RowTable:
    columns = call.words or ("name",)
    for name in columns:
        if name not in COLUMNS:
            raise UsageFailure(f"Info key(s) {name} are not supported")
    return RowTable(columns, call.client.rows("vhosts.list"))


def trace_on(call: Invocation) -> Report:
    call.client.call("vhosts.trace", name=call.vhost, on=True)
    return Report([f"Trace enabled for vhost {call.vhost}"])


def trace_off(call: Invocation) -> Report:
    call.client.call("vhosts.trace", name=call.vhost, on=False)
    return Report([f"Trace disabled for vhost {call.vhost}"])


MISSING = {NOT_FOUND: DATA}

VERBS: Mapping[str, Verb] = {
    "add_vhost": Verb(add_vhost, "<vhost>", 'Adding vhost "{0}" ...', (1, 1), METADATA),
    "delete_vhost": Verb(
        delete_vhost, "<vhost>", 'Deleting vhost "{0}" ...', (1, 1), failures=MISSING
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
        enable_protection, "<vhost>", "Protecting virtual host {0} from removal...", (1, 1),
        failures=MISSING,
        note="not in RabbitMQ 4.0",
    ),
    "disable_vhost_protection_from_deletion": Verb(
        disable_protection, "<vhost>", "Removing protection of virtual host {0}...", (1, 1),
        failures=MISSING,
        note="not in RabbitMQ 4.0",
    ),
    "list_vhosts": Verb(list_vhosts, "[<column> ...]", "Listing vhosts ...", (0, None)),
    "trace_on": Verb(trace_on, "", 'Starting tracing for vhost "{vhost}" ...'),
    "trace_off": Verb(trace_off, "", 'Stopping tracing for vhost "{vhost}" ...'),
}  # fmt: skip
