"""What a request asks of the past."""

import pytest

from fluffle.broker.observability.statistics.sample_window import (
    NO_PAST,
    SampleWindow,
    SampleWindows,
    windows_of,
)


def test_each_kind_has_its_own_parameters() -> None:
    query = {"msg_rates_age": "60", "msg_rates_incr": "5", "lengths_age": "600"}
    assert windows_of(query) == SampleWindows(messages=SampleWindow(60, 5))
    assert windows_of({"data_rates_age": "60", "data_rates_incr": "10"}) == SampleWindows(
        data=SampleWindow(60, 10)
    )
    assert windows_of({"lengths_age": "8", "lengths_incr": "9"}) == SampleWindows(
        lengths=SampleWindow(8, 9)
    )


def test_what_is_no_number_asks_for_nothing() -> None:
    """As with RabbitMQ."""
    assert windows_of({"msg_rates_age": "abc", "msg_rates_incr": "5"}) == NO_PAST
    assert windows_of({}) == NO_PAST


@pytest.mark.parametrize(("age", "increment"), [(60, 0), (60, -5), (-60, 5), (100_000, 1)])
def test_a_past_that_is_none_is_refused(age: int, increment: int) -> None:
    text = f"Invalid range parameters: age {age}, incr {increment}"
    with pytest.raises(ValueError, match=f"^{text}$"):
        windows_of({"msg_rates_age": str(age), "msg_rates_incr": str(increment)})
