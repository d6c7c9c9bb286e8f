"""users, permissions, topic-permissions, vhost-limits and user-limits.

Who may log in, with which password and tags, what users may do in virtual hosts, and how much there
may be of what.
"""

from __future__ import annotations

import base64
import binascii
from typing import Any

from fluffle.broker.access.access import ADMINISTRATOR, User
from fluffle.broker.access.passwords import SHA256, PasswordHash, hashed, hashed_again
from fluffle.broker.admin.context import Row
from fluffle.broker.admin.users import LIMITS
from fluffle.broker.definitions.exporter import user_entry, vhost_limits
from fluffle.broker.definitions.importer import tags_of
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import (
    NUMBER,
    TAGS,
    TEXT,
    TEXTS,
    YES_OR_NO,
    Routes,
    fields,
    texts,
)
from fluffle.broker.protocols.http.objects import boolean
from fluffle.broker.protocols.http.responses import Created, ListingResponse, bad_request, not_found
from fluffle.broker.protocols.http.rights import Right

routes = Routes()
OF_USER = "permissions/{vhost}/{user}"
TOPICS_OF_USER = "topic-permissions/{vhost}/{user}"
TOPIC_OF_USER = "topic-permissions/{vhost}/{user}/{exchange}"
VHOST_LIMIT = "vhost-limits/{vhost}/{name}"
USER_LIMIT = "user-limits/{user}/{name}"

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


@routes.get("users", Right.ADMINISTRATOR, "Users.")
async def list_users(call: Call) -> ListingResponse:
    users = call.context.access.users
    return ListingResponse([user_entry(users[name]) for name in sorted(users)])


@routes.get(
    "users/without-permissions", Right.ADMINISTRATOR, "Users that may open no virtual host."
)
async def without_permissions(call: Call) -> ListingResponse:
    """Rows of the users without permission in any virtual host."""
    access = call.context.access
    seen = {user for user, _vhost in access.permissions}
    return ListingResponse(
        [user_entry(user) for user in access.users.values() if user.name not in seen]
    )


@routes.get("users/{user}", Right.ADMINISTRATOR, "One of them.")
async def show_user(call: Call) -> Row:
    return user_entry(user_in_path(call))


def user_in_path(call: Call) -> User:
    """Refusal."""
    user = call.context.access.users.get(call.path["user"])
    if user is None:
        raise not_found()
    return user


@routes.put("users/{user}", Right.ADMINISTRATOR, "Make or change one.", body=BODY)
async def put_user(call: Call) -> Created | None:
    """Make one, or give him another password and other tags."""
    name, body = call.path["user"], call.json()
    user = call.context.access.users.get(name)
    changes = {
        "tags": tags_in(body),
        "limits": body.get("limits"),
        **hash_of(body, user.password if user is not None else None),
    }
    if permissions := body.get("permissions"):
        changes["permissions"] = permissions
        check_by_vhost(call, permissions)
    is_new = name not in call.context.access.users
    await call.result("users.put", name=name, **changes)
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


def hash_of(body: Row, current: PasswordHash | None) -> Row:
    """Password hash of a request, in the form that verbs take; without a password no login with one
    is possible.  Refusal.

    `current`: what is stored now of the password, and stays if that is the same.
    """
    if "password" in body and "password_hash" in body:
        raise bad_request("both_password_and_password_hash_are_provided")
    if "password_hash" in body:
        stored = base64_of(body["password_hash"])
        algorithm = body.get("hashing_algorithm") or SHA256
        return {"password_hash": stored, "hashing_algorithm": algorithm}
    password = body.get("password", "")
    if not isinstance(password, str):
        raise bad_request("'password' must be a string")
    return {"password_hash": hashed_again(password.encode(), current).hash if password else ""}


def base64_of(stored: Any) -> str:
    """A hash without blanks.  Refusal, as with RabbitMQ; what else may be wrong with a hash the
    verb says."""
    try:
        text = "".join(stored.split())
        base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError, TypeError, AttributeError):
        raise bad_request(["not_base64", stored]) from None
    return text


@routes.delete("users/{user}", Right.ADMINISTRATOR, "Delete one.")
async def delete_user(call: Call) -> None:
    await call.result("users.delete", name=user_in_path(call).name, force=True)


