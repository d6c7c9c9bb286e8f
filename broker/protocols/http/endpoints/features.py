"""feature-flags, deprecated-features, reset, auth/attempts, shovels, federation-links: what the
nodes of RabbitMQ agree on, and what its plugins do.

A cluster of ours needs no flags: what is here is on, and nothing is deprecated.  It moves nothing
from or to other brokers, so that the lists of what does so are empty.
"""

from __future__ import annotations

from fluffle.broker.admin.context import Row
from fluffle.broker.base.features import FEATURES
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import Endpoint
from fluffle.broker.protocols.http.endpoints.nodes import node_of
from fluffle.broker.protocols.http.responses import Listing, bad_request
from fluffle.broker.protocols.http.rights import Right


async def feature_flags(_call: Call) -> Listing:
    return Listing(
        [
            {
                "name": name,
                "desc": description,
                "doc_url": "",
                "state": "enabled",
                "stability": "required",
                "provided_by": "fluffle",
            }
            for name, description in FEATURES.items()
        ]
    )


async def enable(call: Call) -> None:
    """It is on already.  Refusal for what there is not."""
    if call.path["name"] not in FEATURES:
        raise bad_request("unsupported")


async def deprecated(_call: Call) -> Listing:
    return Listing([])


async def reset(call: Call) -> None:
    """RabbitMQ forgets its statistics; ours are of this moment, so there is nothing to forget."""
    if "node" in call.path:
        await node_of(call)


async def attempts(call: Call) -> Listing:
    """How many have logged in by AMQP, and could not, since a node has started."""
    name = (await node_of(call))["name"]
    told = await call.rows("everywhere.rows", what="statistics.logins", node=name)
    return Listing([each["row"] for each in told if "row" in each])


async def attempts_by_source(call: Call) -> list[Row]:
    """Nobody counts by address, as RabbitMQ does not unless it is told to."""
    await node_of(call)
    return []


async def forget_attempts(call: Call) -> None:
    """Counters only grow here, since metrics are made of them."""
    await node_of(call)


async def movers(call: Call) -> Listing:
    """There is no shovel and no link.  Refusal for a virtual host that is not there."""
    if "vhost" in call.path:
        call.vhost()
    return Listing([])


ATTEMPTS = "auth/attempts/{node}"
ENDPOINTS = (
    Endpoint("GET", "feature-flags", Right.MANAGEMENT, feature_flags, "What there is."),
    Endpoint(
        "PUT",
        "feature-flags/{name}/enable",
        Right.ADMINISTRATOR,
        enable,
        "Nothing: all of them are enabled.",
    ),
    Endpoint("GET", "deprecated-features", Right.MANAGEMENT, deprecated, "What will go."),
    Endpoint("GET", "deprecated-features/used", Right.MANAGEMENT, deprecated, "And is used."),
    Endpoint("DELETE", "reset", Right.ADMINISTRATOR, reset, "Nothing: counts are of now."),
    Endpoint("DELETE", "reset/{node}", Right.ADMINISTRATOR, reset, "The same of a node."),
    Endpoint("GET", ATTEMPTS, Right.MONITORING, attempts, "How many have logged in."),
    Endpoint("DELETE", ATTEMPTS, Right.MONITORING, forget_attempts, "Nothing: they are counters."),
    Endpoint(
        "GET", f"{ATTEMPTS}/source", Right.MONITORING, attempts_by_source, "The same by address."
    ),
    Endpoint(
        "DELETE", f"{ATTEMPTS}/source", Right.MONITORING, forget_attempts, "Nothing, likewise."
    ),
    Endpoint("GET", "shovels", Right.MONITORING, movers, "None: there are no shovels."),
    Endpoint("GET", "shovels/{vhost}", Right.MONITORING, movers, "None in a virtual host."),
    Endpoint("GET", "federation-links", Right.MONITORING, movers, "None: nothing is federated."),
    Endpoint(
        "GET", "federation-links/{vhost}", Right.MONITORING, movers, "None in a virtual host."
    ),
)
