"""policies, operator-policies, parameters, global-parameters."""

from __future__ import annotations

from functools import partial
from json import dumps
from typing import NamedTuple

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.parameters import VHOST_LIMITS
from fluffle.broker.policies.policies import OPERATOR_POLICY
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint import (
    ANYTHING,
    NUMBER,
    OBJECT,
    TEXT,
    Endpoint,
    fields,
)
from fluffle.broker.protocols.http.responses import (
    Created,
    ListingResponse,
    not_authorized,
    not_found,
)
from fluffle.broker.protocols.http.rights import Right

POLICY = fields({"pattern": TEXT, "definition": OBJECT}, {"priority": NUMBER, "apply-to": TEXT})
VALUE = fields({"value": ANYTHING})


class PolicyEndpoints(NamedTuple):
    """Endpoints of the policies of users, or of operators."""

    verbs: str

    async def all(self, call: Call) -> ListingResponse:
        return ListingResponse(call.visible(await call.rows(f"{self.verbs}.list")))

    async def in_vhost(self, call: Call) -> ListingResponse:
        return ListingResponse(await self.rows(call))

    async def rows(self, call: Call) -> list[Row]:
        """Rows of the virtual host in the path.  Refusal."""
        return await call.rows(f"{self.verbs}.list", vhost=call.vhost().name)

    async def one(self, call: Call) -> Row:
        """Policy in the path.  Refusal."""
        for row in await self.rows(call):
            if row["name"] == call.path["name"]:
                return row
        raise not_found()

    async def put(self, call: Call) -> Created | None:
        body, vhost = call.json("pattern", "definition"), call.vhost_to_change().name
        names = [row["name"] for row in await self.rows(call)]
        fields = {"priority": body.get("priority", 0), "applies_to": body.get("apply-to", "all")}
        await call.result(
            f"{self.verbs}.set",
            vhost=vhost,
            name=call.path["name"],
            pattern=body["pattern"],
            definition=dumps(body["definition"]),
            **fields,
        )
        return None if call.path["name"] in names else Created()

    async def delete(self, call: Call) -> None:
        found = await self.one(call)
        await call.result(f"{self.verbs}.clear", vhost=found["vhost"], name=found["name"])


OF_USERS = PolicyEndpoints("policies")
OF_OPERATORS = PolicyEndpoints("operator_policies")


def policy_endpoints(kind: PolicyEndpoints, word: str, may: Right) -> tuple[Endpoint, ...]:
    """`may` is what it takes to have to do with one of them."""
    one = f"{word}/{{vhost}}/{{name}}"
    return (
        Endpoint("GET", word, Right.MANAGEMENT, kind.all, "Those that one may look at."),
        Endpoint("GET", f"{word}/{{vhost}}", Right.VHOST, kind.in_vhost, "In one virtual host."),
        Endpoint("GET", one, may, kind.one, "One of them."),
        Endpoint("PUT", one, may, kind.put, "Make or change one.", body=POLICY),
        Endpoint("DELETE", one, may, kind.delete, "Delete one."),
    )


async def parameters(call: Call) -> ListingResponse:
    return ListingResponse(call.visible(await call.rows("parameters.list")))


async def parameters_of(call: Call) -> ListingResponse:
    return ListingResponse(call.visible(await rows_of(call)))


async def rows_of(call: Call, **arguments: str) -> list[Row]:
    """Rows of parameters of the component in the path."""
    rows = await call.rows("parameters.list", **arguments)
    return [row for row in rows if row["component"] == call.path["component"]]


async def parameters_in(call: Call) -> ListingResponse:
    return ListingResponse(await rows_of(call, vhost=call.vhost().name))


async def parameter(call: Call) -> Row:
    """Parameter in the path.  Refusal."""
    for row in await rows_of(call, vhost=call.vhost().name):
        if row["name"] == call.path["name"]:
            return row
    raise not_found()


def check_component(call: Call) -> None:
    """Refusal for what administrators alone may set by its own path."""
    if call.path["component"] in (OPERATOR_POLICY, VHOST_LIMITS) and not call.is_administrator:
        raise not_authorized("User not authorised to access object")


async def put_parameter(call: Call) -> Created | None:
    check_component(call)
    value, vhost = call.json("value")["value"], call.vhost_to_change().name
    names = [row["name"] for row in await rows_of(call, vhost=vhost)]
    await call.result(
        "parameters.set",
        vhost=vhost,
        component=call.path["component"],
        name=call.path["name"],
        value=dumps(value),
    )
    return None if call.path["name"] in names else Created()


async def delete_parameter(call: Call) -> None:
    check_component(call)
    found = await parameter(call)
    names = {key: found[key] for key in ("vhost", "component", "name")}
    await call.result("parameters.clear", **names)


async def global_parameters(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("global_parameters.list"))


async def global_parameter(call: Call) -> Row:
    """Global parameter in the path.  Refusal."""
    for row in await call.rows("global_parameters.list"):
        if row["name"] == call.path["name"]:
            return row
    raise not_found()


async def put_global_parameter(call: Call) -> Created | None:
    value, name = call.json("value")["value"], call.path["name"]
    names = [row["name"] for row in await call.rows("global_parameters.list")]
    await call.result("global_parameters.set", name=name, value=dumps(value))
    return None if name in names else Created()


async def delete_global_parameter(call: Call) -> None:
    found = await global_parameter(call)
    await call.result("global_parameters.clear", name=found["name"])


policymakers = partial(Endpoint, required_right=Right.POLICYMAKER)
PARAMETER = "parameters/{component}/{vhost}/{name}"
GLOBAL = "global-parameters/{name}"

ENDPOINTS = (
    *policy_endpoints(OF_USERS, "policies", Right.POLICYMAKER),
    *policy_endpoints(OF_OPERATORS, "operator-policies", Right.ADMINISTRATOR),
    policymakers("GET", "parameters", handler=parameters, summary="Parameters."),
    policymakers(
        "GET", "parameters/{component}", handler=parameters_of, summary="Those of a component."
    ),
    policymakers(
        "GET",
        "parameters/{component}/{vhost}",
        handler=parameters_in,
        summary="Those of a component in a virtual host.",
    ),
    policymakers("GET", PARAMETER, handler=parameter, summary="One of them."),
    policymakers("PUT", PARAMETER, handler=put_parameter, summary="Set one.", body=VALUE),
    policymakers("DELETE", PARAMETER, handler=delete_parameter, summary="Delete one."),
    policymakers("GET", "global-parameters", handler=global_parameters, summary="Of the cluster."),
    policymakers("GET", GLOBAL, handler=global_parameter, summary="One of them."),
    policymakers("PUT", GLOBAL, handler=put_global_parameter, summary="Set one.", body=VALUE),
    policymakers("DELETE", GLOBAL, handler=delete_global_parameter, summary="Delete one."),
)
