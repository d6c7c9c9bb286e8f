"""Limits, and what is counted against them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.access.limits import Usage, is_reached


@pytest.mark.parametrize(
    ("limit", "count", "reached"),
    [
        (None, 10**6, False),
        (-1, 10**6, False),
        (0, 0, True),
        (2, 1, False),
        (2, 2, True),
        (2, 3, True),
    ],
)
def test_rabbitmqs_rule(limit: int | None, count: int, reached: bool) -> None:
    assert is_reached(limit, count) == reached


@given(st.lists(st.tuples(st.sampled_from("uw"), st.sampled_from("ab"))))
def test_what_has_gone_leaves_nothing(connections: list[tuple[str, str]]) -> None:
    usage = Usage()
    for count, (user, vhost) in enumerate(connections, 1):
        usage.opened(user, vhost)
        usage.channel_opened(user)
        assert usage.connection_count == count
        assert [counts.total() for counts in usage.here.values()] == [count] * 3
    for user, vhost in reversed(connections):
        usage.closed(user, vhost)
        usage.channel_closed(user)
    assert usage == Usage()
    assert not any(usage.here.values())
