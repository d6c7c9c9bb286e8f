"""Feature flags and deprecated features: all are on, and nothing is deprecated."""

from __future__ import annotations

from collections.abc import Mapping

from fluffle.broker.base.features import FEATURES
from fluffle.broker.cli.rabbitmq.verb import (
    FLAG,
    USAGE,
    Failure,
    Invocation,
    RowTable,
    UsageFailure,
    Verb,
)

FLAG_COLUMNS = ("name", "state", "stability", "provided_by", "desc", "doc_url")
FEATURE_COLUMNS = ("name", "deprecation_phase", "provided_by", "desc", "doc_url")


def columns_of(
    call: Invocation, default: tuple[str, ...], known: tuple[str, ...]
) -> tuple[str, ...]:
    """Return the columns that were asked for.  UsageFailure."""
    for name in call.words:
        if name not in known:
            raise UsageFailure(f"Info key(s) {name} are not supported")
    return tuple(call.words) or default


def list_feature_flags(call: Invocation) -> RowTable:
    columns = columns_of(call, ("name", "state"), FLAG_COLUMNS)
    rows = (
        {
            "name": name,
            "state": "enabled",
            "stability": "required",
            "provided_by": "rabbit",
            "desc": description,
        }
        for name, description in FEATURES.items()
    )
    return RowTable(columns, rows)


def enable_feature_flag(call: Invocation) -> None:
    """Enable a feature flag, which all that exist are already."""
    name = call.word(0, "all")
    if name not in ("all", *FEATURES):
        raise Failure(f"This feature flag is not supported by node {call.node}", USAGE)


def list_deprecated_features(call: Invocation) -> RowTable:
    columns = columns_of(call, ("name", "deprecation_phase"), FEATURE_COLUMNS)
    return RowTable(columns, ())


def enabling(call: Invocation) -> str:
    name = call.word(0, "all")
    what = "all feature flags" if name == "all" else f'feature flag "{name}"'
    return f"Enabling {what} ..."


VERBS: Mapping[str, Verb] = {
    "list_feature_flags": Verb(
        list_feature_flags, "[<column> ...]", "Listing feature flags ...", (0, None),
        note="those of RabbitMQ 4 whose features are built in, always enabled",
    ),
    "enable_feature_flag": Verb(
        enable_feature_flag, "<all | feature_flag>", enabling, (0, 1),
        {"experimental": FLAG, "opt-in": FLAG}, note="nothing is to be enabled: all are",
    ),
    "list_deprecated_features": Verb(
        list_deprecated_features, "[<column> ...]", "Listing deprecated features ...", (0, None),
        {"used": FLAG}, note="there are none",
    ),
}  # fmt: skip
