"""`x-consistent-hash`: what has the same key goes the same way, and the ways share evenly.

The key of a message is its routing key, a header (`hash-header`) or a property (`hash-property`).
A binding key is a weight: a destination gets its part of the sum.

The destination is found by weighted rendezvous hashing: a key and a destination together make a
number between 0 and 1 that looks drawn by chance, `-ln(number) / weight` is how long the key would
have to wait for the destination, and the shortest wait wins.  So it takes nothing but the bindings
that there are to know where a key leads: not in which order they were made, which neither a restart
nor another node would know.  A destination that comes takes from each other one its part, one that
goes leaves its keys to all of them, and no other key moves.  (D. Thaler, C. Ravishankar: A
name-based mapping scheme for rendezvous, 1996; the weights: J. Resch, 2015.)

RabbitMQ numbers buckets in the order of binding instead, as many for a destination as its weight:
it is as even, but keys of other destinations move when one goes.
"""

import re
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from math import log
from typing import NamedTuple

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding
from fluffle.broker.routing.matcher import MatchInput
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term, text
from fluffle.protocol.types import FieldTable
from fluffle.protocol.wire import TYPE_NAMES

HASH_HEADER = "hash-header"
HASH_PROPERTY = "hash-property"
PROPERTIES = (b"correlation_id", b"message_id", b"timestamp")

INTEGER = re.compile(r"([+-]?)(?=[0-9])0*([0-9]*)")
"""What Erlang reads as one: its sign, and its digits from the first that counts."""

WEIGHT_MAX = 10_000
"""As with RabbitMQ 4.3; bindings of before may have more."""

_MASK = (1 << 64) - 1


class Candidate(NamedTuple):
    """A destination that would like to have the message."""

    seed: int
    """Of 64 bits, made of its name."""
    weight: int
    binding: Binding


class ConsistentHash:
    """A `Choice`.  If several bindings lead to one destination, their weights add up."""

    __slots__ = ("_header", "_property", "_rivals", "asks")

    def __init__(self, arguments: FieldTable) -> None:
        """Of the exchange; they have passed `check_arguments`."""
        header, name = _hashed_on(arguments)
        self._header = None if header is None else header.decode(errors="surrogateescape")
        self._property = None if name is None else name.decode()
        self.asks = MatchInput.KEYS if header is None and name is None else MatchInput.PROPERTIES
        self._rivals: tuple[Candidate, ...] = ()

    def check(self, binding: Binding) -> None:
        """The rules and texts of RabbitMQ 4.3."""
        found = INTEGER.fullmatch(binding.routing_key)
        if found is None:
            key = term(binding.routing_key.encode(errors="surrogateescape"))
            raise PreconditionFailed(f"The binding key must be an integer: {key}")
        sign, digits = found.groups()
        if sign == "-" or not digits:
            raise PreconditionFailed("The binding key must be greater than 0")
        if len(digits) > len(str(WEIGHT_MAX)) or int(digits) > WEIGHT_MAX:
            raise PreconditionFailed(f"The binding key must not exceed {WEIGHT_MAX}")

    def arrange(self, bindings: Iterable[Binding]) -> None:
        rivals: dict[tuple[str, str], Candidate] = {}
        for binding in bindings:
            end = binding.destination_kind.value, binding.destination
            weight = int(binding.routing_key)
            if end in rivals:
                weight += rivals[end].weight
            rivals[end] = Candidate(_digest("\0".join(end)), weight, binding)
        self._rivals = tuple(rivals.values())

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding:
        if len(self._rivals) == 1:
            return self._rivals[0].binding
        key = _digest(self._key(routing_keys, properties))
        nearest = min(self._rivals, key=lambda rival: _wait(key ^ rival.seed) / rival.weight)
        return nearest.binding

    def _key(self, routing_keys: Sequence[str], properties: Properties | None) -> str:
        """Messages without what is to be hashed have the same."""
        if self._header is not None:
            headers = (properties and properties.headers) or {}
            _tag, value = headers.get(self._header, ("V", None))
            return text(value)
        if self._property is not None:
            return str(getattr(properties, self._property, None))
        return routing_keys[0]


def check_arguments(arguments: FieldTable) -> None:
    """Refuses to make an exchange that would hash on both, or on what is neither.

    RabbitMQ's texts, but for arguments that are no strings: for those it has a crash.
    """
    for name in (HASH_HEADER, HASH_PROPERTY):
        tag, _ = arguments.get(name, ("S", b""))
        if tag != "S":
            raise PreconditionFailed(f"invalid type '{TYPE_NAMES[tag]}' for arg '{name}'")
    header, name_of_property = _hashed_on(arguments)
    if name_of_property is None:
        return
    if header is not None:
        raise PreconditionFailed("hash-header and hash-property are mutually exclusive")
    if name_of_property not in PROPERTIES:
        raise PreconditionFailed(f"Unsupported property: {text(name_of_property)}")


def _hashed_on(arguments: FieldTable) -> tuple[bytes | None, bytes | None]:
    """The header and the property that are named."""
    header, name = (arguments.get(each, ("V", None))[1] for each in (HASH_HEADER, HASH_PROPERTY))
    assert header is None or isinstance(header, bytes)
    assert name is None or isinstance(name, bytes)
    return header, name


def _digest(words: str) -> int:
    """64 bits."""
    octets = words.encode(errors="surrogateescape")
    return int.from_bytes(blake2b(octets, digest_size=8).digest(), "big")


def _wait(bits: int) -> float:
    """For how long, if the weight is 1: distributed exponentially, if `bits` are evenly.

    The bits are mixed once more (as the last step of SplitMix64 does it), since those of a key and
    of a destination are only laid one upon the other.
    """
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    bits ^= bits >> 31
    return -log(((bits >> 11) + 0.5) / (1 << 53))
