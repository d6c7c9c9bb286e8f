"""Direct reply-to: who asks through one node is answered through another."""

from tests.compat.nodes import QUORUM, Nodes, with_nodes
from tests.compat.section_10_reply_to import REPLY_TO
from tests.compat.verbs import Speaker


def asked(nodes: Nodes, requester: Speaker, queue: str) -> str:
    """Have it ask; the name under which it can be answered."""
    requester.declare(queue, QUORUM, durable=True)
    requester.consume(REPLY_TO, "replies", no_ack=True)
    requester.publish("", queue, "a question", reply_to=REPLY_TO, correlation_id="1")
    with nodes.unheard("b") as other:
        nodes.agree()
        other.consume(queue, "taker", no_ack=True)
        [question] = other.expect("Basic.Deliver")
    requester.delete(queue)
    assert question.properties is not None
    assert question.properties.reply_to is not None
    return question.properties.reply_to


@with_nodes
def answers_come_from_any_node(nodes: Nodes) -> None:
    requester = nodes.speaker("asks", "a")
    name = asked(nodes, requester, "nodes.questions")
    for node in "abc":
        responder = nodes.speaker("answers", node)
        responder.declare(name, passive=True)
        responder.declare(name)
        responder.another().declare(f"{REPLY_TO}.nobody", passive=True)
        responder.confirms()
        for body in ("1", "2" * 300_000, "3"):
            responder.publish("", name, body, correlation_id="1", headers={"h": 1})
            responder.expect("Basic.Ack")
        requester.expect("Basic.Deliver", 3)


@with_nodes
def requesters_are_gone_for_all_nodes(nodes: Nodes) -> None:
    requester = nodes.speaker("asks", "a")
    name = asked(nodes, requester, "nodes.requests")
    requester.cancel("replies")
    for node in "abc":
        responder = nodes.speaker("answers", node)
        responder.another().declare(name, passive=True)
        responder.confirms()
        responder.publish("", name, "too late")
        responder.expect("Basic.Ack")
    requester.settle()
