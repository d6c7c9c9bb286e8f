"""A shop that hands its orders to whoever ships them."""

import json
from collections.abc import Iterable

import pika
from pika.exceptions import NackError


def place_orders(url: str, numbers: Iterable[int]) -> None:
    """Return once the broker has them all."""
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)
        channel.confirm_delivery()  # from now on `basic_publish` waits for what becomes of it
        for number in numbers:
            place(channel, number)


def place(channel: pika.adapters.blocking_connection.BlockingChannel, number: int) -> None:
    persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
    for tries_left in (2, 1, 0):
        try:
            channel.basic_publish(
                "", "orders", json.dumps({"number": number}), persistent, mandatory=True
            )
        except NackError:
            if not tries_left:
                raise
        else:
            return
