"""Users: passwords, tags."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.access.passwords import SHA256, hashed
from fluffle.broker.cli.rabbitmq.verb import (
    DATA,
    FLAG,
    NO_USER,
    SOFTWARE,
    Failure,
    Invocation,
    Report,
    RowTable,
    Verb,
)

REFUSED = 403
NOT_FOUND = 404
EXISTS = 406

GRANT = (
    "Done. Don't forget to grant the user permissions to some virtual hosts! See 'rabbitmqctl help "
    "set_permissions' to learn more."
)


def stored(call: Invocation) -> dict[str, str]:
    """The hash of the second word, or of what is read; or that word itself if it is one."""
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
    """One that there is not is gone already."""
    name = call.words[0]
    if any(row["user"] == name for row in call.client.rows("users.list")):
        call.client.call("users.delete", name=name, force=True)


def set_user_tags(call: Invocation) -> None:
    call.client.call("users.tags", name=call.words[0], tags=list(call.words[1:]))


def authenticate_user(call: Invocation) -> Report:
    text = call.words[1] if len(call.words) > 1 else call.standard_input()
    call.client.call("users.authenticate", name=call.words[0], password=text)
    return Report(["Success"])


def list_users(call: Invocation) -> RowTable:
    return RowTable(("user", "tags"), call.client.rows("users.list"))


def hash_password(call: Invocation) -> Report:
    text = call.words[0] if call.words else call.standard_input()
    return Report([hashed(text.encode(), SHA256).hash])


HASHED = {"pre-hashed-password": FLAG}

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
    "list_users": Verb(list_users, "", "Listing users ..."),
    "hash_password": Verb(
        hash_password, "[<cleartext_password>]", "Will hash password {0}", (0, 1)
    ),
}  # fmt: skip
