"""Comparing passwords without holding up the event loop.

Quick hashes are compared at once.  Slow ones go through a port that runs them elsewhere; what was
right is remembered as a keyed digest, so that a client that connects again costs next to nothing.
Wrong passwords are never remembered.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Callable
from enum import Enum
from functools import partial
from typing import TypeAlias

from fluffle.broker.access.passwords import PasswordHash, UnusableHash, matches


class Verdict(Enum):
    """Of a password."""

    RIGHT = "right"
    WRONG = "wrong"


Answer: TypeAlias = Callable[[Verdict], None]
RunElsewhere: TypeAlias = Callable[[Callable[[], Verdict], Answer], None]
"""Runs a function outside of the event loop, then gives its result to an answer inside of it."""

REMEMBERED_MAX = 4096
"""Pairs of hash and password; beyond, the oldest is forgotten."""


class Verifier:
    """Compares passwords with what is stored of them."""

    __slots__ = ("_key", "_remembered", "_run_elsewhere")

    def __init__(self, run_elsewhere: RunElsewhere) -> None:
        self._run_elsewhere = run_elsewhere
        self._key = secrets.token_bytes(32)
        """Of this process alone: what is remembered says nothing to anybody else."""
        self._remembered: dict[bytes, None] = {}

    def verify(self, stored: PasswordHash, password: bytes, answer: Answer) -> None:
        """Call `answer`, now or later; a blank password is never right."""
        if not password:
            answer(Verdict.WRONG)
        elif not stored.is_slow:
            answer(verdict(stored, password))
        elif (seen := self._seen(stored, password)) in self._remembered:
            answer(Verdict.RIGHT)
        else:
            self._run_elsewhere(
                partial(verdict, stored, password), partial(self._on_result, seen, answer)
            )

    def _seen(self, stored: PasswordHash, password: bytes) -> bytes:
        return hmac.digest(self._key, stored.hash.encode() + b"\0" + password, "sha256")

    def _on_result(self, seen: bytes, answer: Answer, result: Verdict) -> None:
        if result is Verdict.RIGHT:
            if len(self._remembered) >= REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[seen] = None
        answer(result)


def verdict(stored: PasswordHash, password: bytes) -> Verdict:
    """Whether this is the password; nothing is right for a hash that is none."""
    try:
        return Verdict.RIGHT if matches(stored, password) else Verdict.WRONG
    except UnusableHash:
        return Verdict.WRONG


def run_here(job: Callable[[], Verdict], answer: Answer) -> None:
    """The port for those who have no event loop to hold up."""
    answer(job())
