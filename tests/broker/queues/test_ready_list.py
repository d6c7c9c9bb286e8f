"""The lane keeps the order of publishing, also for what comes back, and lets memory go."""

from dataclasses import dataclass
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.queues.journal import Journal
from fluffle.broker.queues.priority_ready_list import parted
from fluffle.broker.queues.ready_list import SEGMENT_BYTES_MAX, SEGMENT_MESSAGES_MAX, ReadyList
from fluffle.broker.queues.requeue import RequeuedBatch
from fluffle.broker.queues.segment import TakenMessages
from tests.broker.queues.queue_harness import ORIGIN, OTHER_ORIGIN, messages, numbered

BURST = 1 << 20
ALL = slice(None)


class Evicted:
    """A `Journal` of which but this is looked at: which messages it alone has."""

    def __init__(self) -> None:
        self.runs: list[tuple[int, int]] = []
        self.commits = self
        self.durable = 0

    def evicted(self, first: int, stop: int) -> None:
        self.runs.append((first, stop))


class NumberedLane(ReadyList):
    """A lane that has all the numbers to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.next_sequence = 1


def append(ready_list: NumberedLane, contents: list[bytes], *, other: bool = False) -> None:
    origins = [OTHER_ORIGIN if other else ORIGIN] * len(contents)
    ready_list.append(origins, contents, sum(map(len, contents)), ready_list.next_sequence)
    ready_list.next_sequence += len(contents)


def give_back(ready_list: ReadyList, taken: TakenMessages, part: slice = ALL) -> None:
    """Some of what was taken off comes back."""
    columns = taken.origins[part], taken.contents[part], taken.sequences[part]
    ready_list.give_back(RequeuedBatch(*columns))


def drain(ready_list: ReadyList) -> list[TakenMessages]:
    taken = []
    while ready_list.count:
        taken.append(ready_list.take(ready_list.available(BURST)))
    return taken


def drained(ready_list: ReadyList) -> list[bytes]:
    return [content for taken in drain(ready_list) for content in taken.contents]


def test_batches_come_out_as_one_run() -> None:
    ready_list = NumberedLane()
    for batch in ("a", "b", "c"):
        append(ready_list, messages(batch))
    (taken,) = drain(ready_list)
    assert (taken.origins, taken.redelivered) == ([ORIGIN] * 3, False)
    assert taken.contents == [b"a", b"b", b"c"]
    assert list(taken.sequences) == [1, 2, 3]


def test_numbers_that_went_to_another_lane_are_left_out() -> None:
    ready_list = NumberedLane()
    append(ready_list, messages("a"))
    ready_list.next_sequence += 2
    append(ready_list, messages("b", "c"))
    append(ready_list, messages("d"))
    runs = [(list(taken.sequences), taken.contents) for taken in drain(ready_list)]
    assert runs == [([1], [b"a"]), ([4, 5, 6], [b"b", b"c", b"d"])]


def test_the_callers_list_is_not_touched() -> None:
    """A fanout gives the same list to many queues."""
    ready_list, other = NumberedLane(), NumberedLane()
    batch = messages("a", "b")
    append(ready_list, batch)
    append(other, batch)
    append(ready_list, messages("c"))
    assert batch == [b"a", b"b"]
    assert drained(other) == batch
    assert drained(ready_list) == [b"a", b"b", b"c"]


def test_what_was_taken_whole_does_not_grow() -> None:
    ready_list = NumberedLane()
    append(ready_list, messages("a"))
    taken = ready_list.take(1)
    append(ready_list, messages("b"))
    assert taken.contents == [b"a"]


def test_a_run_that_came_back_goes_out_as_one_run() -> None:
    ready_list = NumberedLane()
    append(ready_list, numbered(1, 100))
    taken = ready_list.take(100)
    give_back(ready_list, taken, slice(50, None))
    give_back(ready_list, taken, slice(50))
    assert [len(run.contents) for run in drain(ready_list)] == [50, 50]


def test_clear_forgets_what_is_ready_and_what_came_back() -> None:
    ready_list = NumberedLane()
    append(ready_list, numbered(1, 5))
    taken = ready_list.take(2)
    give_back(ready_list, taken)
    assert ready_list.clear() == 5
    assert (ready_list.count, ready_list.clear()) == (0, 0)
    append(ready_list, messages("next"))
    (run,) = drain(ready_list)
    assert (run.contents, list(run.sequences)) == ([b"next"], [6])


def test_a_run_keeps_to_its_size_but_is_never_empty() -> None:
    ready_list = NumberedLane()
    append(ready_list, [b"x" * 99] * 50)
    assert ready_list.available(1000) == 10
    assert ready_list.available(1) == 1
    assert ready_list.available(1 << 30) == 50
    ready_list.take(48)
    assert ready_list.available(1000) == 2


def test_a_segment_is_not_extended_for_ever() -> None:
    """In a queue that is never empty, what was taken lives as long as its segment."""
    ready_list = NumberedLane()
    append(ready_list, [b"x"])
    for _ in range(SEGMENT_MESSAGES_MAX * 3):
        append(ready_list, [b"x"])
        ready_list.take(1)
    assert len(ready_list._ready[0].contents) <= SEGMENT_MESSAGES_MAX
    large = b"x" * (SEGMENT_BYTES_MAX // 4)
    for _ in range(20):
        append(ready_list, [large])
        ready_list.take(1)
    assert sum(map(len, ready_list._ready[0].contents)) <= SEGMENT_BYTES_MAX


@dataclass(frozen=True, order=True)
class Known:
    """A message as the naive lane keeps it: in one sorted list."""

    sequence: int
    content: bytes
    is_other: bool
    redelivered: bool


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("append"), st.integers(1, 4), st.booleans()),
        st.tuples(st.just("take"), st.integers(1, 5), st.booleans()),
        st.tuples(st.just("give back"), st.integers(0, 99), st.booleans()),
        st.tuples(st.just("clear"), st.just(0), st.integers(0, 9).map(lambda chance: not chance)),
    ),
    max_size=60,
)


@given(steps=STEPS)
def test_the_lane_equals_a_sorted_list(steps: list[tuple[str, int, bool]]) -> None:
    ready_list, naive = NumberedLane(), list[Known]()
    held: list[tuple[TakenMessages, list[Known]]] = []
    next_sequence = 1
    for verb, number, flag in steps:
        if verb == "append":
            contents = numbered(next_sequence, number)
            append(ready_list, contents, other=flag)
            for content in contents:
                naive.append(Known(next_sequence, content, flag, redelivered=False))
                next_sequence += 1
        elif verb == "take" and naive:
            count = min(number, ready_list.available(BURST))
            taken = ready_list.take(count)
            assert len(taken.contents) == len(taken.sequences) == count
            held.append((taken, naive[:count]))
            assert naive[:count] == [
                Known(sequence, content, origin is OTHER_ORIGIN, taken.redelivered)
                for sequence, content, origin in zip(
                    taken.sequences, taken.contents, taken.origins, strict=True
                )
            ]
            del naive[:count]
        elif verb == "give back" and held:
            taken, known = held.pop(number % len(held))
            cut = 1 if flag and len(known) > 1 else 0
            give_back(ready_list, taken, slice(cut, None))
            naive += [
                Known(one.sequence, one.content, one.is_other, redelivered=True)
                for one in known[cut:]
            ]
            naive.sort()
        elif verb == "clear" and flag:
            assert ready_list.clear() == len(naive)
            naive.clear()
        assert ready_list.count == len(naive)


def test_what_is_on_its_way_to_disk_is_in_the_part_of_a_journal_that_a_lane_comes_to_have() -> None:
    whole, part = Evicted(), Evicted()
    ready_list = ReadyList(cast("Journal", whole))
    for number in (1, 9):
        ready_list.append([ORIGIN], [b"m"], 1, number, ticket=1)
    ready_list.shed()
    parted(ready_list, cast("Journal", part))
    whole.durable = part.durable = 1
    ready_list.shed()
    assert (whole.runs, part.runs) == ([], [(9, 10)])
