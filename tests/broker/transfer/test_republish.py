"""Letters: their keys, and those that must arrive, on their way while queues become others."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from fluffle.broker.base.message import MessageAnnotations, Origin
from fluffle.broker.durability.local_queues import LocalQueues
from fluffle.broker.queues.dead_letters import PendingDeadLetter
from fluffle.broker.queues.settings import QueueSettings
from fluffle.broker.transfer.republish import DeathHeaders, DelayedMessages, RepublishedMessage
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.headers import DeathReason
from fluffle.protocol.properties import Properties, encode_properties
from tests.support.queue_host import FakeTurn


def queue(identity: int) -> Any:
    return SimpleNamespace(definition=SimpleNamespace(id=identity))


FIRST, SECOND, THIRD, OTHER = 1, 2, 3, 9


class Sent:
    """A letter whose way led to the first queue and to another one, and its parcel."""

    def __init__(self) -> None:
        self.said: list[bool] = []
        self.parcel = PendingDeadLetter(lambda *, is_there: self.said.append(is_there))
        self.predecessors: dict[object, object] = {}
        assert self.to(FIRST) == [FIRST, OTHER]

    def to(self, place: int) -> list[int]:
        """Places of the queues that get the message when it is tried, with this queue in the place
        of the first one."""
        targets = queue(place), queue(OTHER)
        letter = RepublishedMessage(cast(Origin, None), b"", targets, True, (), (), ())
        sent = letter.sent_as(self.parcel, self.predecessors)
        return [target.definition.id for target in sent.targets]


def test_the_heir_of_an_heir_is_not_given_what_the_first_has() -> None:
    """Nothing was tried while the one between had the name."""
    sent = Sent()
    sent.parcel.known(FIRST, is_accepted=True)
    sent.predecessors |= {SECOND: FIRST, THIRD: SECOND}
    assert sent.to(THIRD) == [OTHER]
    sent.parcel.known(OTHER, is_accepted=True)
    assert (sent.parcel.is_there, sent.said) == (True, [True])


def test_what_the_first_says_late_is_true_of_the_heir_of_its_heir() -> None:
    sent = Sent()
    sent.parcel.recorded(FIRST)
    sent.predecessors |= {SECOND: FIRST, THIRD: SECOND}
    assert sent.to(THIRD) == [OTHER]
    sent.parcel.known(OTHER, is_accepted=True)
    assert not sent.parcel.is_there
    sent.parcel.known(FIRST, is_accepted=True)
    assert sent.parcel.is_there


def test_the_heir_of_an_heir_is_given_what_none_of_them_has() -> None:
    sent = Sent()
    sent.parcel.known(OTHER, is_accepted=True)
    sent.predecessors |= {SECOND: FIRST, THIRD: SECOND}
    assert sent.to(THIRD) == [THIRD]


def test_the_heir_of_an_heir_is_not_given_what_the_one_between_has() -> None:
    sent = Sent()
    sent.predecessors |= {SECOND: FIRST}
    assert sent.to(SECOND) == [SECOND, OTHER]
    sent.parcel.known(SECOND, is_accepted=True)
    sent.predecessors |= {THIRD: SECOND}
    assert sent.to(THIRD) == [OTHER]


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("k" * 255, "k" * 255),
        ("k" * 256, "k" * 255),
        ("é" * 200, "é" * 127),
        ("k" + "€" * 90, "k" + "€" * 84),
        ("\udcff" * 256, "\udcff" * 255),
    ],
)
def test_a_key_that_no_frame_holds_is_cut(key: str, shown: str) -> None:
    """An argument or a policy may be longer; a message with it could be given to nobody."""
    settings = QueueSettings(dead_letter_exchange="amq.fanout", dead_letter_routing_key=key)
    vhost = VirtualHost("/", LocalQueues(FakeTurn()))
    writer = DeathHeaders(vhost, "q", settings, DeathReason.REJECTED, 7)
    letter = writer.write(Origin("", "q"), encode_properties(Properties()))
    assert letter.origin.routing_key == shown


@pytest.mark.parametrize(
    ("own_key", "past"),
    [
        (None, MessageAnnotations.NONE),
        (None, MessageAnnotations.DIED),
        ("elsewhere", MessageAnnotations.NONE),
        (None, MessageAnnotations.REDIRECTED),
    ],
)
def test_annotations_stay_also_where_the_queue_redirects_the_message(
    own_key: str | None, past: MessageAnnotations
) -> None:
    settings = QueueSettings(dead_letter_exchange="amq.topic", dead_letter_routing_key=own_key)
    vhost = VirtualHost("/", LocalQueues(FakeTurn()))
    writer = DeathHeaders(vhost, "q", settings, DeathReason.REJECTED, 7)
    origin = Origin("amq.topic", "a.b", past, ("blind",), b"topic")
    raw = encode_properties(Properties())
    if past is not MessageAnnotations.NONE:
        raw = writer.write(Origin("", "q"), raw).raw
    letter = writer.write(origin, raw)
    assert (letter.origin.annotations, letter.origin.blind_keys) == (b"topic", ("blind",))


def test_annotations_stay_while_a_message_waits_for_its_time() -> None:
    vhost = VirtualHost("/", LocalQueues(FakeTurn()))
    origin = Origin("amq.topic", "a.b", annotations=b"topic")
    letter = DelayedMessages(vhost, "amq.topic").write(origin, encode_properties(Properties()))
    assert letter.origin.annotations == b"topic"
