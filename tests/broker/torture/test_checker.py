"""The checker finds nothing in an honest broker's history, and every lie in a liar's."""

from random import Random

import pytest

from fluffle.broker.torture.checker import Breach, Checker, Findings
from fluffle.broker.torture.history import (
    Acked,
    Asked,
    Clearing,
    ClearingAsked,
    ClearingDone,
    Complained,
    Confirmed,
    Connected,
    Declared,
    Ended,
    Event,
    Homed,
    Isolated,
    Joined,
    Joining,
    MessageId,
    Published,
    PutBack,
    Received,
    Refused,
    Returned,
    RunEnded,
    TurnedAway,
    Vouched,
)
from fluffle.broker.torture.online_checker import OnlineChecker
from tests.broker.torture.faulty_broker import STEADY, TRANSIENT, BrokerFault, FaultyBroker
from tests.suite.seeds import seeds

SEEDS = range(8)
STEPS = 2_000
HEARD_OF = {
    BrokerFault.LOSE_IN_A_CRASH: "is lost",
    BrokerFault.CONFIRM_EARLY: "is lost",
    BrokerFault.CONFIRM_ALONE: "which was alone",
    BrokerFault.FORGET_ACKS: "that was vouched for; it is back",
    BrokerFault.HIDE_REDELIVERY: "says that it is new",
    BrokerFault.COUNT_BACKWARDS: "times in vain",
    BrokerFault.INVENT: "was never published",
    BrokerFault.SWAP: "came after number",
    BrokerFault.SWAP_STEADY: "came after number",
    BrokerFault.HAND_OUT_TWICE: "is in the hands of",
    BrokerFault.DELIVER_ACKED: "is in the hands of",
    BrokerFault.KEEP_PURGED: "was cleared away and came back",
    BrokerFault.KEEP_DELETED: "was cleared away and came back",
    BrokerFault.LOSE_QUEUE: "is not there",
    BrokerFault.KEEP_TRANSIENT_QUEUE: "is there",
    BrokerFault.KEEP_TRANSIENT_MESSAGE: "is transient and came back",
    BrokerFault.SWALLOW: "without a return",
    BrokerFault.RETURN_ROUTABLE: "came back as unroutable",
    BrokerFault.ROUTE_BY_THE_PAST: "is lost",
    BrokerFault.CONFIRM_FOR_THE_FORMER: "is lost",
    BrokerFault.RETURN_FOR_THE_FORMER: "came back as unroutable",
    BrokerFault.LOOK_INTO_THE_PAST: "against what was answered before",
    BrokerFault.DELETE_NOTHING: "against what was answered before",
    BrokerFault.DECLARE_NOTHING: "against what was answered before",
    BrokerFault.KEEP_LOCK: "its connection ended long ago",
}


def checker(history: list[Event]) -> Findings:
    checker = OnlineChecker(transient=[TRANSIENT], steady=[STEADY])
    checker.read(history)
    return checker.finish()


@seeds(SEEDS)
def test_an_honest_broker_is_believed(seed: int) -> None:
    report = checker(FaultyBroker(Random(seed)).live(STEPS))
    assert [*report.sentences()] == []
    assert report.received > 0
    assert report.confirmed > 0


def test_honest_histories_have_all_that_is_allowed() -> None:
    reports = [checker(FaultyBroker(Random(seed)).live(STEPS)) for seed in SEEDS]
    assert all(report.duplicated for report in reports)
    assert any(report.recovered for report in reports)


@pytest.mark.parametrize("lie", BrokerFault)
def test_a_liar_is_found_out(lie: BrokerFault) -> None:
    found = 0
    for seed in SEEDS:
        broker = FaultyBroker(Random(seed), lie)
        report = checker(broker.live(STEPS))
        words = [*report.sentences()]
        assert broker.lies or not words, f"seed {seed}"
        found += any(HEARD_OF[lie] in line for line in words)
    assert found > len(SEEDS) // 3


# The rule of acknowledgements, by hand

FIRST, SECOND = MessageId("p", 1), MessageId("p", 2)
PUBLISHED: list[Event] = [Published(FIRST, ("q",)), Confirmed(FIRST)]
RECEIVED = Received("a", "q", FIRST, redelivered=False)
AGAIN = Received("b", "q", FIRST, redelivered=True)
ACKED = Acked("a", "q", FIRST)


def answered(channel: str) -> list[Event]:
    return [Asked(channel), Vouched(channel)]


def test_before_a_reply_an_acknowledged_message_may_come_back() -> None:
    assert checker([*PUBLISHED, RECEIVED, ACKED, RunEnded(), AGAIN]).is_clean


def test_after_a_reply_it_may_not() -> None:
    history = [*PUBLISHED, RECEIVED, ACKED, *answered("a"), RunEnded(), AGAIN]
    assert checker(history).breaches == {Breach.BACK: 1}


def test_a_reply_on_another_channel_says_nothing() -> None:
    history = [*PUBLISHED, RECEIVED, ACKED, *answered("b"), RunEnded(), AGAIN]
    assert checker(history).is_clean


