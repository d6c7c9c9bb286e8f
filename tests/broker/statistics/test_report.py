"""Numbers and their rates, as RabbitMQ 4.0.5 puts them."""

import pytest

from fluffle.broker.statistics.counters import (
    ACK,
    OF_CHANNEL,
    OF_LENGTHS,
    OF_QUEUE,
    ObjectCounts,
)
from fluffle.broker.statistics.report import (
    NO_PAST,
    Row,
    SampleTimes,
    SampleWindow,
    SampleWindows,
    added,
    only_details,
    row_of,
    time_of,
    whole_row_of,
    windows_of,
)

DELIVERED_AT = 1
LOOKS = SampleTimes(last=103, before=102, apart_ms=5_000, tick_ms=5_000)


def acked() -> ObjectCounts:
    """Counters for which RabbitMQ's answer is known: 906 acknowledgements, in the last 20 s."""
    counts, so_far = ObjectCounts(OF_QUEUE), 0
    for tick, total in enumerate((228, 468, 684, 906), 100):
        counts.add(DELIVERED_AT + ACK, (total - so_far,))
        so_far = total
        counts.sample(tick)
    return counts


def test_a_rate_is_what_came_between_the_last_two_looks() -> None:
    row = row_of(acked(), LOOKS, None)
    assert (row["ack"], row["ack_details"]) == (906, {"rate": 44.4})


def test_a_look_that_came_late_makes_no_rate_higher() -> None:
    row = row_of(acked(), LOOKS._replace(apart_ms=6_000), None)
    assert row["ack_details"] == {"rate": 37.0}


def test_rates_end_with_what_they_are_of() -> None:
    row = row_of(acked(), LOOKS._replace(last=105, before=104), None)
    assert (row["ack"], row["ack_details"]) == (906, {"rate": 0.0})


def test_names_come_in_groups() -> None:
    names = {
        *("ack", "deliver", "deliver_get", "deliver_no_ack"),
        *("get", "get_empty", "get_no_ack", "redeliver"),
    }
    row = row_of(acked(), LOOKS, None)
    assert row.keys() == names | {f"{name}_details" for name in names}
    assert row["get_empty_details"] == {"rate": 0.0}
    assert row_of(ObjectCounts(OF_CHANNEL), LOOKS, None) == {}


def test_the_past_is_reported_last_first_with_averages() -> None:
    details = row_of(acked(), LOOKS, SampleWindow(60, 5))["ack_details"]
    samples = [(each["sample"], each["timestamp"]) for each in details["samples"]]
    assert samples[:5] == [
        (906, 515_000), (684, 510_000), (468, 505_000), (228, 500_000), (0, 495_000),
    ]  # fmt: skip
    assert samples[-1] == (0, 455_000)
    assert len(samples) == 13
    assert (details["rate"], details["avg_rate"]) == (44.4, 15.1)
    assert details["avg"] == 175.84615384615384


def test_rates_of_the_past_are_those_of_its_steps() -> None:
    """Times that lie between two looks are those of the earlier one."""
    details = row_of(acked(), LOOKS, SampleWindow(60, 7))["ack_details"]
    assert [each["timestamp"] for each in details["samples"]][:2] == [515_000, 508_000]
    assert details["rate"] == (906 - 468) / 7


def test_one_sample_has_no_average() -> None:
    details = row_of(acked(), LOOKS, SampleWindow(5, 60))["ack_details"]
    assert details == {"rate": 0.0, "samples": [{"sample": 906, "timestamp": 515_000}]}


def test_lengths_may_shrink() -> None:
    counts = ObjectCounts(OF_LENGTHS)
    for tick, ready in ((102, 500), (103, 100)):
        counts.values[:] = [ready, ready, 0]
        counts.sample(tick)
    assert only_details(counts, LOOKS, None) == {
        "messages_details": {"rate": -80.0},
        "messages_ready_details": {"rate": -80.0},
        "messages_unacknowledged_details": {"rate": 0.0},
    }
    assert whole_row_of(counts, LOOKS, None)["messages"] == 100


def test_counts_and_rates_add() -> None:
    rows: list[Row] = [
        {"message_stats": {"ack": 3, "ack_details": {"rate": 0.5}}, "messages": 1},
        {"message_stats": {"ack": 4, "ack_details": {"rate": 1.0}, "publish": 9}},
        {},
    ]
    assert added(rows) == {
        "message_stats": {"ack": 7, "ack_details": {"rate": 1.5}, "publish": 9},
        "messages": 1,
    }


def test_samples_of_the_same_time_add() -> None:
    one = {"samples": [{"sample": 5, "timestamp": 20}, {"sample": 4, "timestamp": 10}]}
    other = {"samples": [{"sample": 1, "timestamp": 30}, {"sample": 1, "timestamp": 20}]}
    assert added([one, other])["samples"] == [
        {"sample": 1, "timestamp": 30},
        {"sample": 6, "timestamp": 20},
        {"sample": 4, "timestamp": 10},
    ]


def test_rows_that_are_added_stay_as_they_are() -> None:
    one, other = {"details": {"rate": 1.0}}, {"details": {"rate": 2.0}}
    assert added([one, other]) == {"details": {"rate": 3.0}}
    assert (one, other) == ({"details": {"rate": 1.0}}, {"details": {"rate": 2.0}})


def test_of_times_the_latest_is_reported() -> None:
    times = [time_of(at_ms) for at_ms in (1_700_000_000_001, 1_700_000_000_333, 999)]
    assert times[1] == "2023-11-14T22:13:20.333+00:00"
    assert added({"used_at": time} for time in times) == {"used_at": times[1]}


def test_nothing_is_no_row() -> None:
    assert added([]) == {}


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
    """RabbitMQ ignores it, too."""
    assert windows_of({"msg_rates_age": "abc", "msg_rates_incr": "5"}) == NO_PAST
    assert windows_of({}) == NO_PAST


@pytest.mark.parametrize(("age", "increment"), [(60, 0), (60, -5), (-60, 5), (100_000, 1)])
def test_a_past_that_is_none_is_refused(age: int, increment: int) -> None:
    text = f"Invalid range parameters: age {age}, incr {increment}"
    with pytest.raises(ValueError, match=f"^{text}$"):
        windows_of({"msg_rates_age": str(age), "msg_rates_incr": str(increment)})
