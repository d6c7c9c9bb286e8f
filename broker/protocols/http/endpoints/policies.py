"""policies, operator-policies, parameters, global-parameters."""

from __future__ import annotations

from json import dumps
from typing import NamedTuple

from fluffle.broker.admin.context import Row
from fluffle.broker.definitions.parameters import VHOST_LIMITS
from fluffle.broker.policies.policies import OPERATOR_POLICY
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoint_table import (
    ANYTHING,
    NUMBER,
    OBJECT,
    TEXT,
    Routes,
    fields,
)
from fluffle.broker.protocols.http.responses import (
    Created,
    ListingResponse,
    not_authorized,
    not_found,
)
from fluffle.broker.protocols.http.rights import Right

routes = Routes()
PARAMETER = "parameters/{component}/{vhost}/{name}"
GLOBAL = "global-parameters/{name}"

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


def add_policy_routes(kind: PolicyEndpoints, word: str, may: Right) -> None:
    """`may` is what it takes to have to do with one of them."""
    one = f"{word}/{{vhost}}/{{name}}"
    routes.get(word, Right.MANAGEMENT, "Those that one may look at.")(kind.all)
    routes.get(f"{word}/{{vhost}}", Right.VHOST, "In one virtual host.")(kind.in_vhost)
    routes.get(one, may, "One of them.")(kind.one)
    routes.put(one, may, "Make or change one.", body=POLICY)(kind.put)
    routes.delete(one, may, "Delete one.")(kind.delete)


add_policy_routes(PolicyEndpoints("policies"), "policies", Right.POLICYMAKER)
add_policy_routes(PolicyEndpoints("operator_policies"), "operator-policies", Right.ADMINISTRATOR)


@routes.get("parameters", Right.POLICYMAKER, "Parameters.")
async def parameters(call: Call) -> ListingResponse:
    return ListingResponse(call.visible(await call.rows("parameters.list")))


@routes.get("parameters/{component}", Right.POLICYMAKER, "Those of a component.")
async def parameters_of(call: Call) -> ListingResponse:
    return ListingResponse(call.visible(await rows_of(call)))


async def rows_of(call: Call, **arguments: str) -> list[Row]:
    """Rows of parameters of the component in the path."""
    rows = await call.rows("parameters.list", **arguments)
    return [row for row in rows if row["component"] == call.path["component"]]


@routes.get(
    "parameters/{component}/{vhost}", Right.POLICYMAKER, "Those of a component in a virtual host."
)
async def parameters_in(call: Call) -> ListingResponse:
    return ListingResponse(await rows_of(call, vhost=call.vhost().name))


@routes.get(PARAMETER, Right.POLICYMAKER, "One of them.")
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


@routes.put(PARAMETER, Right.POLICYMAKER, "Set one.", body=VALUE)
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


@routes.delete(PARAMETER, Right.POLICYMAKER, "Delete one.")
async def delete_parameter(call: Call) -> None:
    check_component(call)
    found = await parameter(call)
    names = {key: found[key] for key in ("vhost", "component", "name")}
    await call.result("parameters.clear", **names)


@routes.get("global-parameters", Right.POLICYMAKER, "Of the cluster.")
async def global_parameters(call: Call) -> ListingResponse:
    return ListingResponse(await call.rows("global_parameters.list"))


@routes.get(GLOBAL, Right.POLICYMAKER, "One of them.")
async def global_parameter(call: Call) -> Row:
    """Global parameter in the path.  Refusal."""
    for row in await call.rows("global_parameters.list"):
        if row["name"] == call.path["name"]:
            return row
    raise not_found()


@routes.put(GLOBAL, Right.POLICYMAKER, "Set one.", body=VALUE)
async def put_global_parameter(call: Call) -> Created | None:
    value, name = call.json("value")["value"], call.path["name"]
    names = [row["name"] for row in await call.rows("global_parameters.list")]
    await call.result("global_parameters.set", name=name, value=dumps(value))
    return None if name in names else Created()


@routes.delete(GLOBAL, Right.POLICYMAKER, "Delete one.")
async def delete_global_parameter(call: Call) -> None:
    found = await global_parameter(call)
    await call.result("global_parameters.clear", name=found["name"])
