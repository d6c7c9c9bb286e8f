"""Users, their permissions in virtual hosts, and limits of users and of virtual hosts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from fluffle.broker.access.passwords import SHA256, hashed
from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    FLAG,
    NO_USER,
    NOT_FOUND,
    SOFTWARE,
    TEXT,
    Failure,
    Invocation,
    Output,
    Report,
    RowTable,
    Verb,
    calls,
    lists,
)

REFUSED = 403
EXISTS = 406

GRANT = (
    "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help "
    "set_permissions' to learn more."
)


def stored(call: Invocation) -> dict[str, str]:
    """Return the hash of the second word, or of what is read; or that word itself if it is one."""
    text = call.words[1] if len(call.words) > 1 else call.standard_input()
    if call.has("pre-hashed-password"):
        return {"password_hash": text, "hashing_algorithm": SHA256}
    if not text:
        raise Failure("password cannot be an empty string", DATA)
    return {"password_hash": hashed(text.encode(), SHA256).hash, "hashing_algorithm": SHA256}


def add_user(call: Invocation) -> Report:
    call.client.call("users.add", name=call.words[0], **stored(call))
    return Report([] if call.has("silent") else [GRANT])


def change_password(call: Invocation) -> None:
    call.client.call("users.password", name=call.words[0], **stored(call))


def clear_password(call: Invocation) -> None:
    call.client.call("users.password", name=call.words[0], password_hash="")


def delete_user(call: Invocation) -> None:
    """Delete a user; one that does not exist is gone already."""
    name = call.words[0]
    if any(row["user"] == name for row in call.client.rows("users.list")):
        call.client.call("users.delete", name=name, force=True)


def set_user_tags(call: Invocation) -> None:
    call.client.call("users.tags", name=call.words[0], tags=list(call.words[1:]))


def authenticate_user(call: Invocation) -> Report:
    text = call.words[1] if len(call.words) > 1 else call.standard_input()
    call.client.call("users.authenticate", name=call.words[0], password=text)
    return Report(["Success"])


def hash_password(call: Invocation) -> Report:
    text = call.words[0] if call.words else call.standard_input()
    return Report([hashed(text.encode(), SHA256).hash])


HASHED = {"pre-hashed-password": FLAG}


RIGHTS = ("configure", "write", "read")


def set_permissions_globally(call: Invocation) -> None:
    user, configure, write, read = call.words
    for row in list(call.client.rows("vhosts.list")):
        call.client.call(
            "permissions.set",
            user=user, vhost=row["name"], configure=configure, write=write, read=read,
        )  # fmt: skip


def clear_topic_permissions(call: Invocation) -> None:
    exchange = call.words[1] if len(call.words) > 1 else None
    call.client.call(
        "permissions.topic_clear", user=call.words[0], vhost=call.vhost, exchange=exchange
    )


def clearing_topics(call: Invocation) -> str:
    on = f' on "{call.words[1]}"' if len(call.words) > 1 else ""
    return (
        f"Clearing topic permissions{on} for user "
        f'"{call.word(0)}" in vhost "{call.vhost}" ...'
    )  # fmt: skip


VERBS: Mapping[str, Verb] = {
    "add_user": Verb(
        add_user, "<username> [<password>]", 'Adding user "{0}" ...', (1, 2), HASHED,
        {EXISTS: SOFTWARE},
    ),
    "change_password": Verb(
        change_password, "<username> [<password>]", 'Changing password for user "{0}" ...', (1, 2),
        HASHED,
    ),
    "clear_password": Verb(
        clear_password, "<username>", 'Clearing password for user "{0}" ...', (1, 1)
    ),
    "delete_user": Verb(delete_user, "<username>", 'Deleting user "{0}" ...', (1, 1)),
    "set_user_tags": Verb(
        set_user_tags, "<username> <tag> [...]",
        lambda call: f'Setting tags for user "{call.word(0)}" to [{", ".join(call.words[1:])}] ...',
        (1, None),
    ),
    "authenticate_user": Verb(
        authenticate_user, "<username> [<password>]", 'Authenticating user "{0}" ...', (1, 2),
        failures={REFUSED: DATA, NOT_FOUND: NO_USER},
    ),
    "list_users": Verb(lists("users.list", ("user", "tags")), "", "Listing users ..."),
    "hash_password": Verb(
        hash_password, "[<cleartext_password>]", "Will hash password {0}", (0, 1)
    ),
    "set_permissions": Verb(
        calls("permissions.set", "user", *RIGHTS, in_vhost=True),
        "<username> <configure> <write> <read>",
        'Setting permissions for user "{0}" in vhost "{vhost}" ...', (4, 4),
    ),
    "set_permissions_globally": Verb(
        set_permissions_globally, "<username> <configure> <write> <read>",
        'Setting permissions for user "{0}" in all virtual hosts ...', (4, 4),
        note="for the virtual hosts that there are, one after the other",
    ),
    "clear_permissions": Verb(
        calls("permissions.clear", "user", in_vhost=True), "<username>",
        'Clearing permissions for user "{0}" in vhost "{vhost}" ...', (1, 1),
    ),
    "list_permissions": Verb(
        lists("permissions.list", ("user", *RIGHTS), in_vhost=True), "",
        'Listing permissions for vhost "{vhost}" ...'
    ),
    "list_user_permissions": Verb(
        lists("permissions.list", ("vhost", *RIGHTS), "user"), "<username>",
        'Listing permissions for user "{0}" ...', (1, 1)
    ),
    "set_topic_permissions": Verb(
        calls("permissions.topic_set", "user", "exchange", "write", "read", in_vhost=True),
        "<username> <exchange> <write> <read>",
        'Setting topic permissions on "{1}" for user "{0}" in vhost "{vhost}" ...', (4, 4),
    ),
    "clear_topic_permissions": Verb(
        clear_topic_permissions, "<username> [<exchange>]", clearing_topics, (1, 2)
    ),
    "list_topic_permissions": Verb(
        lists("permissions.topic_list", ("user", "exchange", "write", "read"), in_vhost=True), "",
        'Listing topic permissions for vhost "{vhost}" ...'
    ),
    "list_user_topic_permissions": Verb(
        lists(
            "permissions.topic_list", ("vhost", "exchange", "write", "read"), "user",
            has_header=False,
        ),
        "<username>",
        'Listing topic permissions for user "{0}" ...', (1, 1),
    ),
}  # fmt: skip


OF_USERS: Mapping[str, str] = {"max-connections": "max_connections", "max-channels": "max_channels"}
OF_VHOSTS: Mapping[str, str] = {"max-connections": "max_connections", "max-queues": "max_queues"}
"""Limits by RabbitMQ's names, which it writes as JSON: the columns of our lists."""


