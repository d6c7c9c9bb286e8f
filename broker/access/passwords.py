"""Stored passwords: RabbitMQ's salted hashes, so that users move both ways, and argon2.

A hash of RabbitMQ's is the salt, of four octets, and the digest of salt and password, together in
base64.  One of argon2 is the text that its library makes; RabbitMQ cannot read it.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from hmac import compare_digest
from typing import Any

SALT_BYTES = 4

SHA256 = "rabbit_password_hashing_sha256"
"""RabbitMQ's default, and ours: cheap enough to check on each of a thousand logins a second."""
SHA512 = "rabbit_password_hashing_sha512"
MD5 = "rabbit_password_hashing_md5"
"""Algorithm of users made before RabbitMQ 3.6; imported, but not made any more."""
ARGON2 = "fluffle_password_hashing_argon2"
"""Slow and hungry on purpose; needs the extra `argon2`."""

ARGON2_MEMORY_KIB_MAX = 262_144
ARGON2_TIME_COST_MAX = 32
ARGON2_PARALLELISM_MAX = 64
"""Limits of the cost of one login: many times what hashes made here need."""
ARGON2_SALT_BYTES_MIN = 8
ARGON2_KIB_PER_LANE_MIN = 8
"""RFC 9106, section 3.1."""

DIGESTS: Mapping[str, Callable[[bytes], Any]] = {
    SHA256: hashlib.sha256,
    SHA512: hashlib.sha512,
    MD5: lambda octets: hashlib.md5(octets, usedforsecurity=False),
}


class UnusableHash(ValueError):
    """A stored password that no password could be compared with."""


@dataclass(frozen=True, slots=True)
class PasswordHash:
    """Stored password hash, in the two fields that definitions have for it."""

    hash: str
    algorithm: str = SHA256

    @property
    def is_slow(self) -> bool:
        """True if to compare with it takes longer than an event loop may stand still."""
        return self.algorithm == ARGON2


def hashed(password: bytes, algorithm: str = SHA256) -> PasswordHash:
    """Return a new hash of a password, with a salt of its own."""
    if algorithm == ARGON2:
        return PasswordHash(_argon2().hash(password), ARGON2)
    salt = secrets.token_bytes(SALT_BYTES)
    digest = DIGESTS[algorithm](salt + password).digest()
    return PasswordHash(base64.b64encode(salt + digest).decode(), algorithm)


def hashed_again(password: bytes, stored: PasswordHash | None) -> PasswordHash:
    """Return a hash of a password, with the salt that `stored` has if it is the same: then it is
    seen that the password has not changed.  Only what would be made now is kept."""
    if stored is None or stored.algorithm != SHA256:
        return hashed(password)
    try:
        return stored if matches(stored, password) else hashed(password)
    except UnusableHash:
        return hashed(password)


def matches(stored: PasswordHash, password: bytes) -> bool:
    """True if this is the password.  UnusableHash when `stored` is none."""
    if stored.algorithm == ARGON2:
        return _argon2_matches(stored.hash, password)
    # first, as it says whether the algorithm is known
    salt, digest = _salt_and_digest(stored.hash, stored.algorithm)
    return compare_digest(DIGESTS[stored.algorithm](salt + password).digest(), digest)


def decoy(stored: PasswordHash) -> PasswordHash:
    """Return a hash that is of no password, and as slow to find that out as one of argon2."""
    front, _, digest = stored.hash.rpartition("$")
    return PasswordHash(f"{front}${'A' * len(digest)}", stored.algorithm)


def check_storable(stored: PasswordHash) -> None:
    """UnusableHash, with the reason, for a hash that is not stored.

    As RabbitMQ this broker stores any base64, of any length and algorithm: what was exported where
    more algorithms are known must not stop an import.  It is of no password, as `why_unusable`
    says.  A hash of argon2 has to be one, because it says itself what a login may cost.
    """
    if stored.algorithm == ARGON2:
        _argon2()
        _check_argon2(stored.hash)
    else:
        _octets(stored.hash)


def why_unusable(stored: PasswordHash) -> str:
    """Return why no password can be right for this hash; empty where one can."""
    try:
        check_storable(stored)
        if stored.algorithm != ARGON2:
            _salt_and_digest(stored.hash, stored.algorithm)
    except UnusableHash as error:
        return str(error)
    return ""


def _octets(encoded: str) -> bytes:
    try:
        return base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UnusableHash("the password hash is not base64") from error


@lru_cache(maxsize=1024)
def _salt_and_digest(encoded: str, algorithm: str) -> tuple[bytes, bytes]:
    if algorithm not in DIGESTS:
        raise UnusableHash(f"hashing algorithm {algorithm} is not known")
    octets = _octets(encoded)
    expected = SALT_BYTES + DIGESTS[algorithm](b"").digest_size
    if len(octets) != expected:
        raise UnusableHash(f"the password hash has {len(octets)} octets instead of {expected}")
    return octets[:SALT_BYTES], octets[SALT_BYTES:]


def _argon2() -> Any:
    try:
        from argon2 import PasswordHasher  # noqa: PLC0415  optional
    except ImportError as error:
        raise UnusableHash("argon2 is not installed; pip install 'fluffle[argon2]'") from error
    return PasswordHasher()


def _check_argon2(stored: str) -> None:
    from argon2 import extract_parameters  # noqa: PLC0415  optional
    from argon2.exceptions import InvalidHashError  # noqa: PLC0415  optional

    try:
        stored.encode("ascii")
        parameters = extract_parameters(stored)
    except (InvalidHashError, UnicodeError) as error:
        raise UnusableHash("the password hash is none of argon2") from error
    lanes = parameters.parallelism
    is_sound = (
        1 <= lanes <= ARGON2_PARALLELISM_MAX
        and 1 <= parameters.time_cost <= ARGON2_TIME_COST_MAX
        and lanes * ARGON2_KIB_PER_LANE_MIN <= parameters.memory_cost <= ARGON2_MEMORY_KIB_MAX
        and parameters.salt_len >= ARGON2_SALT_BYTES_MIN
    )
    if not is_sound:
        raise UnusableHash(
            "the password hash asks for more or less than can be: "
            f"m={parameters.memory_cost}, t={parameters.time_cost}, p={lanes}"
        )


def _argon2_matches(stored: str, password: bytes) -> bool:
    hasher = _argon2()
    _check_argon2(stored)
    from argon2.exceptions import (  # noqa: PLC0415  optional
        InvalidHashError,
        VerificationError,
        VerifyMismatchError,
    )

    try:
        hasher.verify(stored, password)
    except VerifyMismatchError:
        return False
    except (InvalidHashError, VerificationError) as error:
        raise UnusableHash(f"the password hash is none of argon2: {error}") from error
    return True
