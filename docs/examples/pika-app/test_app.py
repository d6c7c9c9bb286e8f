"""No order is lost, whatever the broker does."""

import app
import naive
import pytest
from pika.exceptions import NackError


@pytest.fixture(
    params=[
        app.place_orders,
        pytest.param(
            naive.place_orders,
            marks=pytest.mark.xfail(
                strict=True,
                raises=(AssertionError, pytest.fail.Exception),
                reason="it publishes without confirms",
            ),
        ),
    ],
    ids=["app", "naive"],
)
def place_orders(request):
    """Strictly: if the bug were not found, this would fail."""
    return request.param


def test_a_message_that_the_broker_refuses_is_published_again(amqp, place_orders):
    amqp.faults.nack_next(queue="orders")
    place_orders(amqp.url, [1, 2, 3])
    amqp.expect("orders", count=3)
    assert [message.json()["number"] for message in amqp.messages("orders")] == [1, 2, 3]


def test_who_places_an_order_hears_that_it_cannot_be_placed(amqp, place_orders):
    amqp.faults.nack_next(3, queue="orders")
    with pytest.raises(NackError):
        place_orders(amqp.url, [1])
    amqp.expect("orders", count=0)
