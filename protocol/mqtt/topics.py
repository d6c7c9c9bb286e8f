"""Topic names and topic filters: which are allowed.  What a filter matches:

    a/b      matches a/b            +/b     a/b, /b
    a/#      a, a/, a/b, a/b/c      #       all but names that begin with $

Names and filters have levels, which may be empty, between slashes.  Source: S5 §4.7, §4.8.2.
"""

from typing import NamedTuple

from fluffle.protocol.mqtt.codes import InvalidPacket, ReasonCode
from fluffle.protocol.mqtt.wire import decode_name

LEVELS_MAX = 201
"""Most levels of a topic name or filter, as in mosquitto; the routing index has the same bound."""

SHARE_PREFIX = "$share/"


class SubscriptionFilter(NamedTuple):
    """Topic filter of a subscription, taken apart."""

    share_name: str
    """Name of the group that shares the subscription; empty if it is not shared."""
    topic_filter: str


def check_topic(topic: bytes) -> None:
    """Raise InvalidPacket unless `topic` is a topic name."""
    if not is_valid_topic(decode_name(topic)):
        raise InvalidPacket(ReasonCode.TOPIC_NAME_INVALID, "topic name is not valid")


def is_valid_topic(topic: str) -> bool:
    """True if a text that may be a name is a topic name: not empty, without wildcards."""
    return bool(topic) and "+" not in topic and "#" not in topic and has_few_levels(topic)


def has_few_levels(topic: str) -> bool:
    return topic.count("/") < LEVELS_MAX


def is_valid_filter(topic_filter: str) -> bool:
    """True if a text is a topic filter: wildcards are whole levels, `#` is the last."""
    if not topic_filter or not has_few_levels(topic_filter):
        return False
    if not is_wildcard(topic_filter):
        return True
    *levels, last = topic_filter.split("/")
    if last not in ("#", "+") and is_wildcard(last):
        return False
    return all(level == "+" or not is_wildcard(level) for level in levels)


def is_wildcard(topic_filter: str) -> bool:
    """True if a topic filter may match more than one name."""
    return "+" in topic_filter or "#" in topic_filter


def parse_filter(text: str) -> SubscriptionFilter | None:
    """Take the filter of a subscription apart, `$share/NAME/FILTER` or `FILTER`; None if it is
    not valid."""
    share_name, topic_filter = "", text
    if text.startswith(SHARE_PREFIX):
        share_name, _, topic_filter = text[len(SHARE_PREFIX) :].partition("/")
        if not share_name or is_wildcard(share_name):
            return None
    return SubscriptionFilter(share_name, topic_filter) if is_valid_filter(topic_filter) else None
