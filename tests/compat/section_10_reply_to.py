"""Section 10: direct reply-to."""

from fluffle.protocol.methods import Basic, make
from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

REPLY_TO = "amq.rabbitmq.reply-to"


def asked(requester: Speaker, responder: Speaker, queue: str) -> str:
    """Let the requester ask; the name under which the responder can answer."""
    responder.declare(queue)
    requester.consume(REPLY_TO, "replies", no_ack=True)
    requester.publish("", queue, "a question", reply_to=REPLY_TO, correlation_id="1")
    requester.settle()
    properties = responder.get(queue).properties
    responder.delete(queue)
    assert properties is not None
    assert properties.reply_to is not None
    return properties.reply_to


@scenario("10")
def becoming_a_requester(peer: Peer) -> None:
    main = speaker(peer)
    main.another().consume(REPLY_TO, "tag")
    main.another().consume(f"{REPLY_TO}.nobody", "tag", no_ack=True)
    twice = main.another()
    twice.consume(REPLY_TO, no_ack=True)
    twice.consume(REPLY_TO, no_ack=True)
    acknowledging = main.another()
    acknowledging.consume(REPLY_TO, no_ack=True)
    acknowledging.consume(REPLY_TO)
    main.consume(REPLY_TO, "tag", no_ack=True, exclusive=True)
    main.cancel("tag")
    main.send(make(Basic.Consume, queue=REPLY_TO, consumer_tag="t", no_ack=True, nowait=True))
    main.cancel("t")


@scenario("10")
def a_requester_needs_a_tag_of_its_own(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("own tag", exclusive=True)
    main.consume("own tag", "tag")
    main.consume(REPLY_TO, "tag")


@scenario("10")
def asking_without_a_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("unasked", exclusive=True)
    other = main.another()
    other.publish("", "unasked", reply_to=REPLY_TO)
    other.expect("Channel.Close")
    main.consume(REPLY_TO, "tag", no_ack=True)
    main.cancel("tag")
    main.publish("", "unasked", reply_to=REPLY_TO)
    main.expect("Channel.Close")


@scenario("10")
def question_and_answers(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "questions")
    responder.publish("", name, "first", correlation_id="1", headers={"h": 1}, delivery_mode=2)
    responder.publish("", name, "second" * 50_000)
    responder.another().publish("", "nowhere", "by CC", headers={"CC": [name]})
    requester.expect("Basic.Deliver", 3)
    responder.confirms()
    responder.publish("", name, "confirmed")
    responder.expect("Basic.Ack")
    requester.expect("Basic.Deliver")
    requester.ack(1)
    requester.expect("Channel.Close")


@scenario("10")
def asking_oneself_in_a_transaction(peer: Peer) -> None:
    main = speaker(peer)
    main.transact()
    main.declare("oneself", exclusive=True)
    main.consume(REPLY_TO, "replies", no_ack=True)
    main.publish("", "oneself", "a question", reply_to=REPLY_TO)
    main.commit()
    properties = main.get("oneself").properties
    assert properties is not None
    assert properties.reply_to is not None
    main.publish("", properties.reply_to, "forgotten")
    main.roll_back()
    main.publish("", properties.reply_to, "an answer")
    main.settle()
    main.commit()
    main.settle()


@scenario("10")
def a_mandatory_answer_is_routed(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "mandatory")
    responder.publish("", name, "to be routed", mandatory=True)
    responder.settle()
    requester.expect("Basic.Deliver")


@scenario("10")
def other_addresses_are_passed_on(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "addresses")
    responder.declare("addresses")
    for address in (REPLY_TO, name, "elsewhere", "", f"{REPLY_TO}.nobody"):
        requester.publish("", "addresses", reply_to=address)
    requester.settle()
    responder.drain("addresses")
    responder.delete("addresses")


@scenario("10")
def whether_a_requester_is_there(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "there")
    responder.declare(name)
    responder.declare(name, passive=True)
    responder.declare(name, durable=True, exclusive=True)
    responder.declare(name, nowait=True)
    responder.another().declare(f"{name}x")
    responder.another().declare(f"{REPLY_TO}.nobody", passive=True)
    requester.cancel("replies")
    responder.another().declare(name)
    requester.consume(REPLY_TO, "replies", no_ack=True)
    responder.another().declare(name, passive=True)


@scenario("10")
def an_answer_to_nobody(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "nobody")
    other = requester.another()
    second = asked(other, responder, "nobody else")
    requester.cancel("replies")
    other.close()
    responder.confirms()
    for address in (name, second, f"{REPLY_TO}.nobody"):
        responder.publish("", address, "too late")
        responder.expect("Basic.Ack")
    requester.settle()


@scenario("10")
def a_requester_is_no_queue(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "no queue")
    for address in (REPLY_TO, name):
        responder.another().purge(address)
        responder.another().get(address)
        responder.delete(address)
    responder.another().consume(name, no_ack=True)
    responder.another().bind(REPLY_TO, "amq.direct", "k")
    responder.unbind(REPLY_TO, "amq.direct", "k")
    responder.publish("", REPLY_TO, "to all of them", mandatory=True)
    responder.publish("amq.direct", name, "through an exchange", mandatory=True)
    responder.expect("Basic.Return", 2)
    requester.settle()


@scenario("10")
def a_requester_is_not_bound(peer: Peer) -> None:
    requester, responder = speaker(peer), speaker(peer, "responder")
    name = asked(requester, responder, "bound")
    responder.another().bind(name, "amq.direct", "k")
    responder.another().unbind(name, "amq.direct", "k")
