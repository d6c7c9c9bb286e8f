"""What several nodes say of one thing becomes one."""

from fluffle.broker.observability.statistics.rows import Row, added, time_of


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


def test_of_times_the_latest_is_told() -> None:
    times = [time_of(at_ms) for at_ms in (1_700_000_000_001, 1_700_000_000_333, 999)]
    assert times[1] == "2023-11-14T22:13:20.333+00:00"
    assert added({"used_at": time} for time in times) == {"used_at": times[1]}


def test_nothing_is_no_row() -> None:
    assert added([]) == {}
