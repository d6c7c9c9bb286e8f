"""Stored passwords that are slow by their name alone."""

from argon2 import PasswordHasher

from fluffle.broker.access.passwords import ARGON2, PasswordHash

CHEAP = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
"""Most tests are about when argon2 is asked, and not about the tenth of a second that it takes."""


def slow_hash(password: bytes) -> PasswordHash:
    """A new hash of argon2, which is compared as fast as any."""
    return PasswordHash(CHEAP.hash(password), ARGON2)
