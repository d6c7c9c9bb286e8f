"""Properties of a message as far as the broker must know them before it routes the message.

Read once for each distinct raw value, then remembered: most publishers send few.  Of properties
that differ with each message, such as a message id, only the shape is checked.
"""

from typing import NamedTuple

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.protocol.headers import long_strings, without_bcc
from fluffle.protocol.properties import (
    DELIVERY_MODE_PERSISTENT,
    FLAG_EXPIRATION,
    FLAG_HEADERS,
    FLAG_REPLY_TO,
    FLAG_USER_ID,
    RETAIN,
    Properties,
    check_properties,
    decode_properties,
    decode_properties_in_steps,
    encode_properties,
    is_persistent,
    property_flags,
    raw_properties,
    read_expirations,
)
from fluffle.protocol.spec import DIRECT_REPLY_TO
from fluffle.protocol.steps import Steps
from fluffle.protocol.terms import escaped
from fluffle.protocol.wire import TYPE_NAMES, FieldTable, is_shortstr

REMEMBERED_PROPERTIES_MAX = 256
REMEMBERED_PROPERTIES_BYTES_MAX = 256
"""Properties a session remembers: how many, and how long each.  A client must not be able to make
us keep much, and what is longer is rarely sent twice."""

EXPIRATION_MS_MAX = 315_360_000_000
"""Ten years: RabbitMQ's limit on every time in milliseconds."""

REFUSED_MS = -1
"""Stands for an expiration that is no number of milliseconds within that."""


class PropertyFacts(NamedTuple):
    """Facts about properties that publishing asks for, and the raw bytes they are stored as."""

    stored: bytes | None
    """Raw properties to store in place of those that came; None to store these."""
    wants_reply: bool
    """True if reply_to names the direct reply-to pseudo-queue."""
    user_id: str | None
    more_routing_keys: tuple[str, ...]
    """Routing keys of the CC and BCC headers."""
    blind_keys: tuple[str, ...]
    """Routing keys of BCC alone, except those that are too long for one."""
    properties: Properties | None
    """All of them, if they have been decoded."""
    persistent: bool
    """True if durable queues keep these messages when the broker ends."""
    is_special: bool
    """True if messages with these properties need more than to be routed."""
    expires: bool = False
    """True if each message says for how long it may wait in a queue."""
    retains: bool = False
    """True if the last message is to be retained, where that can be."""


TRANSIENT, PERSISTENT = (
    PropertyFacts(
        stored=None,
        wants_reply=False,
        user_id=None,
        more_routing_keys=(),
        blind_keys=(),
        properties=None,
        persistent=persistent,
        is_special=False,
    )
    for persistent in (False, True)
)
"""Facts of properties that say nothing else to the broker."""

FLAGS_READ = FLAG_HEADERS | FLAG_REPLY_TO | FLAG_EXPIRATION | FLAG_USER_ID


def read_facts(raw: bytes) -> PropertyFacts:
    """Decode raw properties, or only check them when nothing in them matters to the broker.

    Raises ProtocolError when they are malformed, PreconditionFailed with RabbitMQ's text for an
    expiration that is no number of milliseconds and for a CC or BCC that is no array.
    """
    if not property_flags(raw) & FLAGS_READ:
        check_properties(raw)
        return PERSISTENT if is_persistent(raw) else TRANSIENT
    return facts_of(decode_properties(raw))


def remember_facts(remembered: dict[bytes, PropertyFacts], raw: bytes) -> PropertyFacts:
    """Read properties as `read_facts` does that are not among those which a session remembers."""
    facts = read_facts(raw)
    if len(raw) <= REMEMBERED_PROPERTIES_BYTES_MAX:
        if len(remembered) >= REMEMBERED_PROPERTIES_MAX:
            remembered.clear()
        remembered[raw] = facts
    return facts


def read_facts_in_steps(raw: bytes) -> Steps[PropertyFacts]:
    """Read as `read_facts` does, of properties that may be long."""
    return facts_of((yield from decode_properties_in_steps(raw)))


