"""permissions and topic-permissions: what users may do in virtual hosts."""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint, Handler, texts
from fluffle.broker.protocols.http.endpoints.users import user_in_path
from fluffle.broker.protocols.http.responses import Created, Listing, bad_request, not_found
from fluffle.broker.protocols.http.rights import Right

NO_SUCH_USER = "vhost_or_user_not_found"


async def list_all(call: Call) -> Listing:
    return Listing(await call.rows("permissions.list"))


async def list_topics(call: Call) -> Listing:
    return Listing(await call.rows("permissions.topic_list"))


async def list_in_vhost(call: Call) -> Listing:
    return Listing(await call.rows("permissions.list", vhost=call.vhost().name))


async def list_topics_in_vhost(call: Call) -> Listing:
    return Listing(await call.rows("permissions.topic_list", vhost=call.vhost().name))


async def list_of_user(call: Call) -> Listing:
    return Listing(await call.rows("permissions.list", user=user_in_path(call).name))


async def list_topics_of_user(call: Call) -> Listing:
    return Listing(await call.rows("permissions.topic_list", user=user_in_path(call).name))


def in_path(call: Call) -> Row:
    """The user and the virtual host.  Refusal."""
    return {"user": user_in_path(call).name, "vhost": call.vhost().name}


async def found(call: Call, verb: str) -> list[Row]:
    """What the user in the path may do in that virtual host.  Refusal if that is nothing."""
    rows = await call.rows(verb, **in_path(call))
    if not rows:
        raise not_found()
    return rows


async def show(call: Call) -> Row:
    return (await found(call, "permissions.list"))[0]


async def show_topics(call: Call) -> Listing:
    return Listing(await found(call, "permissions.topic_list"))


async def put(call: Call) -> Created | None:
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


async def clear(call: Call) -> None:
    await found(call, "permissions.list")
    await call.result("permissions.clear", **in_path(call))


async def put_topic(call: Call) -> Created | None:
    body = call.json("exchange", "write", "read")
    where = asked_where(call)
    is_new = not await call.rows("permissions.topic_list", **where)
    rights = {name: body[name] for name in ("exchange", "write", "read")}
    await call.result("permissions.topic_set", **where, **rights)
    return Created() if is_new else None


async def clear_topics(call: Call) -> None:
    await found(call, "permissions.topic_list")
    await call.result("permissions.topic_clear", **in_path(call))


async def clear_topic(call: Call) -> None:
    """For one exchange."""
    await found(call, "permissions.topic_list")
    await call.result("permissions.topic_clear", **in_path(call), exchange=call.path["exchange"])


def administrators(method: str, path: str, act: Handler, summary: str) -> Endpoint:
    """What they alone may."""
    return Endpoint(method, path, Right.ADMINISTRATOR, act, summary)


OF_USER = "permissions/{vhost}/{user}"
TOPICS_OF_USER = "topic-permissions/{vhost}/{user}"
TOPIC_OF_USER = "topic-permissions/{vhost}/{user}/{exchange}"

ENDPOINTS = (
    administrators("GET", "permissions", list_all, "What users may do."),
    administrators("GET", "vhosts/{vhost}/permissions", list_in_vhost, "In one virtual host."),
    administrators("GET", "users/{user}/permissions", list_of_user, "What one user may do."),
    administrators("GET", OF_USER, show, "What a user may do in a virtual host."),
    Endpoint(
        "PUT",
        OF_USER,
        Right.ADMINISTRATOR,
        put,
        "Let a user do this and no more there.",
        body=texts("configure", "write", "read"),
    ),
    administrators("DELETE", OF_USER, clear, "Let a user do nothing there."),
    administrators("GET", "topic-permissions", list_topics, "Which routing keys users may use."),
    administrators(
        "GET", "vhosts/{vhost}/topic-permissions", list_topics_in_vhost, "In one virtual host."
    ),
    administrators(
        "GET", "users/{user}/topic-permissions", list_topics_of_user, "Those of one user."
    ),
    administrators("GET", TOPICS_OF_USER, show_topics, "Those of a user in a virtual host."),
    Endpoint(
        "PUT",
        TOPICS_OF_USER,
        Right.ADMINISTRATOR,
        put_topic,
        "Let a user use these routing keys of an exchange and no others.",
        body=texts("exchange", "write", "read"),
    ),
    administrators("DELETE", TOPICS_OF_USER, clear_topics, "Let him use all."),
    administrators("GET", TOPIC_OF_USER, show_topics, "Those of a user in a virtual host."),
    administrators("DELETE", TOPIC_OF_USER, clear_topic, "Let him use all of one exchange."),
)
