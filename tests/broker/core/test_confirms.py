"""Every publish is answered once, in as few frames as RabbitMQ would use."""

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.core.confirms import Confirms
from fluffle.broker.protocols.amqp091.channel import confirm_frames
from fluffle.protocol.hot import ack_frame
from fluffle.protocol.methods import Basic, decode_method

CHANNEL = 7


def answers(confirms: Confirms) -> list[str]:
    """Texts of the confirms to send: `ack 3`, or `ack 3*` where `multiple` is set."""
    texts = []
    for frame in confirm_frames(CHANNEL, confirms):
        assert frame[:3] == b"\x01\x00\x07"
        method = decode_method(frame[7:-1])
        assert isinstance(method, Basic.Ack | Basic.Nack)
        verb = "ack" if isinstance(method, Basic.Ack) else "nack"
        texts.append(f"{verb} {method.delivery_tag}{'*' if method.multiple else ''}")
    return texts


def assigned(*counts: int) -> Confirms:
    confirms, next_sequence = Confirms(), 1
    for count in counts:
        assert confirms.assign(count) == next_sequence
        next_sequence += count
    return confirms


def test_a_lone_ack_says_so() -> None:
    confirms = assigned(1, 1)
    confirms.accept(1)
    assert answers(confirms) == ["ack 1"]
    assert answers(confirms) == []
    confirms.accept(2)
    assert answers(confirms) == ["ack 2"]


def test_one_answer_for_all_of_a_turn() -> None:
    confirms = assigned(3, 1, 5)
    for first in (4, 1, 5):
        confirms.accept(first)
    assert confirms.open_count == 0
    assert answers(confirms) == ["ack 9*"]


def test_what_lies_behind_an_open_number_is_answered_alone() -> None:
    confirms = assigned(2, 1, 2, 1)
    for first in (1, 4, 6):
        confirms.accept(first)
    assert confirms.open_count == 1
    assert answers(confirms) == ["ack 2*", "ack 4", "ack 5", "ack 6"]


def test_the_last_open_number_is_answered_by_its_own() -> None:
    """Not by the highest there is, which was answered before."""
    confirms = assigned(1, 1)
    confirms.accept(2)
    assert answers(confirms) == ["ack 2"]
    confirms.accept(1)
    assert answers(confirms) == ["ack 1"]


def test_an_ack_never_covers_what_was_refused() -> None:
    confirms = assigned(2, 2, 2)
    confirms.accept(1)
    confirms.refuse(3)
    confirms.accept(5)
    assert answers(confirms) == ["ack 2*", "ack 5", "ack 6", "nack 3", "nack 4"]
    assert answers(confirms) == []


def test_refusals_are_coalesced_as_acks_are() -> None:
    confirms = assigned(2, 3, 1)
    confirms.refuse(1)
    confirms.refuse(3)
    assert answers(confirms) == ["nack 5*"]
    confirms.refuse(6)
    assert answers(confirms) == ["nack 6"]


def rule(numbers: set[int], others: set[int], is_open: set[int]) -> list[tuple[int, bool]]:
    """RabbitMQ's rule, on sets of numbers."""
    if len(numbers) == 1:
        return [(min(numbers), False)]
    bound = min(others | is_open | {1_000_000})
    below = {number for number in numbers if number < bound}
    singles = sorted(numbers - below)
    coalesced = [(max(below), True)] if below else []
    return coalesced + [(number, False) for number in singles]


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("assign"), st.integers(1, 3)),
        st.tuples(st.sampled_from(["accept", "accept", "refuse"]), st.integers(0, 9)),
        st.tuples(st.just("answer"), st.just(0)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_a_client_hears_of_every_number_once(steps: list[tuple[str, int]]) -> None:
    confirms = Confirms()
    is_open: dict[int, set[int]] = {}
    unanswered = set[int]()
    decided: dict[str, set[int]] = {"ack": set(), "nack": set()}
    for verb, number in [*steps, ("answer", 0)]:
        if verb == "assign":
            first = confirms.assign(number)
            is_open[first] = set(range(first, first + number))
            unanswered |= is_open[first]
        elif verb == "answer":
            expected = []
            still_open = set[int]().union(*is_open.values())
            for answer, other in (("ack", "nack"), ("nack", "ack")):
                for tag, multiple in rule(decided[answer], decided[other], still_open):
                    expected.append(f"{answer} {tag}{'*' if multiple else ''}")
                    covered = {one for one in unanswered if one == tag or (multiple and one < tag)}
                    assert covered, "an answer that says nothing"
                    assert covered <= decided[answer]
                    unanswered -= covered
            assert sorted(answers(confirms)) == sorted(expected)
            assert unanswered == still_open
            decided = {"ack": set(), "nack": set()}
        elif is_open:
            first = sorted(is_open)[number % len(is_open)]
            (confirms.accept if verb == "accept" else confirms.refuse)(first)
            decided["ack" if verb == "accept" else "nack"] |= is_open.pop(first)
        assert confirms.open_count == sum(map(len, is_open.values()))


def test_what_is_settled_at_once_becomes_one_run() -> None:
    confirms = Confirms()
    for count in (1, 2, 3):
        confirms.assign_accepted(count)
    assert confirm_frames(1, confirms) == [ack_frame(1, 6, multiple=True)]
    confirms.assign_accepted(1)
    assert confirm_frames(1, confirms) == [ack_frame(1, 7, multiple=False)]


def test_what_is_settled_at_once_does_not_pass_what_is_open() -> None:
    confirms = Confirms()
    confirms.assign_accepted(2)
    first = confirms.assign(1)
    confirms.assign_accepted(2)
    assert confirm_frames(1, confirms) == [
        ack_frame(1, 2, multiple=True),
        ack_frame(1, 4, multiple=False),
        ack_frame(1, 5, multiple=False),
    ]
    confirms.accept(first)
    assert confirm_frames(1, confirms) == [ack_frame(1, 3, multiple=False)]
