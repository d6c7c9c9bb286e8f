"""The kinds of abuse, in one table: what is done, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from tests.abuse.ground import Ground
from tests.abuse.kinds import (
    churn,
    contents,
    entrances,
    flooders,
    floods,
    frames,
    handshakes,
    hoarders,
    logins,
)

Attack = Callable[[Ground, Random], None]
"""Does it once, and raises `Surprise` when it does not end as it must."""

KINDS: Mapping[str, Attack] = {
    **frames.KINDS,
    **contents.KINDS,
    **handshakes.KINDS,
    **entrances.KINDS,
    **logins.KINDS,
    **floods.KINDS,
    **flooders.KINDS,
    **churn.KINDS,
    **hoarders.KINDS,
}