def test_a_message_that_is_acknowledged_after_the_question_may_come_back() -> None:
    history = [*PUBLISHED, RECEIVED, Asked("a"), ACKED, Vouched("a"), RunEnded(), AGAIN]
    assert checker(history).is_clean


def test_a_message_may_come_back_when_the_channel_has_ended() -> None:
    history = [*PUBLISHED, RECEIVED, ACKED, Ended("a", "reset"), *answered("b"), AGAIN]
    assert checker(history).is_clean


def test_what_is_over_is_forgotten_and_may_still_not_come_back() -> None:
    report = Findings()
    checker = Checker(report, settled_max=0)
    checker.read([*PUBLISHED, RECEIVED, ACKED, *answered("a"), AGAIN])
    assert report.is_clean, "it may have been sent before"
    checker.read([*answered("b"), AGAIN])
    assert report.breaches == {Breach.BACK: 1}
    assert report.duplicated == 2


def test_what_comes_again_before_it_is_over_is_over_once() -> None:
    report = Findings()
    checker = Checker(report, settled_max=1)
    checker.read([*PUBLISHED, RECEIVED, ACKED, *answered("a"), AGAIN])
    checker.read([Acked("b", "q", FIRST), *answered("b")])
    second = Received("a", "q", SECOND, redelivered=False)
    checker.read([Published(SECOND, ("q",)), Confirmed(SECOND)])
    checker.read([second, Acked("a", "q", SECOND), *answered("a")])
    assert report.is_clean
    assert (report.received, report.duplicated) == (2, 1)


# What is read late


def test_who_reads_late_what_was_sent_first_has_not_been_lied_to() -> None:
    late = RECEIVED
    history = [*PUBLISHED, *answered("a"), *answered("b"), AGAIN, Acked("b", "q", FIRST)]
    assert checker([*history, *answered("b"), late]).is_clean
    assert checker([*history, *answered("b"), *answered("a"), late]).breaches[Breach.LIED] == 1


def test_a_message_is_in_two_hands_only_if_both_are_still_there() -> None:
    both = [*PUBLISHED, RECEIVED, AGAIN]
    assert checker([*both, *answered("a"), Ended("b", "reset")]).is_clean
    assert checker([*both, *answered("b"), Ended("a", "reset")]).is_clean
    assert checker([*both, *answered("b"), *answered("a")]).breaches == {Breach.SHARED: 1}


def test_an_answer_to_an_earlier_question_does_not_show_that_a_channel_is_still_there() -> None:
    history = [*PUBLISHED, RECEIVED, Asked("a"), AGAIN, Vouched("a"), *answered("b")]
    assert checker(history).is_clean


# What may have been cleared


@pytest.mark.parametrize("how", Clearing)
def test_what_is_published_during_a_clearing_may_go_or_stay(how: Clearing) -> None:
    asked, done = ClearingAsked("q", how), ClearingDone("q", how)
    assert checker([asked, *PUBLISHED, done]).is_clean
    assert checker([asked, *PUBLISHED, done, RECEIVED]).is_clean
    assert checker([asked, *PUBLISHED, RunEnded()]).is_clean


@pytest.mark.parametrize("how", Clearing)
def test_what_is_published_after_it_stays(how: Clearing) -> None:
    asked, done = ClearingAsked("q", how), ClearingDone("q", how)
    assert checker([asked, done, Declared("q"), *PUBLISHED]).breaches == {Breach.LOST: 1}
    assert checker([asked, RunEnded(), *PUBLISHED]).breaches == {Breach.LOST: 1}


DELETE_ASKED = ClearingAsked("q", Clearing.DELETE)
DELETED: list[Event] = [DELETE_ASKED, ClearingDone("q", Clearing.DELETE)]


def test_what_is_published_to_a_queue_before_it_is_declared_anew_may_go() -> None:
    """With the former one, or nowhere, which it may say; or it may come to the new one."""
    published, confirmed = PUBLISHED
    declared = Declared("q")
    for history in (
        [published, *DELETED, declared, confirmed],
        [DELETE_ASKED, published, DELETED[1], declared, confirmed],
        [*DELETED, published, declared, confirmed],
    ):
        assert checker(history).is_clean
        assert checker([*history, RECEIVED]).is_clean
        assert checker([*history[:-1], Returned(FIRST), confirmed]).is_clean


def test_what_is_published_to_a_queue_that_was_declared_anew_is_in_it() -> None:
    """Through whichever node: one may know the former queue still."""
    anew = [*DELETED, Declared("q")]
    assert checker([*anew, *PUBLISHED, RECEIVED]).is_clean
    assert checker([*anew, *PUBLISHED]).breaches == {Breach.LOST: 1}
    returned = checker([*anew, PUBLISHED[0], Returned(FIRST), PUBLISHED[1], RECEIVED])
    assert returned.breaches == {Breach.STALE: 1}


def test_what_was_confirmed_goes_with_its_queue() -> None:
    history = [*PUBLISHED, *DELETED, Declared("q")]
    assert checker(history).is_clean
    assert checker([*history, *answered("a"), RECEIVED]).breaches == {Breach.UNEXPECTED: 1}


