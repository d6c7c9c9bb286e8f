"""What users may do in virtual hosts."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.cli.rabbitmq.verb import Invocation, RowTable, Verb

RIGHTS = ("configure", "write", "read")


def set_permissions(call: Invocation) -> None:
    user, configure, write, read = call.words
    call.client.call(
        "permissions.set", user=user, vhost=call.vhost, configure=configure, write=write, read=read
    )


def set_permissions_globally(call: Invocation) -> None:
    user, configure, write, read = call.words
    for row in list(call.client.rows("vhosts.list")):
        call.client.call(
            "permissions.set",
            user=user, vhost=row["name"], configure=configure, write=write, read=read,
        )  # fmt: skip


def clear_permissions(call: Invocation) -> None:
    call.client.call("permissions.clear", user=call.words[0], vhost=call.vhost)


def list_permissions(call: Invocation) -> RowTable:
    rows = call.client.rows("permissions.list", vhost=call.vhost)
    return RowTable(("user", *RIGHTS), rows)


def list_user_permissions(call: Invocation) -> RowTable:
    rows = call.client.rows("permissions.list", user=call.words[0])
    return RowTable(("vhost", *RIGHTS), rows)


def set_topic_permissions(call: Invocation) -> None:
    user, exchange, write, read = call.words
    call.client.call(
        "permissions.topic_set",
        user=user, vhost=call.vhost, exchange=exchange, write=write, read=read,
    )  # fmt: skip


def clear_topic_permissions(call: Invocation) -> None:
    exchange = call.words[1] if len(call.words) > 1 else None
    call.client.call(
        "permissions.topic_clear", user=call.words[0], vhost=call.vhost, exchange=exchange
    )


def list_topic_permissions(call: Invocation) -> RowTable:
    rows = call.client.rows("permissions.topic_list", vhost=call.vhost)
    return RowTable(("user", "exchange", "write", "read"), rows)


def list_user_topic_permissions(call: Invocation) -> RowTable:
    rows = call.client.rows("permissions.topic_list", user=call.words[0])
    return RowTable(("vhost", "exchange", "write", "read"), rows, has_header=False)


def clearing_topics(call: Invocation) -> str:
    on = f' on "{call.words[1]}"' if len(call.words) > 1 else ""
    return (
        f"Clearing topic permissions{on} for user "
        f'"{call.word(0)}" in vhost "{call.vhost}" ...'
    )  # fmt: skip


VERBS: Mapping[str, Verb] = {
    "set_permissions": Verb(
        set_permissions, "<username> <configure> <write> <read>",
        'Setting permissions for user "{0}" in vhost "{vhost}" ...', (4, 4),
    ),
    "set_permissions_globally": Verb(
        set_permissions_globally, "<username> <configure> <write> <read>",
        'Setting permissions for user "{0}" in all virtual hosts ...', (4, 4),
        note="for the virtual hosts that there are, one after the other",
    ),
    "clear_permissions": Verb(
        clear_permissions, "<username>",
        'Clearing permissions for user "{0}" in vhost "{vhost}" ...', (1, 1),
    ),
    "list_permissions": Verb(
        list_permissions, "", 'Listing permissions for vhost "{vhost}" ...'
    ),
    "list_user_permissions": Verb(
        list_user_permissions, "<username>", 'Listing permissions for user "{0}" ...', (1, 1)
    ),
    "set_topic_permissions": Verb(
        set_topic_permissions, "<username> <exchange> <write> <read>",
        'Setting topic permissions on "{1}" for user "{0}" in vhost "{vhost}" ...', (4, 4),
    ),
    "clear_topic_permissions": Verb(
        clear_topic_permissions, "<username> [<exchange>]", clearing_topics, (1, 2)
    ),
    "list_topic_permissions": Verb(
        list_topic_permissions, "", 'Listing topic permissions for vhost "{vhost}" ...'
    ),
    "list_user_topic_permissions": Verb(
        list_user_topic_permissions, "<username>",
        'Listing topic permissions for user "{0}" ...', (1, 1),
    ),
}  # fmt: skip
