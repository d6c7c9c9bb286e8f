"""Names of queues that clients do not choose: those of their sessions, and delayed queues.

By the names of session queues it is known whose a queue is.  Source: rabbit_mqtt_util of RabbitMQ
4.0.5.  Queue names have at most 255 bytes here, as in AMQP 0-9-1: what would be longer ends in a
digest.

Messages of x-delayed-message exchanges wait for their time in delayed queues.  Each such exchange
has one, which comes and goes with it.  It is a quorum queue of the broker's own: clients cannot
name it, operators see it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from functools import lru_cache
from hashlib import sha256

from fluffle.protocol.spec import SHORTSTR_BYTES_MAX

SUBSCRIPTION_PREFIX = "mqtt-subscription-"
QUEUE_ENDINGS = "qos0", "qos1"
"""Ends of the names of the queues of a session: for subscriptions of QoS 0, and for all others."""
SHARED_PREFIX = "mqtt-shared-"

DIGEST_DIGITS = 32
"""Hexadecimal digits of a digest of 128 bits, so that no two client identifiers with the same one
can be found."""
SHORTENED = re.compile(rf"~[0-9a-f]{{{DIGEST_DIGITS}}}\Z")

UTF8_BYTES_MAX = 4
"""Bytes of a character: a text that is cut between two has up to so many less one to spare."""

LONG_ID_CHARS = 50
"""Client identifiers with fewer characters have no digest in the names of their queues."""


def subscription_queue(client_id: str, qos: int) -> str:
    """Return the name of the queue for a session's subscriptions of QoS 0, or for all others."""
    return subscription_queues(client_id)[min(qos, 1)]


@lru_cache(maxsize=64)
def subscription_queues(client_id: str) -> tuple[str, str]:
    """Return the names of both queues of a session: for subscriptions of QoS 0, and for others."""
    start = f"{SUBSCRIPTION_PREFIX}{client_id}"
    size = _size(start) + len(QUEUE_ENDINGS[0])
    # A client that calls itself by another's digest does not get the queue of the other.
    is_accepted = size > SHORTSTR_BYTES_MAX - UTF8_BYTES_MAX and SHORTENED.search(client_id)
    first, second = QUEUE_ENDINGS
    if size <= SHORTSTR_BYTES_MAX and not is_accepted:
        return start + first, start + second
    digest = _digest(client_id)
    return _shortened(start, digest + first), _shortened(start, digest + second)


def clients_of(queues: Iterable[str], client_ids: Collection[str]) -> list[str]:
    """Return those of the clients whose sessions have one of these queues, each once.

    Where a name ends in a digest, all clients with long identifiers are looked at, once.
    """
    found: dict[str, None] = {}
    shortened: set[str] = set()
    for queue in queues:
        if not queue.startswith(SUBSCRIPTION_PREFIX):
            continue
        client_id = queue[len(SUBSCRIPTION_PREFIX) : -len(QUEUE_ENDINGS[0])]
        if client_id in client_ids and queue in subscription_queues(client_id):
            found[client_id] = None
        elif SHORTENED.search(client_id):
            shortened.add(queue)
    for client_id in client_ids if shortened else ():
        is_long = len(client_id) >= LONG_ID_CHARS
        if is_long and not shortened.isdisjoint(subscription_queues(client_id)):
            found[client_id] = None
    return [*found]


def shared_queue(share_name: str, topic_filter: str) -> str:
    """Return the name of the queue that clients share who subscribe to `$share/NAME/FILTER`."""
    name = f"{SHARED_PREFIX}{share_name}-{_digest(topic_filter)}"
    if _size(name) <= SHORTSTR_BYTES_MAX:
        return name
    return _shortened(f"{SHARED_PREFIX}{share_name}", _digest(f"{share_name}/{topic_filter}"))


def is_shared(queue: str) -> bool:
    """True if a queue of MQTT is one that clients share."""
    return queue.startswith(SHARED_PREFIX)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _digest(text: str) -> str:
    return sha256(text.encode()).hexdigest()[:DIGEST_DIGITS]


def _shortened(name: str, ending: str) -> str:
    """Return as much of a name as there is room for beside an ending."""
    room = SHORTSTR_BYTES_MAX - len(ending) - 1
    return f"{name.encode()[:room].decode(errors='ignore')}~{ending}"


DELAYED_QUEUE_PREFIX = "amq.delayed."
"""No client may declare a name that begins so, and no definitions are imported under one."""


def delayed_queue_of(exchange: str) -> str:
    """Return the name of the delayed queue of an exchange."""
    return DELAYED_QUEUE_PREFIX + exchange


def is_delayed_queue(queue: str) -> bool:
    """True if a queue of this name is one."""
    return queue.startswith(DELAYED_QUEUE_PREFIX)


def exchange_of(queue: str) -> str:
    """Return the exchange that a delayed queue belongs to."""
    return queue.removeprefix(DELAYED_QUEUE_PREFIX)
