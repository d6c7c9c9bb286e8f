"""The kinds of abuse, in one table: what is done, and what it takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from random import Random

from tests.abuse.kinds import (
    churn,
    contents,
    flooders,
    floods,
    frames,
    handshakes,
    logins,
    mqtt,
    tls_and_proxy,
    unread_answers,
)
from tests.abuse.target import AttackContext

Attack = Callable[[AttackContext, Random], None]
"""Does it once, and raises `Surprise` when it does not end as it must."""

KINDS: Mapping[str, Attack] = {
    **frames.KINDS,
    **contents.KINDS,
    **handshakes.KINDS,
    **tls_and_proxy.KINDS,
    **logins.KINDS,
    **mqtt.KINDS,
    **floods.KINDS,
    **flooders.KINDS,
    **churn.KINDS,
    **unread_answers.KINDS,
}
