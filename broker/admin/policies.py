"""policies.*, operator_policies.*, parameters.* and global_parameters.*."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from functools import partial
from typing import Any, NamedTuple

from fluffle.broker.admin.arguments import check_name
from fluffle.broker.admin.context import NodeContext, Result, Row, Rows
from fluffle.broker.admin.policy_texts import in_words, parsed, parsed_definition
from fluffle.broker.base.errors import NotFound
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
from fluffle.broker.metadata.change import Change
from fluffle.broker.metadata.facts import Key, Kind
from fluffle.broker.policies.policy import ALL, OPERATOR_POLICY, Policy
from fluffle.broker.policies.validation import KEYS, OPERATOR_KEYS


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
    """Those of a virtual host, or all; whoever counts first comes last, as with RabbitMQ."""
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
    """How policies of one kind are set."""

    decide: Callable[..., Change]
    keys: Collection[str]
    """Of which their definitions may speak."""


OF_USERS = PolicyKind(set_policy, KEYS.keys())
OF_OPERATORS = PolicyKind(set_operator_policy, OPERATOR_KEYS)


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
    """Those of a virtual host, or all: policies of operators and limits are among them."""
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
    return context.change(in_words(decide, definition, OPERATOR_KEYS))


def clear_one_parameter(context: NodeContext, *, component: str, name: str, vhost: str) -> Result:
    """Of one component."""
    return context.change(partial(clear_parameter, context.catalogue, vhost, component, name))


def list_global_parameters(context: NodeContext) -> Rows:
    """All of them."""
    return iter(context.catalogue.kept.global_parameters)


def set_one_global_parameter(context: NodeContext, *, name: str, value: str) -> Result:
    """`value` is a text."""
    check_name("parameter", name)
    return context.change(partial(set_global_parameter, context.catalogue, name, parsed(value)))


def clear_one_global_parameter(context: NodeContext, *, name: str) -> Result:
    """Of the cluster."""
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
