"""Comparing passwords without holding up the event loop.

Quick hashes are compared at once.  Slow ones go through a port that runs them elsewhere, one at a
time; what was right is remembered as a keyed digest, so that a client that connects again costs
next to nothing.  Wrong passwords are never remembered.

A slow comparison is made to cost much, and any client may ask for one.  So few may wait, fewer from
one address; equal requests share one comparison; and those of clients that have gone are passed
over.
"""

from __future__ import annotations

import hmac
import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from typing import NamedTuple, TypeAlias

from fluffle.broker.access.passwords import PasswordHash, UnusableHash, matches
from fluffle.broker.base.logs import event

logger = logging.getLogger(__name__)


class PasswordVerdict(Enum):
    """Outcome of comparing a password."""

    RIGHT = "right"
    WRONG = "wrong"
    BUSY = "busy"
    """Not compared: too many comparisons are under way."""


Answer: TypeAlias = Callable[[PasswordVerdict], None]
RunElsewhere: TypeAlias = Callable[[Callable[[], PasswordVerdict], Answer], None]
"""Runs a function outside of the event loop, then gives its result to an answer inside of it."""

REMEMBERED_MAX = 4096
"""Pairs of hash and password; beyond, the oldest is forgotten."""

WAITING_MAX = 128
"""Comparisons that wait: some seconds' worth, after which a handshake would be too old anyway."""

WAITING_PER_SOURCE_MAX = 16
"""Waiting comparisons of one source address."""


def always() -> bool:
    return True


class VerificationRequest(NamedTuple):
    """Request to compare a password, with the callback that is answered."""

    answer: Answer
    is_there: Callable[[], bool] = always
    """Function that says if the client still waits."""
    source: str = ""
    """The address he comes from."""


@dataclass(slots=True)
class Comparison:
    """A password that is, or will be, compared elsewhere."""

    stored: PasswordHash
    password: bytes
    source: str
    """Source address of the first request."""
    requests: list[VerificationRequest] = field(default_factory=list)

    @property
    def is_wanted(self) -> bool:
        return any(request.is_there() for request in self.requests)


class Verifier:
    """Compares passwords with what is stored of them."""

    __slots__ = ("_comparisons", "_has_warned", "_key", "_remembered", "_run_elsewhere", "_running")

    def __init__(self, run_elsewhere: RunElsewhere) -> None:
        self._run_elsewhere = run_elsewhere
        self._key = secrets.token_bytes(32)
        """Key of this process alone, which makes the remembered digests useless elsewhere."""
        self._remembered: dict[bytes, None] = {}
        self._comparisons: dict[bytes, Comparison] = {}
        """Comparisons by digest, in the order in which they are made, the running one included."""
        self._running: bytes | None = None
        """The digest of that one."""
        self._has_warned = False

    def verify(self, stored: PasswordHash, password: bytes, request: VerificationRequest) -> None:
        """Answer `request`, now or later, unless he has gone; a blank password is never right."""
        if not password:
            request.answer(PasswordVerdict.WRONG)
        elif not stored.is_slow:
            request.answer(verdict(stored, password))
        elif (seen := self._seen(stored, password)) in self._remembered:
            request.answer(PasswordVerdict.RIGHT)
        elif seen in self._comparisons:
            self._comparisons[seen].requests.append(request)
        elif self._has_room(request.source):
            self._comparisons[seen] = Comparison(stored, password, request.source, [request])
            self._compare_next()
        else:
            self._warn(request.source)
            request.answer(PasswordVerdict.BUSY)

    def _seen(self, stored: PasswordHash, password: bytes) -> bytes:
        return hmac.digest(self._key, stored.hash.encode() + b"\0" + password, "sha256")

    def _has_room(self, source: str) -> bool:
        if self._is_full(source):
            self._forget_unwanted()
        return not self._is_full(source)

    def _is_full(self, source: str) -> bool:
        from_there = sum(each.source == source for each in self._comparisons.values())
        return len(self._comparisons) >= WAITING_MAX or from_there >= WAITING_PER_SOURCE_MAX

    def _forget_unwanted(self) -> None:
        for seen, comparison in tuple(self._comparisons.items()):
            if seen != self._running and not comparison.is_wanted:
                del self._comparisons[seen]

    def _warn(self, source: str) -> None:
        """Once, until all that waits has been done: this is what floods look like."""
        if not self._has_warned:
            self._has_warned = True
            waiting = len(self._comparisons)
            event(logger, logging.WARNING, "logins_overloaded", waiting=waiting, source=source)

    def _compare_next(self) -> None:
        while self._running is None and self._comparisons:
            seen, comparison = next(iter(self._comparisons.items()))
            if not comparison.is_wanted:
                del self._comparisons[seen]
                continue
            self._running = seen
            job = partial(verdict, comparison.stored, comparison.password)
            self._run_elsewhere(job, partial(self._on_result, seen))
        self._has_warned &= bool(self._comparisons)

    def _on_result(self, seen: bytes, result: PasswordVerdict) -> None:
        comparison = self._comparisons.pop(seen)
        self._running = None
        if result is PasswordVerdict.RIGHT:
            if len(self._remembered) >= REMEMBERED_MAX:
                del self._remembered[next(iter(self._remembered))]
            self._remembered[seen] = None
        self._compare_next()
        for request in comparison.requests:
            if request.is_there():
                request.answer(result)


def verdict(stored: PasswordHash, password: bytes) -> PasswordVerdict:
    """Verdict on a password; none is right for a malformed hash."""
    try:
        return PasswordVerdict.RIGHT if matches(stored, password) else PasswordVerdict.WRONG
    except UnusableHash:
        return PasswordVerdict.WRONG


def run_here(job: Callable[[], PasswordVerdict], answer: Answer) -> None:
    """Compare passwords at once, for callers without an event loop to hold up."""
    answer(job())
