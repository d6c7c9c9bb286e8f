"""policies.*, operator_policies.*, parameters.*, global_parameters.*, with readable refusals."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from fluffle.broker.admin.arguments import check_name
from fluffle.broker.admin.context import NodeContext, Result, Row, Rows
from fluffle.broker.base.errors import NotFound, PreconditionFailed
from fluffle.broker.definitions.exporter import limit_parameters
from fluffle.broker.definitions.parameters import (
    check_vhost,
    clear,
    clear_parameter,
    set_global_parameter,
    set_operator_policy,
    set_parameter,
    set_policy,
)
from fluffle.broker.metadata.change import Change, Key, Kind
from fluffle.broker.metadata.metadata import Decide
from fluffle.broker.policies.policies import ALL, OPERATOR_POLICY, Policy
from fluffle.broker.policies.validation import OPERATOR_POLICY_KEYS, POLICY_KEYS
from fluffle.broker.queues.arguments import ARGUMENTS

EXAMPLE = """'{"max-length": 1000}'"""
HEADING = "Validation failed"
BINARY = re.compile(r'<<("(?:[^"\\]|\\.)*")(?:/utf8)?>>')
"""A string, as Erlang prints it."""


def parsed(text: str) -> Any:
    """PreconditionFailed for what is no JSON."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()  # finds halves of characters in escapes
    except (ValueError, RecursionError) as error:
        raise PreconditionFailed(f"this is no JSON ({error}): {text}") from None
    return value


def parsed_definition(definition: str, pattern: str) -> Any:
    """PreconditionFailed for one that is no JSON, or stands where the pattern belongs."""
    try:
        return parsed(definition)
    except PreconditionFailed:
        if is_object(pattern):
            raise PreconditionFailed(
                "JSON stands where the pattern belongs: it is NAME PATTERN DEFINITION"
            ) from None
        raise PreconditionFailed(
            f"the definition is no JSON: '{definition}'; write it like {EXAMPLE}"
        ) from None


def is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def in_words(decide: Decide, definition: Any, keys: Collection[str]) -> Decide:
    """The same, whose refusals are readable; `keys` are the settings that there are."""

    def decide_in_words() -> Change:
        try:
            return decide()
        except PreconditionFailed as error:
            raise PreconditionFailed(as_sentence(error.explanation, definition, keys)) from None

    return decide_in_words


def as_sentence(text: str, definition: Any, keys: Collection[str]) -> str:
    """In a line, with strings as JSON has them, and a suggestion for a setting that is not."""
    lines = [line for line in text.split("\n") if line not in ("", HEADING)]
    unknown = [key for key in definition if key not in keys] if isinstance(definition, dict) else []
    said = [
        "; ".join(unrecognised(key, keys) for key in unknown)
        if line.endswith("are not recognised policy settings")
        else BINARY.sub(r"\1", line)
        for line in lines
    ]
    return "; ".join(said)


def in_a_line(text: str) -> str:
    """The same of an entry of definitions, which says of itself what it is."""
    return "; ".join(BINARY.sub(r"\1", line) for line in text.split("\n") if line)


def unrecognised(key: str, keys: Collection[str]) -> str:
    """Why a policy with these settings cannot have that one."""
    if key in POLICY_KEYS:
        return f"an operator's policy cannot set '{key}', any other policy can"
    argument = f"x-{key.removeprefix('x-')}"
    if argument in ARGUMENTS and not POLICY_KEYS.keys() & {argument, argument[2:]}:
        return f"no policy sets '{key}': a queue is declared with '{argument}'"
    return f"there is no setting '{key}' here{suggestion(key, keys)}"


def suggestion(key: str, keys: Collection[str]) -> str:
    """The end of a sentence: what may have been meant, if anything looks like it."""
    near = get_close_matches(key, keys, n=1)
    return f", did you mean '{near[0]}'?" if near else ""


def policy_row(vhost: str, policy: Policy) -> Row:
    return {
        "vhost": vhost,
        "name": policy.name,
        "pattern": policy.pattern,
        "apply-to": policy.applies_to,
        "definition": dict(policy.definition),
        "priority": policy.priority,
    }