def parse_limits(text: str) -> dict[str, int | None]:
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


def limits_text(limits: Mapping[str, int]) -> str:
    return json.dumps(limits, separators=(",", ":"))


def set_user_limits(call: Invocation) -> None:
    call.client.call("users.limits", name=call.words[0], limits=parse_limits(call.words[1]))


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
    return Report([limits_text(found[name])], found[name])


def limited(what: str, found: Mapping[str, Mapping[str, int]]) -> Iterator[Row]:
    """Yield only those that have limits."""
    return ({what: name, "limits": limits_text(limits)} for name, limits in found.items() if limits)


def set_vhost_limits(call: Invocation) -> None:
    call.client.call("vhosts.limits", name=call.vhost, limits=parse_limits(call.words[0]))


def clear_vhost_limits(call: Invocation) -> None:
    call.client.call("vhosts.limits", name=call.vhost, limits=dict.fromkeys(OF_VHOSTS))


def list_vhost_limits(call: Invocation) -> Output:
    found = {row["name"]: limits_of(row, OF_VHOSTS) for row in call.client.rows("vhosts.list")}
    if call.has("global"):
        return RowTable(("vhost", "limits"), limited("vhost", found))
    if call.vhost not in found:
        raise Failure(f"Virtual host '{call.vhost}' does not exist")
    limits: Any = found[call.vhost]
    return Report([limits_text(limits) if limits else ""], limits)


def user_limits_banner(call: Invocation) -> str:
    if call.has("global"):
        return "Listing limits for all users ..."
    return f'Listing limits for user "{call.options.get("user", "guest")}" ...'


def vhost_limits_banner(call: Invocation) -> str:
    if call.has("global"):
        return "Listing limits for all vhosts ..."
    return f'Listing limits for vhost "{call.vhost}" ...'


def clear_limits_banner(call: Invocation) -> str:
    which = "all limits" if call.word(1) == "all" else f'"{call.word(1)}" limit'
    return f'Clearing {which} for user "{call.word(0)}" ...'


LIMITS: Mapping[str, Verb] = {
    "set_user_limits": Verb(
        set_user_limits, "<username> <definition>",
        'Setting user limits to "{1}" for user "{0}" ...', (2, 2),
    ),
    "clear_user_limits": Verb(
        clear_user_limits, "<username> <limit> | all", clear_limits_banner, (2, 2),
        failures={NOT_FOUND: NO_USER},
    ),
    "list_user_limits": Verb(
        list_user_limits, "", user_limits_banner, options={"user": TEXT, "global": FLAG}
    ),
    "set_vhost_limits": Verb(
        set_vhost_limits, "<definition>",
        'Setting vhost limits to "{0}" for vhost "{vhost}" ...', (1, 1),
    ),
    "clear_vhost_limits": Verb(
        clear_vhost_limits, "", 'Clearing vhost "{vhost}" limits ...'
    ),
    "list_vhost_limits": Verb(
        list_vhost_limits, "", vhost_limits_banner, options={"global": FLAG}
    ),
}  # fmt: skip
