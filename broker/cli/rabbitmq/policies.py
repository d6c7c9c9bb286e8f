"""Policies of users and operators, and parameters."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import partial

from fluffle.broker.cli.output import Row
from fluffle.broker.cli.rabbitmq.verb import (
    NOT_FOUND,
    TEXT,
    Invocation,
    RowTable,
    UsageFailure,
    Verb,
    calls,
)

COLUMNS = ("vhost", "name", "pattern", "apply-to", "definition", "priority")
OPTIONS: Mapping[str, str] = {"priority": TEXT, "apply-to": TEXT}


def set_policy(kind: str, call: Invocation) -> None:
    name, pattern, definition = call.words
    priority = call.options.get("priority", "0")
    if not priority.lstrip("-").isdecimal():
        raise UsageFailure(f"priority must be a number, not '{priority}'")
    call.client.call(
        f"{kind}.set",
        name=name,
        pattern=pattern,
        definition=definition,
        priority=int(priority),
        applies_to=call.options.get("apply-to", "all"),
        vhost=call.vhost,
    )


def list_policies(kind: str, call: Invocation) -> RowTable:
    rows = call.client.rows(f"{kind}.list", vhost=call.vhost)
    return RowTable(COLUMNS, as_text(rows, "definition"), has_blank_line=True)


def as_text(rows: Iterator[Row], name: str) -> Iterator[Row]:
    """Return one column as JSON within a text, also where the rest is JSON."""
    return ({**row, name: json.dumps(row[name], separators=(",", ":"))} for row in rows)


def list_parameters(call: Invocation) -> RowTable:
    rows = call.client.rows("parameters.list", vhost=call.vhost)
    return RowTable(("component", "name", "value"), as_text(rows, "value"), has_blank_line=True)


def list_global_parameters(call: Invocation) -> RowTable:
    rows = call.client.rows("global_parameters.list")
    return RowTable(("name", "value"), as_text(rows, "value"), has_blank_line=True)


def setting(what: str, call: Invocation) -> str:
    name, pattern, definition = (call.word(place) for place in range(3))
    return (
        f'Setting {what} "{name}" for pattern "{pattern}" to "{definition}" with priority '
        f'"{call.options.get("priority", "0")}" for vhost "{call.vhost}" ...'
    )


ABSENT = {NOT_FOUND: "Parameter does not exist"}
PLACES = "<name> <pattern> <definition>"

VERBS: Mapping[str, Verb] = {
    "set_policy": Verb(
        partial(set_policy, "policies"), PLACES, partial(setting, "policy"), (3, 3), OPTIONS
    ),
    "clear_policy": Verb(
        calls("policies.clear", "name", in_vhost=True), "<name>",
        'Clearing policy "{0}" on vhost "{vhost}" ...', (1, 1), texts=ABSENT,
    ),
    "list_policies": Verb(
        partial(list_policies, "policies"), "", 'Listing policies for vhost "{vhost}" ...'
    ),
    "set_operator_policy": Verb(
        partial(set_policy, "operator_policies"), PLACES,
        partial(setting, "operator policy override"), (3, 3), OPTIONS,
    ),
    "clear_operator_policy": Verb(
        calls("operator_policies.clear", "name", in_vhost=True), "<name>",
        'Clearing operator policy "{0}" on vhost "{vhost}" ...', (1, 1), texts=ABSENT,
    ),
    "list_operator_policies": Verb(
        partial(list_policies, "operator_policies"), "",
        'Listing operator policy overrides for vhost "{vhost}" ...',
    ),
    "set_parameter": Verb(
        calls("parameters.set", "component", "name", "value", in_vhost=True),
        "<component> <name> <value>",
        'Setting runtime parameter "{1}" for component "{0}" to "{2}" in vhost "{vhost}" ...',
        (3, 3),
    ),
    "clear_parameter": Verb(
        calls("parameters.clear", "component", "name", in_vhost=True), "<component> <name>",
        'Clearing runtime parameter "{1}" for component "{0}" on vhost "{vhost}" ...', (2, 2),
        texts=ABSENT,
    ),
    "list_parameters": Verb(
        list_parameters, "", 'Listing runtime parameters for vhost "{vhost}" ...',
        note="policies of operators and limits of virtual hosts are among them",
    ),
    "set_global_parameter": Verb(
        calls("global_parameters.set", "name", "value"), "<name> <value>",
        'Setting global runtime parameter "{0}" to "{1}" ...', (2, 2),
    ),
    "clear_global_parameter": Verb(
        calls("global_parameters.clear", "name"), "<name>",
        'Clearing global runtime parameter "{0}" ...', (1, 1),
        texts=ABSENT,
    ),
    "list_global_parameters": Verb(
        list_global_parameters, "", "Listing global runtime parameters ..."
    ),
}  # fmt: skip
