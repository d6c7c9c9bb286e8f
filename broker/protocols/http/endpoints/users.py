"""users: who may log in, with which password and tags."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fluffle.broker.access.passwords import SHA256, hashed
from fluffle.broker.access.users import ADMINISTRATOR, User
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.users import LIMITS
from fluffle.broker.definitions.exporter import user_entry
from fluffle.broker.definitions.importer import tags_of
from fluffle.broker.protocols.http.amqp_json import boolean
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import (
    NUMBER,
    TAGS,
    TEXT,
    TEXTS,
    YES_OR_NO,
    Endpoint,
    fields,
    texts,
)
from fluffle.broker.protocols.http.responses import Created, Listing, bad_request, not_found
from fluffle.broker.protocols.http.rights import Right

BODY = fields(
    {},
    {
        "tags": TAGS,
        "password": TEXT,
        "password_hash": TEXT,
        "hashing_algorithm": TEXT,
        "limits": fields({}, dict.fromkeys(LIMITS, NUMBER)),
        "permissions": {
            "type": "object",
            "additionalProperties": texts("configure", "write", "read"),
        },
        "administrator": YES_OR_NO,
    },
)

NOT_BY_VHOST = (
    "'permissions' must be an object with one entry for each virtual host: "
    '{"/": {"configure": ".*", "write": ".*", "read": ".*"}}'
)


async def list_users(call: Call) -> Listing:
    users = call.context.access.users
    return Listing([user_entry(users[name]) for name in sorted(users)])


async def without_permissions(call: Call) -> Listing:
    """Those that cannot open any virtual host."""
    access = call.context.access
    seen = {user for user, _vhost in access.permissions}
    return Listing([user_entry(user) for user in access.users.values() if user.name not in seen])


async def show_user(call: Call) -> Row:
    return user_entry(user_in_path(call))


def user_in_path(call: Call) -> User:
    """Refusal."""
    user = call.context.access.users.get(call.path["user"])
    if user is None:
        raise not_found()
    return user


async def put_user(call: Call) -> Created | None:
    """Make one, or give him another password and other tags."""
    name, body = call.path["user"], call.json()
    told = {"tags": tags_in(body), "limits": body.get("limits"), **hash_of(body)}
    if permissions := body.get("permissions"):
        told["permissions"] = permissions
        check_by_vhost(call, permissions)
    is_new = name not in call.context.access.users
    await call.result("users.put", name=name, **told)
    return Created() if is_new else None


def check_by_vhost(call: Call, permissions: object) -> None:
    """Refusal for permissions that are not by virtual host, or, as with RabbitMQ, of one that is
    not there."""
    if not isinstance(permissions, dict):
        raise bad_request(NOT_BY_VHOST)
    for vhost in permissions.keys() - call.context.catalogue.vhosts.keys():
        raise bad_request(["no_such_vhost", vhost])


def tags_in(body: Row) -> Any:
    """Tags of a user; `administrator` stands for them where an old client says no others.
    Refusal."""
    if "tags" in body:
        return tags_of(body["tags"])
    if "administrator" not in body:
        raise bad_request("tags_not_present")
    return [ADMINISTRATOR] if boolean(body, "administrator") else []


def hash_of(body: Row) -> Row:
    """As verbs take it; without a password nobody can log in with one.  Refusal."""
    if "password" in body and "password_hash" in body:
        raise bad_request("both_password_and_password_hash_are_provided")
    if "password_hash" in body:
        stored = base64_of(body["password_hash"])
        algorithm = body.get("hashing_algorithm") or SHA256
        return {"password_hash": stored, "hashing_algorithm": algorithm}
    password = body.get("password", "")
    if not isinstance(password, str):
        raise bad_request("'password' must be a string")
    return {"password_hash": hashed(password.encode()).hash if password else ""}


def base64_of(stored: Any) -> str:
    """A hash without blanks.  Refusal, as with RabbitMQ; what else may be wrong with a hash the
    verb says."""
    try:
        text = "".join(stored.split())
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise bad_request(["not_base64", stored]) from None
    return text


async def delete_user(call: Call) -> None:
    await call.result("users.delete", name=user_in_path(call).name, force=True)


async def bulk_delete(call: Call) -> None:
    """Those of them that there are."""
    names = call.json("users")["users"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_request("'users' must be a list of strings")
    for name in names:
        if name in call.context.access.users:
            await call.result("users.delete", name=name, force=True)


async def hash_password(call: Call) -> Row:
    """What is stored of a password."""
    octets = call.path["password"].encode(errors="surrogateescape")
    return {"ok": hashed(octets).hash}


ENDPOINTS = (
    Endpoint("GET", "users", Right.ADMINISTRATOR, list_users, "Users."),
    Endpoint(
        "GET",
        "users/without-permissions",
        Right.ADMINISTRATOR,
        without_permissions,
        "Users that may open no virtual host.",
    ),
    Endpoint(
        "POST",
        "users/bulk-delete",
        Right.ADMINISTRATOR,
        bulk_delete,
        "Delete many.",
        body=fields({"users": TEXTS}),
    ),
    Endpoint("GET", "users/{user}", Right.ADMINISTRATOR, show_user, "One of them."),
    Endpoint(
        "PUT", "users/{user}", Right.ADMINISTRATOR, put_user, "Make or change one.", body=BODY
    ),
    Endpoint("DELETE", "users/{user}", Right.ADMINISTRATOR, delete_user, "Delete one."),
    Endpoint(
        "GET",
        "auth/hash_password/{password}",
        Right.ADMINISTRATOR,
        hash_password,
        "What would be stored of a password.",
    ),
)
