"""Numbers and their rates, as RabbitMQ 4.0.5 puts them."""

from fluffle.broker.observability.statistics.counts import (
    ACK,
    OF_CHANNEL,
    OF_LENGTHS,
    OF_QUEUE,
    Counts,
)
from fluffle.broker.observability.statistics.report import (
    SampleTimes,
    only_details,
    row_of,
    whole_row_of,
)
from fluffle.broker.observability.statistics.sample_window import SampleWindow

DELIVERED_AT = 1
LOOKS = SampleTimes(last=103, before=102, apart_ms=5_000, tick_ms=5_000)


def acked() -> Counts:
    """What RabbitMQ answered of a queue: 906 acknowledgements, in the last 20 s."""
    counts, so_far = Counts(OF_QUEUE), 0
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
    assert row_of(Counts(OF_CHANNEL), LOOKS, None) == {}


def test_the_past_is_told_last_first_with_averages() -> None:
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
    counts = Counts(OF_LENGTHS)
    for tick, ready in ((102, 500), (103, 100)):
        counts.values[:] = [ready, ready, 0]
        counts.sample(tick)
    assert only_details(counts, LOOKS, None) == {
        "messages_details": {"rate": -80.0},
        "messages_ready_details": {"rate": -80.0},
        "messages_unacknowledged_details": {"rate": 0.0},
    }
    assert whole_row_of(counts, LOOKS, None)["messages"] == 100
