"""No reading is lost, whatever the broker does."""

import app
import naive
import pytest

READINGS = {
    "queues": [{"name": "readings", "durable": True}],
    "bindings": [
        {
            "source": "amq.topic",
            "destination": "readings",
            "destination_type": "queue",
            "routing_key": "meters.#",
        }
    ],
}
pytestmark = pytest.mark.amqp(definitions=READINGS)


@pytest.fixture(
    params=[
        app.Meter,
        pytest.param(
            naive.Meter,
            marks=pytest.mark.xfail(
                strict=True,
                raises=(AssertionError, pytest.fail.Exception),
                reason="it does not look at the reason code of PUBACK",
            ),
        ),
    ],
    ids=["app", "naive"],
)
def meter(request, amqp):
    """Strictly: if the bug were not found, this would fail."""
    with request.param(amqp.mqtt_url, "attic") as meter:
        yield meter


def test_a_reading_that_the_broker_refuses_is_published_again(amqp, meter):
    amqp.faults.refuse_next("PUBLISH", 0x97, client="attic")
    meter.report([21.5, 22.0, 22.5])
    amqp.expect("readings", count=3)
    assert [float(message.text()) for message in amqp.messages("readings")] == [21.5, 22.0, 22.5]


def test_who_reports_hears_that_a_reading_cannot_be_taken(amqp, meter):
    amqp.faults.refuse_next("PUBLISH", 0x97, client="attic", count=3)
    with pytest.raises(app.ReadingRefused, match="Quota exceeded"):
        meter.report([21.5])
    amqp.expect("readings", count=0)
