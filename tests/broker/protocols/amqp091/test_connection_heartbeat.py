"""When a heartbeat leaves, and when a silent peer is given up."""

from pamqp import frame, heartbeat

from fluffle.broker.protocols.amqp091.connection import HEARTBEAT_FRAME, Heartbeat, HeartbeatAction

NOTHING, SEND, GIVE_UP = HeartbeatAction.NOTHING, HeartbeatAction.SEND, HeartbeatAction.GIVE_UP


def beats(beating: Heartbeat, *heard: bool, listening: bool = True) -> list[HeartbeatAction]:
    """The verdict of each half interval, in which the peer was heard or not."""
    verdicts = []
    for was_heard in heard:
        beating.heard = beating.heard or was_heard
        verdicts.append(beating.beat(listening=listening))
    return verdicts


def test_a_heartbeat_leaves_unless_something_else_did() -> None:
    beating = Heartbeat()
    assert beats(beating, True) == [SEND]
    beating.spoke = True
    assert beats(beating, True, True) == [NOTHING, SEND]


def test_two_silent_intervals_are_too_many() -> None:
    assert beats(Heartbeat(), False, False, False, False) == [SEND, SEND, SEND, GIVE_UP]


def test_one_sign_of_life_an_interval_is_enough() -> None:
    assert GIVE_UP not in beats(Heartbeat(), *[True, False, False, True] * 10)


def test_an_interval_of_silence_is_forgiven() -> None:
    beating = Heartbeat()
    assert GIVE_UP not in beats(beating, False, False, True, False, False, False)
    assert beats(beating, False, False) == [SEND, GIVE_UP]


def test_silence_does_not_count_while_nobody_listens() -> None:
    beating = Heartbeat()
    assert GIVE_UP not in beats(beating, *[False] * 20, listening=False)
    assert beats(beating, *[False] * 4) == [SEND, SEND, SEND, GIVE_UP]


def test_the_frame_is_that_of_pamqp() -> None:
    assert frame.marshal(heartbeat.Heartbeat(), 0) == HEARTBEAT_FRAME
