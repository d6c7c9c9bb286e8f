"""The hash that RabbitMQ takes of routing keys: Erlang's `phash2`, for a list of binaries.

It is Bob Jenkins' hash of 1996 (https://burtleburtle.net/bob/hash/evahash.html), 32 bits wide, of
which the lowest 27 are given.  Each binary begins with what came out of the one before it, and the
end of the list counts too.
"""

from collections.abc import Sequence

RANGE = 1 << 27
"""What Erlang gives if it is not asked for another."""

_MASK = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
"""Multiples of it tell kinds of terms apart."""
_LIST_END = 2 * _GOLDEN & _MASK
_BINARY = 13 * _GOLDEN & _MASK
_NIL = 2
"""What Erlang's run-time system calls the end of a list."""
_BLOCK_BYTES = 12


def hash_of_binaries(binaries: Sequence[bytes]) -> int:
    """`erlang:phash2(Binaries)`, in `range(RANGE)`; of at least one binary."""
    state = 0
    for binary in binaries:
        state = _hashed(binary, (_BINARY + state) & _MASK)
    _, _, state = _mixed((_LIST_END + _NIL) & _MASK, _LIST_END, state)
    return state % RANGE


def _hashed(binary: bytes, state: int) -> int:
    """The empty binary leaves the state as it is."""
    if not binary:
        return state
    a = b = _GOLDEN
    whole_bytes = len(binary) - len(binary) % _BLOCK_BYTES
    for at in range(0, whole_bytes, _BLOCK_BYTES):
        a = a + _number(binary[at : at + 4]) & _MASK
        b = b + _number(binary[at + 4 : at + 8]) & _MASK
        state = state + _number(binary[at + 8 : at + 12]) & _MASK
        a, b, state = _mixed(a, b, state)
    rest = binary[whole_bytes:]
    a = a + _number(rest[:4]) & _MASK
    b = b + _number(rest[4:8]) & _MASK
    # the lowest octet is that of the length
    state = state + len(binary) + (_number(rest[8:]) << 8) & _MASK
    return _mixed(a, b, state)[2]


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "little")


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right_a, left_b, right_c in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = (a - b - c & _MASK) ^ c >> right_a
        b = (b - c - a & _MASK) ^ a << left_b & _MASK
        c = (c - a - b & _MASK) ^ b >> right_c
    return a, b, c
