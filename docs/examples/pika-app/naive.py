"""The same shop, by somebody who believes that what is published has arrived."""

import json
from collections.abc import Iterable

import pika


def place_orders(url: str, numbers: Iterable[int]) -> None:
    with pika.BlockingConnection(pika.URLParameters(url)) as connection:
        channel = connection.channel()
        channel.queue_declare("orders", durable=True)
        persistent = pika.BasicProperties(delivery_mode=pika.DeliveryMode.Persistent)
        for number in numbers:
            channel.basic_publish("", "orders", json.dumps({"number": number}), persistent)
