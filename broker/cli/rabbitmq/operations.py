"""Queues that are emptied, and connections that are closed."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.all_nodes import close_everywhere
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    FLAG,
    NOT_FOUND,
    TEXT,
    USAGE,
    Invocation,
    Report,
    Verb,
)


def purge_queue(call: Invocation) -> None:
    call.client.call("queues.purge", name=call.words[0], vhost=call.vhost)


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


def deleting(call: Invocation) -> str:
    conditions = [
        text
        for option, text in (("if-empty", "is empty"), ("if-unused", "is unused"))
        if call.has(option)
    ]
    if_ = f" if queue {' and '.join(conditions)}" if conditions else ""
    return f"Deleting queue '{call.word(0)}' on vhost '{call.vhost}'{if_} ..."


def closing_all(call: Invocation) -> str:
    where = "" if call.has("global") else f" in vhost {call.vhost}"
    return f"Closing all connections{where}, reason: {call.word(0)}..."


VERBS: Mapping[str, Verb] = {
    "purge_queue": Verb(
        purge_queue, "<queue>", "Purging queue '{0}' in vhost '{vhost}' ...", (1, 1),
        failures={NOT_FOUND: DATA},
    ),
    "delete_queue": Verb(
        delete_queue, "<queue>", deleting, (1, 1), {"if-empty": FLAG, "if-unused": FLAG,
        "force": FLAG}, {NOT_FOUND: USAGE}, {NOT_FOUND: "Queue not found"},
        note="--if-empty and --if-unused count for quorum queues, too; --force is accepted",
    ),
    "close_connection": Verb(
        close_connection, "<connection> <explanation>",
        "Closing connection {0}, reason: {1}...", (2, 2),
        note="a connection is named as list_connections shows it, not by an Erlang process",
    ),
    "close_all_connections": Verb(
        close_all_connections, "<explanation>", closing_all, (1, 1),
        {"global": FLAG, "per-connection-delay": TEXT, "limit": TEXT},
        note="connections of this node; --limit and --per-connection-delay are accepted",
    ),
    "close_all_user_connections": Verb(
        close_all_user_connections, "<username> <explanation>",
        "Closing connections of user {0}, reason: {1}...", (2, 2),
        note="connections of this node",
    ),
}  # fmt: skip
