"""How the two oracles are configured, and the users that RabbitMQ and fluffle have."""

from __future__ import annotations

import base64
import hashlib

from tests.compat.estate import Entry, user_with_hash

MOSQUITTO = """
listener {port} 127.0.0.1
allow_anonymous true
persistence false
log_dest stdout
max_topic_alias 16
"""

RABBITMQ = """
mqtt.listeners.tcp.1 = 127.0.0.1:{port}
mqtt.listeners.ssl = none
"""

VHOST = "mqtt estate"
READER, WRITER, NOBODY, OUTSIDER, REPORTER = "reader", "writer", "nobody", "outsider", "reporter"


def allowed(user: str, configure: str, write: str, read: str) -> Entry:
    return {"user": user, "vhost": VHOST, "configure": configure, "write": write, "read": read}


GUEST_HASH = base64.b64encode(b"salt" + hashlib.sha256(b"saltguest").digest()).decode()

DEFINITIONS: dict[str, list[Entry]] = {
    "users": [
        {
            **user_with_hash("guest", "sha256"),
            "password_hash": GUEST_HASH,
            "tags": ["administrator"],
        },
        *(user_with_hash(name, "sha256") for name in (READER, WRITER, NOBODY, OUTSIDER, REPORTER)),
    ],
    "vhosts": [{"name": "/"}, {"name": VHOST}],
    "permissions": [
        allowed(READER, ".*", "^mqtt-", ".*"),
        allowed(WRITER, "^$", "^amq[.]topic$", "^$"),
        allowed(NOBODY, "^$", "^$", "^$"),
        allowed(REPORTER, ".*", ".*", ".*"),
        {"user": "guest", "vhost": "/", "configure": ".*", "write": ".*", "read": ".*"},
        {"user": "guest", "vhost": VHOST, "configure": ".*", "write": ".*", "read": ".*"},
    ],
    "topic_permissions": [
        {
            "user": REPORTER,
            "vhost": VHOST,
            "exchange": "amq.topic",
            "write": "^news[.]{client_id}$",
            "read": "^news[.]",
        }
    ],
}
"""Users and what they may; a user's password is that of `estate.PASSWORD`."""
