"""No lamp goes deaf."""

import asyncio

import app
import naive
import pytest


@pytest.fixture(
    params=[
        app.Lamps,
        pytest.param(
            naive.Lamps,
            marks=pytest.mark.xfail(
                strict=True,
                raises=AssertionError,
                reason="it does not subscribe again to a session that is new",
            ),
        ),
    ],
    ids=["app", "naive"],
)
def lamps(request):
    """Strictly: if the bug were not found, this would fail."""
    return request.param


async def switched(amqp, told, command):
    """A command reaches the lamp."""
    await amqp.publish("amq.topic", "lamps.attic", command)
    assert await asyncio.wait_for(told.get(), 30) == ("lamps/attic", command.decode())


@pytest.mark.asyncio
async def test_a_lamp_is_switched_when_the_broker_has_lost_its_session(amqp, lamps):
    told = asyncio.Queue()
    task = asyncio.create_task(
        lamps(amqp.mqtt_url, lambda *command: told.put_nowait(command)).run()
    )
    try:
        await amqp.expect_packets("SUBACK", sent_by="broker", client="lamps", within=30)
        await switched(amqp, told, b"on")
        await amqp.faults.lose_sessions()
        answers = await amqp.expect_packets("CONNACK", sent_by="broker", count=2, within=30)
        assert not answers[1].session_present
        await amqp.expect_packets("SUBACK", sent_by="broker", client="lamps", count=2, within=5)
        await switched(amqp, told, b"off")
    finally:
        task.cancel()
