"""Dead letters that must arrive: when they have, and when they are tried again."""

from __future__ import annotations

from fluffle.broker.queues.dead_letters import PendingDeadLetter


class Heard:
    """A parcel, and what it says."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.parcel = PendingDeadLetter(self.tell)

    def tell(self, *, is_there: bool) -> None:
        self.said.append(is_there)

    def take(self) -> list[bool]:
        said, self.said = self.said, []
        return said


def test_it_arrives_when_all_have_it() -> None:
    heard = Heard()
    parcel = heard.parcel
    assert parcel.lead(["a", "b"]) == {"a", "b"}
    parcel.finish()
    assert not parcel.known("a", is_accepted=True)
    assert (heard.take(), parcel.is_there) == ([], False)
    assert parcel.known("b", is_accepted=True)
    assert (heard.take(), parcel.is_there) == ([True], True)
    assert not parcel.known("b", is_accepted=True)
    assert not heard.take()


def test_who_has_it_is_not_given_it_again() -> None:
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["a", "b", "c"])
    parcel.known("b", is_accepted=False)
    parcel.known("c", is_accepted=False)
    assert (heard.take(), parcel.is_refused) == ([False], True)
    parcel.known("a", is_accepted=True)
    assert parcel.lead(["a", "b"]) == {"b"}, "whatever leads there no more is not waited for"
    assert (parcel.tries, parcel.is_refused) == (2, False)
    assert parcel.known("b", is_accepted=True)
    assert heard.take() == [True]


def test_who_is_about_to_say_that_it_has_it_is_not_given_it_again() -> None:
    """The other one has refused it, and there may be room there now."""
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["a", "b"])
    parcel.recorded("a")
    parcel.known("b", is_accepted=False)
    assert parcel.lead(["a", "b"]) == {"b"}
    parcel.known("b", is_accepted=True)
    assert (heard.take(), parcel.is_there) == ([False], False)
    assert parcel.known("a", is_accepted=True)
    assert heard.take() == [True]


def test_what_leads_nowhere_has_not_arrived() -> None:
    heard = Heard()
    parcel = heard.parcel
    parcel.lead([])
    parcel.finish()
    assert (heard.take(), parcel.leads_nowhere) == ([False], True)
    parcel.lead(["a"])
    parcel.finish()
    assert (heard.take(), parcel.leads_nowhere) == ([], False)


def test_what_has_arrived_somewhere_may_lead_nowhere_then() -> None:
    """RabbitMQ does so, too."""
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["a", "b"])
    parcel.known("a", is_accepted=True)
    parcel.lead([])
    parcel.finish()
    assert heard.take() == [True]


def test_a_late_answer_counts_for_the_next_try() -> None:
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["a"])
    assert parcel.lead(["a"]) == {"a"}, "nobody has said anything"
    assert parcel.known("a", is_accepted=True)
    assert heard.take() == [True]
    parcel.lead(["b"])
    assert not parcel.known("a", is_accepted=False), "which is nobody any more who is waited for"
    assert (heard.take(), parcel.is_refused) == ([], False)


def test_the_heir_of_who_has_it_is_not_given_it_again() -> None:
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["old", "b"])
    parcel.known("old", is_accepted=True)
    parcel.succeed("new", "old")
    assert parcel.lead(["new", "b"]) == {"b"}
    assert parcel.known("b", is_accepted=True)


def test_the_heir_of_who_is_about_to_say_that_it_has_it_is_not_given_it_again() -> None:
    """The former target's confirmation then counts for the last of its successors."""
    heard = Heard()
    parcel = heard.parcel
    parcel.lead(["old"])
    parcel.recorded("old")
    parcel.succeed("new", "old")
    assert parcel.lead(["new"]) == set()
    parcel.succeed("newer", "new")
    assert parcel.lead(["newer"]) == set()
    parcel.finish()
    assert (heard.take(), parcel.is_there) == ([], False)
    assert parcel.known("old", is_accepted=True)
    assert heard.take() == [True]


def test_who_has_nothing_bequeaths_nothing() -> None:
    parcel = Heard().parcel
    parcel.lead(["old"])
    parcel.succeed("new", "old")
    assert parcel.lead(["new"]) == {"new"}
