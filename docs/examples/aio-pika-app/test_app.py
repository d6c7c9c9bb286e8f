"""Nobody pays twice."""

import app
import naive
import pytest


class Till:
    """A bank that remembers, and does something else before it answers."""

    def __init__(self, meanwhile):
        self.charged = []
        self._meanwhile = meanwhile

    async def charge(self, customer, cents):
        self.charged.append((customer, cents))
        if len(self.charged) == 1:
            await self._meanwhile()


@pytest.fixture(
    params=[
        app.Payments,
        pytest.param(
            naive.Payments,
            marks=pytest.mark.xfail(
                strict=True, raises=AssertionError, reason="it charges for what comes again"
            ),
        ),
    ],
    ids=["app", "naive"],
)
def payments(request):
    """Strictly: if the bug were not found, this would fail."""
    return request.param


@pytest.mark.asyncio
async def test_a_payment_that_is_delivered_again_is_not_charged_again(amqp, payments):
    async def redeliver():
        consumer = await amqp.clients.consumer("payments")
        await consumer.redeliver()

    till = Till(redeliver)
    async with payments(amqp.url, till):
        await amqp.publish(
            "", "payments", message_id="1", headers={"customer": "ann", "cents": 250}
        )
        await amqp.expect("payments", count=0)
    assert till.charged == [("ann", 250)]
