"""Events of open connections when users, permissions and virtual hosts change.

RabbitMQ is changed by its command line, fluffle in this process.
"""

from collections.abc import Callable

import pytest

from fluffle.protocol.methods import Method, Queue, encode_method, make
from tests.compat.estate import PASSWORD, everything, user
from tests.compat.oracle import RabbitMQ
from tests.compat.questions import asks
from tests.compat.replay import Answers
from tests.compat.scenario import Transcript
from tests.support.client import Client, show_method
from tests.support.edge import Edge

VHOST = "changing"
ALICE = "alice"
DECLARE = make(Queue.Declare, queue="new")


def heard_from_rabbitmq(
    rabbitmq: RabbitMQ, change: tuple[str, ...], question: Method | None
) -> Transcript:
    """The next method after a change by rabbitmqctl, and after a question if there is one."""
    rabbitmq.import_definitions(
        {
            "vhosts": [{"name": VHOST}],
            "users": [user(ALICE)],
            "permissions": [everything(ALICE, VHOST)],
        }
    )
    with Client("127.0.0.1", rabbitmq.port) as client:
        client.open(user=ALICE, password=PASSWORD.format(ALICE), vhost=VHOST)
        client.channel(1)
        rabbitmq.ctl(*change)
        if question is not None:
            client.send(1, question)
        heard = show_method(client.next().method)
    # A virtual host goes down before it is deleted, and either may be what closes a connection.
    return {ALICE: [heard.replace(f"vhost '{VHOST}' is down", f"vhost '{VHOST}' is deleted")]}


def heard_from_fluffle(change: Callable[[Edge], None], question: Method | None) -> str:
    edge = Edge()
    client = edge.connect(user=ALICE, password="wonder")
    change(edge)
    edge.run()
    if question is not None:
        client.send(encode_method(1, question))
    (arrival,) = client.arrivals()
    return show_method(arrival.method).replace("vhost '/'", f"vhost '{VHOST}'")


def delete_vhost(edge: Edge) -> None:
    edge.editor.delete_vhost("/")


CHANGES: dict[str, tuple[tuple[str, ...], Callable[[Edge], None], Method | None]] = {
    "permission": (
        ("clear_permissions", "--vhost", VHOST, ALICE),
        lambda edge: edge.editor.clear_permission(ALICE, "/"),
        DECLARE,
    ),
    "user": (("delete_user", ALICE), lambda edge: edge.editor.delete_user(ALICE), None),
    "virtual host": (("delete_vhost", VHOST), delete_vhost, None),
}
"""In the words of RabbitMQ, as it is made here, and what is asked then."""
ASKED = {
    name: asks(
        f"changes.{name}", heard_from_rabbitmq, said=(words, question and show_method(question))
    )
    for name, (words, _, question) in CHANGES.items()
}


@pytest.mark.parametrize("name", CHANGES)
def test_both_say_the_same(name: str, answers: Answers, oracle: Callable[[], RabbitMQ]) -> None:
    words, change, question = CHANGES[name]
    theirs = answers.of(ASKED[name], lambda: heard_from_rabbitmq(oracle(), words, question))
    assert {ALICE: [heard_from_fluffle(change, question)]} == theirs
