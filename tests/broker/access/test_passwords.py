"""Stored passwords: those of RabbitMQ's making, those of ours, and what is none."""

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.passwords import (
    ARGON2,
    DIGESTS,
    MD5,
    SALT_BYTES,
    SHA256,
    SHA512,
    PasswordHash,
    UnusableHash,
    check_storable,
    decoy,
    hashed,
    hashed_again,
    matches,
    why_unusable,
)

EXPORTED = {
    "guest": "bvnihIuYZNPlObu0w6bVerF4FnMm25j38WEu6C1mkA/JHVkN",
    "secret": "O751Ptex24hgk3T2j0yhCE5FTrHd8CJ/JCEeiBbdfeGtx9U1",
}
"""Hashes that RabbitMQ 4.0.5 exported, by password."""


@pytest.mark.parametrize("password", EXPORTED)
def test_hashes_of_rabbitmqs_making(password: str) -> None:
    stored = PasswordHash(EXPORTED[password])
    assert matches(stored, password.encode())
    assert not matches(stored, password.encode() + b"x")
    assert not matches(stored, b"")


@given(st.binary(), st.binary(), st.sampled_from(list(DIGESTS)))
def test_a_hash_matches_its_password_alone(password: bytes, other: bytes, algorithm: str) -> None:
    stored = hashed(password, algorithm)
    check_storable(stored)
    assert not why_unusable(stored)
    assert stored.algorithm == algorithm
    assert matches(stored, password)
    assert matches(stored, other) == (other == password)


@pytest.mark.parametrize(("algorithm", "digest_bytes"), [(MD5, 16), (SHA256, 32), (SHA512, 64)])
def test_a_hash_is_salt_and_digest(algorithm: str, digest_bytes: int) -> None:
    first, second = hashed(b"same", algorithm), hashed(b"same", algorithm)
    octets = base64.b64decode(first.hash)
    assert len(octets) == SALT_BYTES + digest_bytes
    assert (
        octets == octets[:SALT_BYTES] + DIGESTS[algorithm](octets[:SALT_BYTES] + b"same").digest()
    )
    assert first != second, "the same salt twice"


def test_argon2_is_slow_and_knows_its_password() -> None:
    stored = hashed(b"secret", ARGON2)
    check_storable(stored)
    assert not why_unusable(stored)
    assert stored.hash.startswith("$argon2id$")
    assert stored.is_slow
    assert matches(stored, b"secret")
    assert not matches(stored, b"Secret")
    assert not any(hashed(b"p", algorithm).is_slow for algorithm in DIGESTS)


@pytest.mark.parametrize("algorithm", DIGESTS)
@pytest.mark.parametrize("text", ["", "AAAA", "not base64!", "é"])
def test_what_is_no_hash(text: str, algorithm: str) -> None:
    stored = PasswordHash(text, algorithm)
    with pytest.raises(UnusableHash, match="the password hash"):
        matches(stored, b"")
    assert "the password hash" in why_unusable(stored)


@pytest.mark.parametrize("algorithm", [*DIGESTS, "plain"])
@pytest.mark.parametrize("text", ["", "AAAA", "aGVsbG8="])
def test_any_base64_is_stored(text: str, algorithm: str) -> None:
    check_storable(PasswordHash(text, algorithm))
    for other in ("not base64!", "é", "AAA"):
        with pytest.raises(UnusableHash, match="is not base64"):
            check_storable(PasswordHash(other, algorithm))


def argon2_text(parameters: str, salt: str = "c29tZXNhbHQ", digest: str = "A" * 43) -> str:
    return f"$argon2id$v=19${parameters}${salt}${digest}"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "none of argon2"),
        ("plain", "none of argon2"),
        ("é", "none of argon2"),
        (argon2_text("m=64,t=1,p=1", salt="éééééééééééé"), "none of argon2"),
        (argon2_text("m=x,t=1,p=1"), "none of argon2"),
        (argon2_text("m=4294967295,t=1,p=1"), "m=4294967295, t=1, p=1"),
        (argon2_text("m=64,t=999999999,p=1"), "more or less than can be"),
        (argon2_text("m=64,t=0,p=1"), "more or less than can be"),
        (argon2_text("m=64,t=1,p=9"), "more or less than can be"),
        (argon2_text("m=-1,t=1,p=-1"), "more or less than can be"),
        (argon2_text("m=64,t=1,p=1", salt=""), "more or less than can be"),
    ],
)
def test_an_argon2_hash_that_is_none(text: str, reason: str) -> None:
    stored = PasswordHash(text, ARGON2)
    for use in (check_storable, lambda hash_: matches(hash_, b"plain")):
        with pytest.raises(UnusableHash, match=reason):
            use(stored)


def test_what_only_argon2_itself_finds_wrong_is_no_hash_either() -> None:
    stored = PasswordHash(argon2_text("m=64,t=1,p=1", digest="!" * 43), ARGON2)
    with pytest.raises(UnusableHash, match="none of argon2"):
        matches(stored, b"plain")


def test_an_unknown_algorithm() -> None:
    stored = PasswordHash("", "plain")
    with pytest.raises(UnusableHash, match="hashing algorithm plain is not known"):
        matches(stored, b"secret")
    assert why_unusable(stored) == "hashing algorithm plain is not known"


def test_a_decoy_costs_as_much_and_is_of_no_password() -> None:
    stored = hashed(b"secret", ARGON2)
    fake = decoy(stored)
    check_storable(fake)
    assert fake.hash.split("$")[:5] == stored.hash.split("$")[:5]
    assert not matches(fake, b"secret")


def test_a_password_that_is_there_already_keeps_its_hash() -> None:
    stored = hashed(b"secret")
    assert hashed_again(b"secret", stored) is stored
    assert matches(hashed_again(b"other", stored), b"other")


@pytest.mark.parametrize(
    "stored",
    [None, hashed(b"secret", MD5), hashed(b"secret", SHA512), PasswordHash("no hash")],
)
def test_what_is_stored_otherwise_is_hashed_anew(stored: PasswordHash | None) -> None:
    made = hashed_again(b"secret", stored)
    assert made.algorithm == SHA256
    assert matches(made, b"secret")


def test_no_slow_hash_is_compared_to_keep_it() -> None:
    stored = hashed(b"secret", ARGON2)
    assert hashed_again(b"secret", stored).algorithm == SHA256
