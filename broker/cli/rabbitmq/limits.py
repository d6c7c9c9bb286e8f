"""Limits of users and of virtual hosts, which RabbitMQ writes as JSON."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fluffle.broker.cli.client import Row
from fluffle.broker.cli.rabbitmq.verb import (
    FLAG,
    NO_USER,
    NOT_FOUND,
    TEXT,
    Failure,
    Invocation,
    Output,
    Report,
    RowTable,
    Verb,
)

OF_USERS: Mapping[str, str] = {"max-connections": "max_connections", "max-channels": "max_channels"}
OF_VHOSTS: Mapping[str, str] = {"max-connections": "max_connections", "max-queues": "max_queues"}
"""By RabbitMQ's names: the columns of our lists."""


def parsed(text: str) -> dict[str, int | None]:
    """A negative number is no limit.  Failure."""
    try:
        limits = json.loads(text)
    except ValueError as error:
        raise Failure(f"Could not parse JSON document: {error}") from error
    if not isinstance(limits, dict):
        raise Failure("Could not parse JSON document: limits are an object")
    return {
        name: None if isinstance(limit, int) and limit < 0 else limit
        for name, limit in limits.items()
    }


def limits_of(row: Row, names: Mapping[str, str]) -> dict[str, int]:
    """Return those that there are."""
    return {name: row[column] for name, column in names.items() if row[column] is not None}


def shown(limits: Mapping[str, int]) -> str:
    return json.dumps(limits, separators=(",", ":"))


def set_user_limits(call: Invocation) -> None:
    call.client.call("users.limits", name=call.words[0], limits=parsed(call.words[1]))


def clear_user_limits(call: Invocation) -> None:
    name, limit = call.words
    names = OF_USERS if limit == "all" else [limit]
    call.client.call("users.limits", name=name, limits=dict.fromkeys(names))


def list_user_limits(call: Invocation) -> Output:
    found = {row["user"]: limits_of(row, OF_USERS) for row in call.client.rows("users.list")}
    if call.has("global"):
        return RowTable(("user", "limits"), limited("user", found))
    name = call.options.get("user", "guest")
    if name not in found:
        raise Failure(f"User {name} does not exist", NO_USER)
    return Report([shown(found[name])], found[name])


def limited(what: str, found: Mapping[str, Mapping[str, int]]) -> Iterator[Row]:
    """Yield only those that have limits."""
    return ({what: name, "limits": shown(limits)} for name, limits in found.items() if limits)


def set_vhost_limits(call: Invocation) -> None:
    call.client.call("vhosts.limits", name=call.vhost, limits=parsed(call.words[0]))


def clear_vhost_limits(call: Invocation) -> None:
    call.client.call("vhosts.limits", name=call.vhost, limits=dict.fromkeys(OF_VHOSTS))


def list_vhost_limits(call: Invocation) -> Output:
    found = {row["name"]: limits_of(row, OF_VHOSTS) for row in call.client.rows("vhosts.list")}
    if call.has("global"):
        return RowTable(("vhost", "limits"), limited("vhost", found))
    if call.vhost not in found:
        raise Failure(f"Virtual host '{call.vhost}' does not exist")
    limits: Any = found[call.vhost]
    return Report([shown(limits) if limits else ""], limits)


def for_users(call: Invocation) -> str:
    if call.has("global"):
        return "Listing limits for all users ..."
    return f'Listing limits for user "{call.options.get("user", "guest")}" ...'


def for_vhosts(call: Invocation) -> str:
    if call.has("global"):
        return "Listing limits for all vhosts ..."
    return f'Listing limits for vhost "{call.vhost}" ...'


def clearing(call: Invocation) -> str:
    which = "all limits" if call.word(1) == "all" else f'"{call.word(1)}" limit'
    return f'Clearing {which} for user "{call.word(0)}" ...'


VERBS: Mapping[str, Verb] = {
    "set_user_limits": Verb(
        set_user_limits, "<username> <definition>",
        'Setting user limits to "{1}" for user "{0}" ...', (2, 2),
    ),
    "clear_user_limits": Verb(
        clear_user_limits, "<username> <limit> | all", clearing, (2, 2),
        failures={NOT_FOUND: NO_USER},
    ),
    "list_user_limits": Verb(
        list_user_limits, "", for_users, options={"user": TEXT, "global": FLAG}
    ),
    "set_vhost_limits": Verb(
        set_vhost_limits, "<definition>",
        'Setting vhost limits to "{0}" for vhost "{vhost}" ...', (1, 1),
    ),
    "clear_vhost_limits": Verb(
        clear_vhost_limits, "", 'Clearing vhost "{vhost}" limits ...'
    ),
    "list_vhost_limits": Verb(
        list_vhost_limits, "", for_vhosts, options={"global": FLAG}
    ),
}  # fmt: skip