def facts_of(properties: Properties) -> PropertyFacts:
    """The facts that properties say to the broker.  Raises as `read_facts`."""
    if properties.expiration is not None:
        read_expiration(properties.expiration)
    headers = properties.headers
    more: tuple[str, ...] = ()
    blind: tuple[str, ...] = ()
    stored = None
    if headers and ("CC" in headers or "BCC" in headers):
        more = sender_selected(headers, "CC")
        blind = sender_selected(headers, "BCC")
        more += blind
        if "BCC" in headers:
            stored = without_bcc(properties)
    wants_reply = properties.reply_to == DIRECT_REPLY_TO
    return PropertyFacts(
        stored=stored,
        wants_reply=wants_reply,
        user_id=properties.user_id,
        more_routing_keys=more,
        blind_keys=tuple(filter(is_shortstr, blind)),
        properties=properties,
        persistent=properties.delivery_mode == DELIVERY_MODE_PERSISTENT,
        is_special=wants_reply or properties.user_id is not None or stored is not None,
        expires=properties.expiration is not None,
        retains=headers is not None and headers.get(RETAIN) == ("t", True),
    )


def read_lifetimes(contents: list[bytes]) -> int | list[int]:
    """Read how many milliseconds messages may wait that all have an expiration.

    One time for all, or one for each up to the first whose expiration is refused;
    PreconditionFailed if that is the first of all.
    """
    lifetimes_ms = read_expirations(contents, lifetime_ms_of)
    first_ms = lifetimes_ms[0]
    if first_ms == REFUSED_MS:
        properties = decode_properties(raw_properties(contents[0]))
        assert properties.expiration is not None, "the caller knows that there is one"
        return read_expiration(properties.expiration)
    kinds = {*lifetimes_ms}
    if len(kinds) == 1:
        return first_ms
    if REFUSED_MS in kinds:
        return lifetimes_ms[: lifetimes_ms.index(REFUSED_MS)]
    return lifetimes_ms


def lifetime_ms_of(text: bytes) -> int:
    """Read an expiration in milliseconds; REFUSED_MS if it is refused."""
    if text.isdigit() and (lifetime_ms := int(text)) <= EXPIRATION_MS_MAX:
        return lifetime_ms
    try:
        return read_expiration(text.decode(errors="surrogateescape"))
    except PreconditionFailed:
        return REFUSED_MS


def read_expiration(text: str) -> int:
    """PreconditionFailed unless `text` is a number of milliseconds within RabbitMQ's limits."""
    digits = text.lstrip("+-")
    leading = text[: len(text) - len(digits)]
    number = digits[: next((i for i, c in enumerate(digits) if not "0" <= c <= "9"), len(digits))]
    leftover = digits[len(number) :].encode(errors="surrogateescape").decode("latin-1")
    if not number or len(leading) > 1:
        problem = "no_integer"
    elif leftover:
        problem = f'{{leftover_string,"{escaped(leftover)}"}}'
    elif leading == "-" and int(number):
        problem = f"{{value_negative,-{int(number)}}}"
    elif int(number) > EXPIRATION_MS_MAX:
        problem = f"{{value_too_large,{int(number)}}}"
    else:
        return int(number)
    raise PreconditionFailed(f"invalid expiration '{text}': {problem}")


def sender_selected(headers: FieldTable, name: str) -> tuple[str, ...]:
    """The routing keys in an array header; elements that are no long strings do not count."""
    if name not in headers:
        return ()
    tag, value = headers[name]
    if tag != "A" or not isinstance(value, list):
        kind = TYPE_NAMES.get(tag, tag)
        raise PreconditionFailed(
            f'invalid message: {{unacceptable_type_in_header,"{name}",{kind}}}'
        )
    return long_strings(value)


def with_reply_to(raw: bytes, name: str) -> bytes:
    """Raw properties with another reply_to."""
    properties = decode_properties(raw)
    properties.reply_to = name
    return encode_properties(properties)
