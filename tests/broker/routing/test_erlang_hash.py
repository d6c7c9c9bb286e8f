"""Erlang's hash.  The numbers are those of Erlang/OTP 27."""

import pytest

from fluffle.broker.routing.erlang_hash import hash_of_binaries


@pytest.mark.parametrize(
    ("binaries", "expected"),
    [
        ([b""], 38220213),
        ([b"a"], 53691870),
        ([b"abc"], 63525141),
        ([b"hello world"], 100059412),
        ([b"0123456789ab"], 119280432),
        ([b"0123456789abc"], 56666097),
        ([b"k" * 255], 33764415),
        ([b"a", b"b"], 3094894),
    ],
)
def test_it_is_that_of_erlang(binaries: list[bytes], expected: int) -> None:
    assert hash_of_binaries(binaries) == expected