def list_policies(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the policies of a virtual host, or of all; highest priority last, as with
    RabbitMQ."""
    return (
        policy_row(each.name, policy)
        for each in context.vhosts(vhost)
        for policy in reversed(tuple(context.catalogue.policies.of(each.name).of_users))
    )


def list_operator_policies(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """The same of those of operators."""
    return (
        policy_row(each.name, policy)
        for each in context.vhosts(vhost)
        for policy in reversed(tuple(context.catalogue.policies.of(each.name).of_operators))
    )


class PolicyKind(NamedTuple):
    """Functions that set policies of users, or of operators."""

    decide: Callable[..., Change]
    keys: Collection[str]
    """Keys that definitions of this kind may set."""


OF_USERS = PolicyKind(set_policy, POLICY_KEYS.keys())
OF_OPERATORS = PolicyKind(set_operator_policy, OPERATOR_POLICY_KEYS)


def set_one(
    setting: PolicyKind,
    context: NodeContext,
    *,
    name: str,
    vhost: str,
    pattern: str,
    definition: str,
    priority: int = 0,
    applies_to: str = ALL,
) -> Result:
    """A policy, in the place of one of its name; `definition` is a text.

    PreconditionFailed if that is no JSON.
    """
    check_name("policy", name)
    fields = {
        "pattern": pattern,
        "definition": parsed_definition(definition, pattern),
        "priority": priority,
        "apply-to": applies_to,
    }
    decide = partial(setting.decide, context.catalogue, vhost, name, fields)
    return context.change(in_words(decide, fields["definition"], setting.keys))


def clear_one(context: NodeContext, *, name: str, vhost: str) -> Result:
    """A policy."""
    return cleared(context, "policy", Kind.POLICY, (vhost, name))


def clear_one_of_operators(context: NodeContext, *, name: str, vhost: str) -> Result:
    """The same with one of operators."""
    key = vhost, OPERATOR_POLICY, name
    return cleared(context, "policy of operators", Kind.PARAMETER, key)


def cleared(context: NodeContext, what: str, kind: Kind, key: Key) -> Result:
    """`what` is named if there is none."""
    vhost, name = str(key[0]), str(key[-1])

    def decide() -> Change:
        check_vhost(context.catalogue, vhost)
        if key not in context.catalogue.kept.entries[kind]:
            raise NotFound(f"there is no {what} '{name}' in vhost '{vhost}'")
        return clear(context.catalogue, kind, key)

    return context.change(decide)


def list_parameters(context: NodeContext, *, vhost: str | None = None) -> Rows:
    """Rows of the parameters of a virtual host, or of all, with operator policies and limits among
    them."""
    vhosts = context.vhosts(vhost)
    names = {each.name for each in vhosts}
    kept = context.catalogue.kept.parameters
    entries = [*(each for each in kept if each["vhost"] in names), *limit_parameters(vhosts)]
    return iter(entries)


def set_one_parameter(
    context: NodeContext, *, component: str, name: str, vhost: str, value: str
) -> Result:
    """`value` is a text."""
    check_name("parameter", name)
    said = parsed(value)
    decide = partial(set_parameter, context.catalogue, vhost, component, name, said)
    definition = said.get("definition") if isinstance(said, dict) else None
    return context.change(in_words(decide, definition, OPERATOR_POLICY_KEYS))


def clear_one_parameter(context: NodeContext, *, component: str, name: str, vhost: str) -> Result:
    """Clear a parameter of one component."""
    return context.change(partial(clear_parameter, context.catalogue, vhost, component, name))


def list_global_parameters(context: NodeContext) -> Rows:
    """All of them."""
    return iter(context.catalogue.kept.global_parameters)


def set_one_global_parameter(context: NodeContext, *, name: str, value: str) -> Result:
    """`value` is a text."""
    check_name("parameter", name)
    return context.change(partial(set_global_parameter, context.catalogue, name, parsed(value)))


def clear_one_global_parameter(context: NodeContext, *, name: str) -> Result:
    """Clear a global parameter of the cluster."""
    return context.change(partial(clear, context.catalogue, Kind.GLOBAL_PARAMETER, (name,)))


READS: Mapping[str, Callable[..., Any]] = {
    "policies.list": list_policies,
    "operator_policies.list": list_operator_policies,
    "parameters.list": list_parameters,
    "global_parameters.list": list_global_parameters,
}
CHANGES: Mapping[str, Callable[..., Any]] = {
    "policies.set": partial(set_one, OF_USERS),
    "policies.clear": clear_one,
    "operator_policies.set": partial(set_one, OF_OPERATORS),
    "operator_policies.clear": clear_one_of_operators,
    "parameters.set": set_one_parameter,
    "parameters.clear": clear_one_parameter,
    "global_parameters.set": set_one_global_parameter,
    "global_parameters.clear": clear_one_global_parameter,
}
