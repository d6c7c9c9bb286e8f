"""Headers about deaths.  The long example is what RabbitMQ 4.0.5 answers."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.protocol.headers import Death, DeathReason, deaths_of, died, is_cycle
from fluffle.protocol.properties import Properties, decode_properties, encode_properties
from fluffle.protocol.wire import FieldTable, to_table

REJECTED = DeathReason.REJECTED

PUBLISHED = Properties(
    headers=to_table({"z": 1, "x-death": "mine", "x-last-death-reason": 5, "CC": ["cc"]}),
    priority=3,
    expiration="+60000",
)

IN_S = Death("s", REJECTED, 1_000, "", ("s", "cc"))
IN_D = Death("d", REJECTED, 2_000, "dlx", ("s",))


def first_table(count: int) -> FieldTable:
    """Entry of deaths in queue s."""
    return to_table(
        {
            "original-expiration": "60000",
            "count": count,
            "reason": "rejected",
            "queue": "s",
            "time": ("T", 1_000),
            "exchange": "",
            "routing-keys": ["s", "cc"],
        }
    )


def last_headers(raw: bytes) -> FieldTable:
    headers = decode_properties(raw).headers
    assert headers is not None
    return headers


def test_a_first_death() -> None:
    raw, _deaths = died(encode_properties(PUBLISHED), IN_S, again=False)
    expected = Properties(
        headers={
            "CC": ("A", [("S", b"cc")]),
            "x-death": ("A", [("F", first_table(1))]),
            "x-first-death-exchange": ("S", b""),
            "x-first-death-queue": ("S", b"s"),
            "x-first-death-reason": ("S", b"rejected"),
            "x-last-death-exchange": ("S", b""),
            "x-last-death-queue": ("S", b"s"),
            "x-last-death-reason": ("S", b"rejected"),
            "z": ("l", 1),
        },
        priority=3,
    )
    assert raw == encode_properties(expected)


def test_deaths_of_one_queue_and_reason_are_counted_and_keep_what_was_said_first() -> None:
    raw = encode_properties(PUBLISHED)
    for number, death in enumerate([IN_S, IN_D, IN_S._replace(time_s=3_000, exchange="other")]):
        raw, _deaths = died(raw, death, again=number > 0)
    deaths = deaths_of(last_headers(raw))
    assert deaths[0] == first_table(2)
    assert list(deaths[0]) == [
        *("original-expiration", "count", "reason", "queue", "time", "exchange", "routing-keys")
    ]
    assert [table["queue"] for table in deaths] == [("S", b"s"), ("S", b"d")]
    headers = last_headers(raw)
    assert headers["x-last-death-exchange"] == ("S", b"other")
    assert headers["x-first-death-exchange"] == ("S", b"")


def test_one_queue_has_a_table_for_each_reason() -> None:
    raw, _deaths = died(encode_properties(Properties()), IN_S, again=False)
    expired = IN_S._replace(reason=DeathReason.EXPIRED)
    raw, deaths = died(raw, expired, again=True)
    assert [table["reason"] for table in deaths] == [("S", b"expired"), ("S", b"rejected")]
    assert last_headers(raw)["x-first-death-reason"] == ("S", b"rejected")


QUEUES = st.sampled_from(["a", "b", "c"])
REASONS = st.sampled_from(DeathReason)


@given(st.lists(st.tuples(QUEUES, REASONS), min_size=1, max_size=8), QUEUES)
def test_a_message_that_has_come_back_by_itself_is_in_a_cycle(
    story: list[tuple[str, DeathReason]], target: str
) -> None:
    """Against the story as it was: a queue and a reason count where they came up last."""
    raw, deaths = encode_properties(Properties()), list[FieldTable]()
    for number, (queue, reason) in enumerate(story):
        raw, deaths = died(raw, Death(queue, reason, number, "", ()), again=number > 0)
    latest = list(dict.fromkeys(reversed(story)))
    queues = [queue for queue, _reason in latest]
    since = latest[: queues.index(target) + 1] if target in queues else []
    is_automatic = all(reason is not REJECTED for _queue, reason in since)
    assert is_cycle(deaths, target) == (bool(since) and is_automatic)
    assert deaths == deaths_of(last_headers(raw))
