"""vhost-limits and user-limits: how much there may be of what."""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.exporter import user_entry, vhost_limits
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import NUMBER, Endpoint, fields
from fluffle.broker.protocols.http.endpoints.users import user_in_path
from fluffle.broker.protocols.http.responses import Listing, bad_request
from fluffle.broker.protocols.http.rights import Right

VALUE = fields({"value": NUMBER})
OF_VHOSTS = ("max-connections", "max-queues")
OF_USERS = ("max-connections", "max-channels")


def rows_of(call: Call, names: tuple[str, ...]) -> list[Row]:
    """Of those of these virtual hosts that have any."""
    vhosts = call.context.catalogue.vhosts
    limits = {name: vhost_limits(vhosts[name]) for name in names}
    return [{"vhost": name, "value": value} for name, value in limits.items() if value]


async def list_all(call: Call) -> Listing:
    return Listing(rows_of(call, call.visible_vhosts()))


async def list_of_vhost(call: Call) -> Listing:
    return Listing(rows_of(call, (call.vhost().name,)))


async def put_of_vhost(call: Call) -> None:
    name = call.vhost_to_change().name
    value = limit_in(call, OF_VHOSTS, "in limits")
    await call.result("vhosts.limits", name=name, limits={call.path["name"]: value})


def limit_in(call: Call, names: tuple[str, ...], where: str) -> int:
    """That in the body.  Refusal, in words of RabbitMQ's."""
    name, value = call.path["name"], call.json("value")["value"]
    if name not in names:
        raise bad_request(f"Unrecognised term {name} {where}")
    if not isinstance(value, int) or isinstance(value, bool):
        raise bad_request(f"{name} should be a number")
    return value


async def delete_of_vhost(call: Call) -> None:
    """One that there is not is gone already, as with RabbitMQ."""
    vhost, name = call.vhost_to_change(), call.path["name"]
    if name in OF_VHOSTS:
        await call.result("vhosts.limits", name=vhost.name, limits={name: None})


def rows_of_users(call: Call, *names: str) -> list[Row]:
    """Of those of these users that have any."""
    users = [call.context.access.users[name] for name in names]
    limits = {user.name: user_entry(user)["limits"] for user in users}
    return [{"user": name, "value": value} for name, value in limits.items() if value]


async def list_of_users(call: Call) -> Listing:
    return Listing(rows_of_users(call, *call.context.access.users))


async def list_of_user(call: Call) -> Listing:
    return Listing(rows_of_users(call, user_in_path(call).name))


async def put_of_user(call: Call) -> None:
    value = limit_in(call, OF_USERS, "in user-limits")
    name = call.path["user"]
    if name not in call.context.access.users:
        raise bad_request(f"no_such_user: {name}")
    await call.result("users.limits", name=name, limits={call.path["name"]: value})


async def delete_of_user(call: Call) -> None:
    """As of a virtual host."""
    user, name = user_in_path(call), call.path["name"]
    if name in OF_USERS:
        await call.result("users.limits", name=user.name, limits={name: None})


VHOST = "vhost-limits/{vhost}/{name}"
USER = "user-limits/{user}/{name}"
ENDPOINTS = (
    Endpoint("GET", "vhost-limits", Right.MANAGEMENT, list_all, "Limits of virtual hosts."),
    Endpoint(
        "GET", "vhost-limits/{vhost}", Right.VHOST_VISIBLE, list_of_vhost, "Those of one of them."
    ),
    Endpoint("PUT", VHOST, Right.ADMINISTRATOR, put_of_vhost, "Set one.", body=VALUE),
    Endpoint("DELETE", VHOST, Right.ADMINISTRATOR, delete_of_vhost, "Have none."),
    Endpoint("GET", "user-limits", Right.MANAGEMENT, list_of_users, "Limits of users."),
    Endpoint("GET", "user-limits/{user}", Right.MANAGEMENT, list_of_user, "Those of one of them."),
    Endpoint("PUT", USER, Right.ADMINISTRATOR, put_of_user, "Set one.", body=VALUE),
    Endpoint("DELETE", USER, Right.ADMINISTRATOR, delete_of_user, "Have none."),
)
