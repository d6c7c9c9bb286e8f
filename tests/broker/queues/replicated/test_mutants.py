"""The tests are tested: known mistakes are put into the image, one at a time, and must be found.

Mistakes in what happens are found by the model, those in what is refused by the table of refusals.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from struct import error as StructError  # noqa: N812  it is an exception

import pytest

from fluffle.broker.queues.counts import Counts
from fluffle.broker.queues.replicated import entries
from fluffle.broker.queues.replicated.errors import Unfit
from tests.broker.queues.replicated import test_outbox_model
from tests.broker.queues.replicated.make import busy, told
from tests.broker.queues.replicated.test_image_model import tell
from tests.broker.queues.replicated.test_leadership import (
    BROUGHT,
    PRIORITIES,
    make_small,
    whatever,
)
from tests.broker.queues.replicated.test_refusals import REFUSED
from tests.simulation.mutation import Mutant

SEEDS_MAX = 12
"""A mutant that lives through so many histories has escaped."""

HERE, BESIDE = "broker.queues.replicated", "broker.queues"


def mutants(module: str, *rows: tuple[str, str, str, str], under: str = HERE) -> list[Mutant]:
    """From what is wrong, where, the text and what is there in its place."""
    where = f"{under}.{module}"
    return [Mutant(what, what, f"{where}:{path}", old, new) for what, path, old, new in rows]


WRONG = [
    *mutants(
        "applying",
        ("each run is dealt from the first holder on", "on_handed_out", "+= len(piece)", "+= 0"),
        ("a hand-over is an ack", "on_handed_over", "HANDED_OVER", "ACKED"),
        ("a return does not raise the ordinal", "on_returned", "ordinal + 1", "ordinal"),
        ("a return forgets failures", "on_returned", "fact.delivery_count)", "0)"),
        ("a return is not delayed", "on_returned", "if fact.ready_at_ms:", "if False:"),
        (
            "who returned the last stays",
            "on_returned",
            "    state.release(fact.holder)",
            "    pass",
        ),
        ("who settled the last stays", "on_settled", "    state.release(fact.holder)", "    pass"),
        ("what matures is new", "on_matured", "delayed.counts", "Counts(0, 0)"),
        ("a drop leaves the message", "on_dropped", "state.bury(run, fact.reason)", "pass"),
        ("the dead have no counts", "on_dead_lettering", ", counts))", ", Counts(0, 0)))"),
        (
            "a dead letter lives",
            "on_dead_lettered",
            "state.bury(run, Reason.DEAD_LETTERED)",
            "pass",
        ),
        ("a purge is a death", "on_purged", "PURGED", "MAXLEN"),
        ("refusals are forgotten", "on_refused", "session.refused.plus(", "Ranges().plus("),
        ("refusals are kept", "on_acknowledged", "fact.below, session.next", "1, session.next"),
        (
            "one refusal too many goes",
            "on_acknowledged",
            "within(fact.below",
            "within(fact.below + 1",
        ),
        ("answers are kept", "on_acknowledged", "number < fact.below", "number < 0"),
        ("an answer is another", "on_answered", "= fact.answer", "= fact.number"),
        ("time stands still", "apply", "state.queue_time_ms = batch.stamp_ms", "pass"),
        ("counts are not carried", "on_enqueued", "+ stop, counts", "+ stop, Counts(0, 0)"),
        ("the specification is old", "on_spec_changed", "= fact.revision, fact.spec", "= 1, b''"),
    ),
    *mutants(
        "state",
        ("carried counts stay", "State._take_both", "self.carried.take(part)", "pass"),
        ("carried counts run on", "State._carried_of", "yield run[:count]", "yield run"),
        ("all are ready that have carried", "State._take_both", "self.returned.found(run)", "()"),
        ("who holds messages goes", "State.release", " and not holder.held", ""),
        ("a key is used twice", "State.take_key", "self.next_key += 1", "pass"),
        (
            "an operation too many",
            "Session.advance",
            "self.next += count",
            "self.next += count + 1",
        ),
    ),
    *mutants(
        "runs",
        ("all runs begin with the first", "dealt", "(place - dealt_before) % count", "place"),
        (
            "the order is that of numbers",
            "Marked.__iter__",
            "sorted(self._pieces, key=_order)",
            "self._pieces",
        ),
        (
            "what is left goes to the end",
            "Marked._cut",
            "mark, order))",
            "mark, self._next_order))",
        ),
        ("too much is found within", "Marked.within", "[start:end]", "[start:]"),
        ("a step is taken for one", "_shared", "run.step != held.step", "False"),
    ),
    *mutants(
        "entries",
        ("another entry dies", "Entries.bury", '["indexes"][at])', '["firsts"][at])'),
        ("size stays", "Entries.bury", "self.content_bytes -=", "_size ="),
        ("columns stay", "Entries.bury", 'self.each.pop(rows["firsts"][at], None)', "pass"),
        ("taken bits stay", "Entries._take_bits", "now ^ bits", "now"),
        ("those held are swept out", "Entries.live_rows", '["live"]', '["ready"]'),
        ("runs end too soon", "Entries.ready_of", "entry.first + end)", "entry.first + end - 1)"),
    ),
    *mutants(
        "snapshot",
        ("answers are not in a snapshot", "_dump_session", "sorted(session.answers.items())", "()"),
        (
            "who is detached is back",
            "_load_holder",
            "Holder(fact, is_detached,",
            "Holder(fact, False,",
        ),
        ("the dead are rejected", "_load", "Pending(Reason(mark[0])", "Pending(Reason(4)"),
        ("the active consumer is forgotten", "_load_head", "sac_active=sac_active", "sac_active=0"),
        ("carried counts are forgotten", "_load", "stop, Counts(*counts)", "stop, Counts(0, 0)"),
    ),
    *mutants(
        "image",
        ("what is held is not live", "Image.live_of", ", *held]", "]"),
    ),
    *mutants(
        "encoding",
        ("the live are left out", "slim", "keep = [sequence in", "keep = [sequence not in"),
        ("others are said to be left", "slim", "kept = [sequence for", "kept = [sequence + 1 for"),
    ),
    *mutants(
        "messages",
        (
            "priorities are one for all",
            "columns_of",
            "priorities[0]) < len(",
            "priorities[0]) < -len(",
        ),
        (
            "expiries are one for all",
            "columns_of",
            "expiries_ms[0]) < len(",
            "expiries_ms[0]) < -len(",
        ),
    ),
]

TOO_KIND = [
    *mutants(
        "state",
        ("operations come again", "Session.advance", "first != self.next", "first > self.next"),
        ("operations are missing", "Session.advance", "first != self.next", "first < self.next"),
        ("no operation at all", "Session.advance", "0 < count", "-1 < count"),
        ("any key", "State.take_key", "key != self.next_key", "False"),
        ("the key of another", "State.take_key", "key != self.next_key", "key < self.next_key"),
        ("any ordinal", "check_ordinal", "counts.acquired != ordinal", "False"),
        (
            "older ordinals",
            "check_ordinal",
            "counts.acquired != ordinal",
            "counts.acquired < ordinal",
        ),
    ),
    *mutants(
        "applying",
        ("a session with consumers is closed", "on_session_closed", "any(", "all("),
        ("a session is opened twice", "on_session_opened", "session.id == fact.id", "False"),
        ("the future is known", "on_acknowledged", "fact.below > session.next", "False"),
        ("any delivery count", "on_returned", "not in (0, 1)", "< 0"),
        ("held messages expire", "_die", "(fact.reason is Reason.REJECTED) != ", "False and "),
        ("any death", "_die", "fact.reason not in DEATHS", "False"),
        ("hands do not matter", "_served", "attached.no_ack == may_hold", "False"),
        ("the same specification", "on_spec_changed", "<=", "<"),
        ("versions fall", "on_version_announced", "fact.version < ", "False and "),
        ("a getter is active", "on_sac_active", " is not ConsumerAttached", " is None"),
    ),
    *mutants(
        "entries",
        ("handed out again", "Entries.take", "wanted > there", "False"),
        ("bits are not looked at", "Entries._take_bits", "bits & ~now", "False"),
    ),
]


LEADING = [
    *mutants(
        "gate",
        ("effects leave at once", "Gate.keep", "self._waiting", "self._known"),
        ("repeats do not wait for the draft", "Gate.keep_known", "if self._draft:", "if False:"),
        ("repeats do not wait at all", "Gate.keep_known", "elif self._under_way:", "elif False:"),
    ),
    *mutants(
        "numbering",
        ("what was done is done again", "Numbering.known", "min(expected - first, count)", "0"),
        ("an operation too many", "Numbering.advance", "1 if isinstance", "2 if isinstance"),
    ),
    *mutants(
        "holders",
        ("who is detached is forgotten", "Holders.release", " and not held.handouts", ""),
        (
            "getters get what others hold",
            "Holders.detach",
            "del self._getters",
            "_ = self._getters",
        ),
    ),
    *mutants(
        "contents",
        (
            "all of an entry is ready",
            "Contents._ready_of",
            "self.state.entries.ready_of(entry)",
            "[range(entry.first, entry.first + entry.count)]",
        ),
        (
            "the next content",
            "Reading.fetch",
            "= found[sequence]",
            "= found[wanted[-1]]",
        ),
        (
            "nothing has come back",
            "Contents.recover",
            "recovery.returned.append(",
            "_ = (",
        ),
    ),
    *mutants(
        "dealing",
        (
            "shares are swapped",
            "facts_of",
            "for handout in together]",
            "for handout in together[::-1]]",
        ),
    ),
    *mutants(
        "draft",
        ("all is one run", "_joined", "run.start == last[-1] + step and", ""),
        ("any holder's", "_is_continued", "last.holder, last.ordinal", "fact.holder, last.ordinal"),
        ("any session's", "_is_continued", "last.session != fact.session or ", ""),
    ),
    *mutants(
        "ending",
        (
            "failures do not count",
            "Ending._come_back",
            "is_failure = outcome in FAILED",
            "is_failure = False",
        ),
        (
            "all returns count",
            "Ending._come_back",
            "is_failure = outcome in FAILED",
            "is_failure = True",
        ),
        (
            "one failure too few",
            "Ending._come_back",
            "counts.failed > limit",
            "counts.failed >= limit",
        ),
        (
            "one failure too many",
            "Ending._come_back",
            "counts.failed > limit",
            "counts.failed > limit + 1",
        ),
        (
            "who has failed too often waits",
            "Ending._come_back",
            "return Outcome.REJECTED",
            "return outcome",
        ),
        (
            "what is dropped is another",
            "Ending.drop",
            "taken.counts, run,",
            "taken.counts, run[:1],",
        ),
        ("who is to wait does not", "Ending._come_back", "return Outcome.ACKED", "return outcome"),
        ("the dead are dropped", "Ending._bury", "not self._is_kept()", "True"),
        (
            "the dead are handed on at once",
            "Ending._bury",
            "self._gate.keep(partial(_alone",
            "self._gate._known.append(partial(_alone",
        ),
        (
            "dead twice",
            "Ending._bury",
            "partial(_alone, dead)",
            "lambda: [dead] * 2",
        ),
        ("the dead of others are left", "Ending.take_up", "self._gate.keep_known(", "_ = ("),
        (
            "another dies",
            "Ending.hand_on",
            "fetch(dead.run)",
            "fetch([1] * len(dead.run))",
        ),
        ("the dead stay", "Ending.hand_on", "self._draft.say(DeadLettered([dead.run]))", "pass"),
    ),
    *mutants(
        "publishing",
        (
            "what does not fit is taken",
            "Publishing._put",
            "parts_of(fate, ",
            "parts_of(Admission.ACCEPTED, ",
        ),
        ("refusals are forgotten", "Publishing._refuse", "self.gate.keep(", "_ = ("),
    ),
    *mutants(
        "leadership",
        (
            "what is held is not taken up",
            "Leadership._take_up",
            "held.add(handout)",
            "pass",
        ),
        ("who is detached is served", "Leadership._attach_all", " and not row.is_detached", ""),
        (
            "nobody says who is active",
            "Leadership._on_activity",
            "self._draft.name_active(",
            "_ = (",
        ),
        (
            "a successor chooses anew who is active",
            "Leadership._attach_all",
            "key != state.sac_active",
            "False",
        ),
        ("what is lost stays", "Leadership._detach", "if outcome is not None:", "if False:"),
        (
            "returned messages go by age",
            "Leadership.__init__",
            "returned=InOrder(self._contents.fetch)",
            "returned=None",
        ),
        ("memory is free too soon", "Leadership._end_entry", "ticket += 1", "ticket += 0"),
    ),
]


CARRYING = [
    *mutants(
        "draft",
        ("nothing is written down", "Draft.add_messages", "counts is not NEW:", "False:"),
        ("all are put in front", "Draft.add_messages", "put(before,", "put(0,"),
    ),
    *mutants(
        "publishing",
        ("nothing comes", "Publishing.publish", "coming = counts", "coming"),
        ("all brings as much", "Publishing.publish", "coming = NEW", "coming"),
    ),
    *mutants(
        "contents",
        ("a leader forgets it", "Contents.__init__", "state.carried.runs", ""),
    ),
    *mutants(
        "lane",
        ("it stays", "Lane.take", "self.carried.take(", "id("),
        ("more are taken than are alike", "Lane.take", "stop, counts = alike", "_, counts = alike"),
        ("they are called new", "Lane.take", " or counts is not NEW", ""),
        ("a purge leaves it", "Lane.clear", "self.carried.clear()", "pass"),
        ("what is unread was new", "Lane.expire", "not (self.carried is not None and", "(True or"),
        under=BESIDE,
    ),
    *mutants(
        "carried",
        ("what is behind goes, too", "Carried._cut", "if back.stop > stop:", "if False:"),
        ("what is in front goes, too", "Carried._cut", "if front.first < first", "if False"),
        ("the next run is alike", "Carried.alike", "min(stop, run.stop)", "stop"),
        ("what is new goes on", "Carried.alike", "min(stop, self._starts[at + 1])", "stop"),
        ("others are of the run", "Carried.put", " and last.counts == counts", ""),
        ("what lies between is of it", "Carried.put", ".stop == first and last", ""),
        under=BESIDE,
    ),
]


@pytest.mark.parametrize("mutant", CARRYING, ids=lambda mutant: mutant.name)
def test_what_messages_bring_along_is_told(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(disappoints(seed, BROUGHT) for seed in range(SEEDS_MAX * 6)), mutant.mistake


SENDING = mutants(
    "outbox",
    ("what was refused has arrived", "Outbox._told", "if is_there:", "if True:"),
    ("what has arrived stays", "Outbox._told", "self._draft.say(", "_ = ("),
    ("what was refused is forgotten", "Outbox._send_again", "way.due_ms <= now_ms", "False"),
    ("one of many is left out", "Outbox._begin", "dead.run[count:]", "dead.run[count + 1 :]"),
    ("those of others are left out", "Outbox.take", "self.waiting.append(dead)", "pass"),
)


@pytest.mark.parametrize("mutant", SENDING, ids=lambda mutant: mutant.name)
def test_what_must_arrive_does_not(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    monkeypatch.setattr(test_outbox_model, "LOOKS_MAX", 50)
    monkeypatch.setattr("fluffle.broker.queues.replicated.outbox.UNDER_WAY_MAX", 4)
    with mutant.in_place():
        assert any(strays(seed) for seed in range(SEEDS_MAX * 10)), mutant.mistake


def strays(seed: int) -> bool:
    try:
        test_outbox_model.whatever(seed, steps=200)
    except (AssertionError, ValueError, LookupError):
        return True
    return False


@pytest.mark.parametrize("mutant", LEADING, ids=lambda mutant: mutant.name)
def test_edges_find_what_is_wrong(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    make_small(monkeypatch)
    with mutant.in_place():
        assert any(disappoints(seed) for seed in range(SEEDS_MAX * 20)), mutant.mistake


def disappoints(seed: int, brought: Sequence[Counts] = ()) -> bool:
    try:
        whatever(seed, 250, PRIORITIES if brought and seed % 2 else (), brought)
    except (AssertionError, ValueError, LookupError, AttributeError, StructError):
        return True
    return False


@pytest.mark.parametrize("mutant", WRONG, ids=lambda mutant: mutant.name)
def test_the_model_finds_what_is_wrong(mutant: Mutant, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entries, "COMPACT_ENTRIES", 2)
    with mutant.in_place():
        assert any(fails(seed) for seed in range(SEEDS_MAX)), mutant.mistake


def fails(seed: int) -> bool:
    try:
        tell(Random(seed), count=50)
    except (AssertionError, Unfit, LookupError):
        return True
    return False


@pytest.mark.parametrize("mutant", TOO_KIND, ids=lambda mutant: mutant.name)
def test_the_table_of_refusals_finds_what_is_too_kind(mutant: Mutant) -> None:
    with mutant.in_place():
        assert not all(map(is_refused, range(len(REFUSED)))), mutant.mistake


def is_refused(number: int) -> bool:
    fact, why = REFUSED[number]
    try:
        told(busy(), fact)
    except Unfit as error:
        return any(part in str(error) for part in why.split("|"))
    return False