def test_a_purge_leaves_what_is_in_hands() -> None:
    asked, done = ClearingAsked("q", Clearing.PURGE), ClearingDone("q", Clearing.PURGE)
    assert checker([*PUBLISHED, RECEIVED, asked, done, RunEnded(), AGAIN]).is_clean


def test_a_transient_message_need_not_survive() -> None:
    published = Published(SECOND, ("q",), persistent=False)
    assert checker([published, Confirmed(SECOND), RunEnded()]).is_clean


def test_a_leaky_queue_may_lose_and_may_not_lie() -> None:
    checker = OnlineChecker(leaky=["q"])
    checker.read(PUBLISHED)
    assert checker.finish().is_clean
    checker.read([RECEIVED, ACKED, RunEnded(), AGAIN._replace(redelivered=False)])
    assert checker.report.breaches == {Breach.LIED: 1}


# What a node says that is alone

ALONE: list[Event] = [Connected("p", "a"), Isolated("a"), *PUBLISHED, RECEIVED]


def test_a_node_that_is_alone_confirms_only_what_lives_on_one_node() -> None:
    assert checker(ALONE).breaches == {Breach.UNEXPECTED: 1}
    assert checker([Homed("q"), *ALONE]).is_clean
    assert checker([Homed("another"), *ALONE]).breaches == {Breach.UNEXPECTED: 1}


# A node whose disk was put back


PUT_BACK: list[Event] = [Connected("p", "b"), PutBack("a")]
SERVED: list[Event] = [Connected("p", "a"), *PUBLISHED, RECEIVED]


def test_a_node_with_an_old_disk_serves_nobody_before_it_was_turned_away() -> None:
    assert checker([*PUT_BACK, TurnedAway("a"), *SERVED]).is_clean
    assert checker([*PUT_BACK, *PUBLISHED, RECEIVED, TurnedAway("a")]).is_clean
    assert checker([SERVED[0], PutBack("a"), *SERVED[1:], TurnedAway("a")]).is_clean
    assert checker(PUT_BACK).breaches == {Breach.LET_IN: 1}
    report = checker([*PUT_BACK, *SERVED, TurnedAway("a")])
    assert report.breaches == {Breach.LET_IN: 1}
    assert not report.is_good


# A node that is to join


def test_a_node_that_is_to_join_becomes_one_of_the_cluster() -> None:
    assert checker([Joining("d"), Joined("d")]).is_clean
    report = checker([Joining("d"), Joined("d"), Joining("e"), Joining("d")])
    assert report.breaches == {Breach.APART: 2}
    assert not report.is_good
    assert "d has not joined the cluster that it is to join" in [*report.sentences()]


# What need not be delivered, and is counted


def test_a_refused_message_is_owed_to_nobody() -> None:
    refused: list[Event] = [Published(FIRST, ("q",)), Refused(FIRST)]
    assert checker(refused).is_clean
    report = checker([*refused, RECEIVED])
    assert (report.refused, report.refused_received, report.recovered) == (1, 1, 0)


def test_what_was_never_confirmed_and_came_is_recovered() -> None:
    report = checker([Published(FIRST, ("q",)), RECEIVED])
    assert (report.recovered, report.is_clean) == (1, True)


def sums_up(report: Findings, copies: int) -> bool:
    """True if it is said of each message what has become of it; `copies`: of all confirmed ones."""
    numbers = report.numbers()
    answered = numbers["confirmed"] + numbers["refused"] + numbers["unanswered"]
    came = copies + numbers["recovered"] + numbers["refused received"]
    went = sum(numbers[name] for name in ("received", "returned", "not owed", "lost"))
    return numbers["attempted"] == answered and came == went


@seeds(SEEDS)
def test_the_numbers_add_up(seed: int) -> None:
    for lie in (None, BrokerFault.LOSE_IN_A_CRASH):
        history = FaultyBroker(Random(seed), lie).live(STEPS)
        queues = {event.message: event.queues for event in history if isinstance(event, Published)}
        confirmed = [event.message for event in history if isinstance(event, Confirmed)]
        copies = sum(len(queues[message]) or 1 for message in confirmed)
        report = checker(history)
        assert sums_up(report, copies)
        assert report.returned
        assert report.not_owed


def test_what_goes_nowhere_is_returned() -> None:
    report = checker(
        [Published(FIRST, ()), Returned(FIRST), Confirmed(FIRST), Published(SECOND, ())]
    )
    assert (report.returned, report.unanswered, report.received) == (1, 1, 0)
    assert sums_up(report, copies=1)


def test_an_error_of_the_brokers_own_is_no_answer() -> None:
    said = "INTERNAL_ERROR - the broker failed, see its log"
    assert checker([Complained("a", said)]).breaches == {Breach.UNEXPECTED: 1}


def test_complaints_are_counted_by_their_words() -> None:
    report = checker([Complained("a", "541"), Complained("b", "541")])
    assert report.complaints == {"541": 2}
