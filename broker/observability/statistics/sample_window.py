"""Which past of a number is wanted, as RabbitMQ's management is asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

SAMPLES_MAX = 500
"""So many are answered at once, and one more: that of now."""


class SampleWindow(NamedTuple):
    """The last `age_s` seconds, a sample each `increment_s`.  Both are more than 0."""

    age_s: int
    increment_s: int


class SampleWindows(NamedTuple):
    """None where only the rate of now is wanted."""

    messages: SampleWindow | None = None
    """Of counts of messages, and of what comes and goes."""
    lengths: SampleWindow | None = None
    """Of queues."""
    data: SampleWindow | None = None
    """Of bytes on connections."""


NO_PAST = SampleWindows()


def windows_of(query: Mapping[str, str]) -> SampleWindows:
    """The pasts that the parameters of a request ask for.  ValueError, with RabbitMQ's text.

    The past of numbers of nodes is not kept: what asks for it must only be right.
    """
    window_of(query, "node_stats")
    return SampleWindows(
        messages=window_of(query, "msg_rates"),
        lengths=window_of(query, "lengths"),
        data=window_of(query, "data_rates"),
    )


def window_of(query: Mapping[str, str], kind: str) -> SampleWindow | None:
    """None unless both of its parameters are there and are numbers."""
    try:
        age, increment = int(query[f"{kind}_age"]), int(query[f"{kind}_incr"])
    except (KeyError, ValueError):
        return None
    if age <= 0 or increment <= 0 or age // increment > SAMPLES_MAX:
        raise ValueError(f"Invalid range parameters: age {age}, incr {increment}")
    return SampleWindow(age, increment)