@routes.post(
    "users/bulk-delete", Right.ADMINISTRATOR, "Delete many.", body=fields({"users": TEXTS})
)
async def bulk_delete(call: Call) -> None:
    """Delete those of the named users that exist."""
    names = call.json("users")["users"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise bad_request("'users' must be a list of strings")
    for name in names:
        if name in call.context.access.users:
            await call.result("users.delete", name=name, force=True)


@routes.get(
    "auth/hash_password/{password}", Right.ADMINISTRATOR, "What would be stored of a password."
)
async def hash_password(call: Call) -> Row:
    """Hash of a password as it is stored."""
    octets = call.path["password"].encode(errors="surrogateescape")
    return {"ok": hashed(octets).hash}


NO_SUCH_USER = "vhost_or_user_not_found"


@routes.get("permissions", Right.ADMINISTRATOR, "What users may do.")
async def list_permissions(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.list"))


@routes.get("topic-permissions", Right.ADMINISTRATOR, "Which routing keys users may use.")
async def list_topics(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.topic_list"))


@routes.get("vhosts/{vhost}/permissions", Right.ADMINISTRATOR, "In one virtual host.")
async def list_permissions_in_vhost(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.list", vhost=call.vhost().name))


@routes.get("vhosts/{vhost}/topic-permissions", Right.ADMINISTRATOR, "In one virtual host.")
async def list_topics_in_vhost(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.topic_list", vhost=call.vhost().name))


@routes.get("users/{user}/permissions", Right.ADMINISTRATOR, "What one user may do.")
async def list_permissions_of_user(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.list", user=user_in_path(call).name))


@routes.get("users/{user}/topic-permissions", Right.ADMINISTRATOR, "Those of one user.")
async def list_topics_of_user(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("permissions.topic_list", user=user_in_path(call).name))


def in_path(call: Call) -> Row:
    """The user and the virtual host.  Refusal."""
    return {"user": user_in_path(call).name, "vhost": call.vhost().name}


async def permissions_found(call: Call, verb: str) -> list[Row]:
    """Rows of the permissions of the user in the path in that virtual host.  Refusal if that is
    nothing."""
    rows = await call.rows(verb, **in_path(call))
    if not rows:
        raise not_found()
    return rows


@routes.get(OF_USER, Right.ADMINISTRATOR, "What a user may do in a virtual host.")
async def show_permissions(call: Call) -> Row:
    return (await permissions_found(call, "permissions.list"))[0]


@routes.get(TOPICS_OF_USER, Right.ADMINISTRATOR, "Those of a user in a virtual host.")
@routes.get(TOPIC_OF_USER, Right.ADMINISTRATOR, "Those of a user in a virtual host.")
async def show_topic_permissions(call: Call) -> ListingResponse:
    return ListingResponse(await permissions_found(call, "permissions.topic_list"))


@routes.put(
    OF_USER,
    Right.ADMINISTRATOR,
    "Let a user do this and no more there.",
    body=texts("configure", "write", "read"),
)
async def put_permissions(call: Call) -> Created | None:
    body = call.json("configure", "write", "read")
    where = asked_where(call)
    is_new = (where["user"], where["vhost"]) not in call.context.access.permissions
    rights = {name: body[name] for name in ("configure", "write", "read")}
    await call.result("permissions.set", **where, **rights)
    return Created() if is_new else None


def asked_where(call: Call) -> Row:
    """Refusal, with RabbitMQ's words where something is to be set."""
    vhost, user = call.path["vhost"], call.path["user"]
    context = call.context
    if vhost not in context.catalogue.vhosts or user not in context.access.users:
        raise bad_request(NO_SUCH_USER)
    return {"user": user, "vhost": vhost}


@routes.delete(OF_USER, Right.ADMINISTRATOR, "Let a user do nothing there.")
async def clear_permissions(call: Call) -> None:
    await permissions_found(call, "permissions.list")
    await call.result("permissions.clear", **in_path(call))


@routes.put(
    TOPICS_OF_USER,
    Right.ADMINISTRATOR,
    "Let a user use these routing keys of an exchange and no others.",
    body=texts("exchange", "write", "read"),
)
async def put_topic_permission(call: Call) -> Created | None:
    body = call.json("exchange", "write", "read")
    where = asked_where(call)
    is_new = not await call.rows("permissions.topic_list", **where)
    rights = {name: body[name] for name in ("exchange", "write", "read")}
    await call.result("permissions.topic_set", **where, **rights)
    return Created() if is_new else None


@routes.delete(TOPICS_OF_USER, Right.ADMINISTRATOR, "Let him use all.")
async def clear_topics(call: Call) -> None:
    await permissions_found(call, "permissions.topic_list")
    await call.result("permissions.topic_clear", **in_path(call))


@routes.delete(TOPIC_OF_USER, Right.ADMINISTRATOR, "Let him use all of one exchange.")
async def clear_topic(call: Call) -> None:
    """Clear the topic permission of a user for one exchange."""
    await permissions_found(call, "permissions.topic_list")
    await call.result("permissions.topic_clear", **in_path(call), exchange=call.path["exchange"])


VALUE = fields({"value": NUMBER})
OF_VHOSTS = ("max-connections", "max-queues")
OF_USERS = ("max-connections", "max-channels")


def vhost_limit_rows(call: Call, names: tuple[str, ...]) -> list[Row]:
    """Rows of the limits of these virtual hosts."""
    vhosts = call.context.catalogue.vhosts
    limits = {name: vhost_limits(vhosts[name]) for name in names}
    return [{"vhost": name, "value": value} for name, value in limits.items() if value]


@routes.get("vhost-limits", Right.MANAGEMENT, "Limits of virtual hosts.")
async def list_vhost_limits(call: Call) -> ListingResponse:
    return ListingResponse(vhost_limit_rows(call, call.visible_vhosts()))


@routes.get("vhost-limits/{vhost}", Right.VHOST_VISIBLE, "Those of one of them.")
async def list_limits_of_vhost(call: Call) -> ListingResponse:
    return ListingResponse(vhost_limit_rows(call, (call.vhost().name,)))


@routes.put(VHOST_LIMIT, Right.ADMINISTRATOR, "Set one.", body=VALUE)
async def put_vhost_limit(call: Call) -> None:
    name = call.vhost_to_change().name
    value = limit_in(call, OF_VHOSTS, "in limits")
    await call.result("vhosts.limits", name=name, limits={call.path["name"]: value})


def limit_in(call: Call, names: tuple[str, ...], where: str) -> int:
    """Limit in the body.  Refusal, in words of RabbitMQ's."""
    name, value = call.path["name"], call.json("value")["value"]
    if name not in names:
        raise bad_request(f"Unrecognised term {name} {where}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad_request(f"{name} should be a number")
    return value


@routes.delete(VHOST_LIMIT, Right.ADMINISTRATOR, "Have none.")
async def delete_vhost_limit(call: Call) -> None:
    """Clear a limit; one that is not set counts as cleared, as with RabbitMQ."""
    vhost, name = call.vhost_to_change(), call.path["name"]
    if name in OF_VHOSTS:
        await call.result("vhosts.limits", name=vhost.name, limits={name: None})


def user_limit_rows(call: Call, *names: str) -> list[Row]:
    """Rows of the limits of these users."""
    users = [call.context.access.users[name] for name in names]
    limits = {user.name: user_entry(user)["limits"] for user in users}
    return [{"user": name, "value": value} for name, value in limits.items() if value]


@routes.get("user-limits", Right.MANAGEMENT, "Limits of users.")
async def list_user_limits(call: Call) -> ListingResponse:
    return ListingResponse(user_limit_rows(call, *call.context.access.users))


@routes.get("user-limits/{user}", Right.MANAGEMENT, "Those of one of them.")
async def list_limits_of_user(call: Call) -> ListingResponse:
    return ListingResponse(user_limit_rows(call, user_in_path(call).name))


@routes.put(USER_LIMIT, Right.ADMINISTRATOR, "Set one.", body=VALUE)
async def put_user_limit(call: Call) -> None:
    value = limit_in(call, OF_USERS, "in user-limits")
    name = call.path["user"]
    if name not in call.context.access.users:
        raise bad_request(f"no_such_user: {name}")
    await call.result("users.limits", name=name, limits={call.path["name"]: value})


@routes.delete(USER_LIMIT, Right.ADMINISTRATOR, "Have none.")
async def delete_user_limit(call: Call) -> None:
    """Clear a limit; one that is not set counts as cleared, as with RabbitMQ."""
    user, name = user_in_path(call), call.path["name"]
    if name in OF_USERS:
        await call.result("users.limits", name=user.name, limits={name: None})
