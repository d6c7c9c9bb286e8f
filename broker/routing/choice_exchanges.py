"""Exchanges that give each message to one of all that is bound to them.

`x-random` throws dice, `x-local-random` too, among the classic queues of this node, and
`x-modulus-hash` takes the routing keys; binding keys do not count.  With `x-consistent-hash` what
has the same key goes the same way, and the ways share evenly: the key of a message is its routing
key, a header (`hash-header`) or a property (`hash-property`), a binding key is a weight, and a
destination gets its part of the sum.

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
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from math import log
from typing import NamedTuple, Protocol

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange_host import ExchangeHost
from fluffle.broker.routing.matcher import MatchInput
from fluffle.protocol.properties import Properties
from fluffle.protocol.terms import term, text
from fluffle.protocol.wire import TYPE_NAMES, FieldTable

CLASSIC = "rabbit_classic_queue"

HASH_HEADER = "hash-header"
HASH_PROPERTY = "hash-property"
PROPERTIES = (b"correlation_id", b"message_id", b"timestamp")

INTEGER = re.compile(r"([+-]?)(?=[0-9])0*([0-9]*)")
"""Integer as Erlang reads it: groups are the sign, and the digits from the first that is not 0."""

WEIGHT_MAX = 10_000
"""Greatest weight of a binding, as with RabbitMQ 4.3; older bindings may have more."""

_MASK_64 = (1 << 64) - 1

RANGE = 1 << 27
"""Range of Erlang's `phash2` by default."""

_MASK_32 = 0xFFFFFFFF
_GOLDEN = 0x9E3779B9
"""Factor whose multiples distinguish kinds of terms."""
_LIST_END = 2 * _GOLDEN & _MASK_32
_BINARY = 13 * _GOLDEN & _MASK_32
_NIL = 2
"""Internal tag with which Erlang's run-time system hashes the end of a list."""
_BLOCK_BYTES = 12


class Choice(Protocol):
    """Chooses one of several bindings."""

    asks: MatchInput

    def check(self, binding: Binding) -> None:
        """PreconditionFailed if there can be no such binding."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        """Between these it has to choose from now on; there is at least one."""

    def choose(
        self, routing_keys: Sequence[str], properties: Properties | None
    ) -> Binding | None: ...


class ChoiceMatcher:
    """A matcher that has a choice made, between all bindings that there are."""

    clears_in_steps = False
    """False: removing one binding is cheap."""

    __slots__ = ("_bindings", "_choice", "_is_arranged")

    def __init__(self, choice: Choice) -> None:
        self._bindings: dict[Binding, None] = {}
        self._choice = choice
        self._is_arranged = False
        """True if the choice knows the bindings: it learns them when the next message comes."""

    @property
    def asks(self) -> MatchInput:
        return self._choice.asks

    def check(self, binding: Binding) -> None:
        self._choice.check(binding)

    def add(self, binding: Binding) -> bool:
        is_new = binding not in self._bindings
        self._bindings[binding] = None
        self._is_arranged = False
        return is_new

    def discard(self, binding: Binding) -> bool:
        was_there = binding in self._bindings
        self._bindings.pop(binding, None)
        self._is_arranged = False
        return was_there

    def search(
        self,
        routing_keys: Sequence[str],
        properties: Properties | None,
        topic: str | None = None,
    ) -> Iterator[Iterable[Binding]]:
        if not self._bindings:
            return
        if not self._is_arranged:
            self._choice.arrange(self._bindings)
            self._is_arranged = True
        chosen = self._choice.choose(routing_keys, properties)
        if chosen is not None:
            yield (chosen,)

    def __iter__(self) -> Iterator[Binding]:
        return iter(self._bindings)

    def __len__(self) -> int:
        return len(self._bindings)


class Random:
    """`x-random`: a queue that is bound twice is chosen twice as often."""

    asks = MatchInput.CHANCE

    __slots__ = ("_bindings", "_pick")

    def __init__(self, pick: Callable[[int], int]) -> None:
        self._bindings: tuple[Binding, ...] = ()
        self._pick = pick

    def check(self, binding: Binding) -> None:
        """Accept any binding key."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding:
        return self._bindings[self._pick(len(self._bindings))]


class LocalRandom:
    """`x-local-random`: nothing of a message leaves the node that it was published on.

    If no queue that is bound is here, the message matches nothing.
    """

    asks = MatchInput.CHANCE

    __slots__ = ("_bindings", "_host")

    def __init__(self, host: ExchangeHost) -> None:
        self._host = host
        self._bindings: tuple[Binding, ...] = ()

    def check(self, binding: Binding) -> None:
        """RabbitMQ's rules and texts: no key, and a classic queue at the end."""
        if binding.routing_key:
            raise PreconditionFailed(f"Non empty binding '{binding.routing_key}' key not permitted")
        is_to_queue = binding.destination_kind is DestinationKind.QUEUE
        found = self._host.queue_type(binding.destination) if is_to_queue else None
        if found is None:
            raise PreconditionFailed("Destination not found")
        if found != CLASSIC:
            raise PreconditionFailed(f"Queue type {found} not valid for this exchange type")

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(bindings)

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding | None:
        is_here = self._host.is_here
        here = [binding for binding in self._bindings if is_here(binding.destination)]
        return here[self._host.pick(len(here))] if here else None


class ModulusHash:
    """`x-modulus-hash`: messages with the same routing keys go the same way, which is RabbitMQ's.

    As by RabbitMQ 4.3, destinations are in the order of their names: it does not matter in which
    they were bound.
    """

    asks = MatchInput.KEYS

    __slots__ = ("_bindings",)

    def __init__(self) -> None:
        self._bindings: tuple[Binding, ...] = ()

    def check(self, binding: Binding) -> None:
        """Accept any binding key."""

    def arrange(self, bindings: Iterable[Binding]) -> None:
        self._bindings = tuple(sorted(bindings, key=_place))

    def choose(self, routing_keys: Sequence[str], properties: Properties | None) -> Binding:
        keys = [key.encode(errors="surrogateescape") for key in routing_keys]
        return self._bindings[hash_of_binaries(keys) % len(self._bindings)]


def _place(binding: Binding) -> tuple[str, bytes]:
    return (
        binding.destination_kind.value,
        binding.destination.encode(errors="surrogateescape"),
    )


class Candidate(NamedTuple):
    """A destination that would like to have the message."""

    seed: int
    """Hash of its name, 64 bits."""
    weight: int
    binding: Binding


class ConsistentHash:
    """A `Choice`.  If several bindings lead to one destination, their weights add up."""

    __slots__ = ("_header", "_property", "_rivals", "asks")

    def __init__(self, arguments: FieldTable) -> None:
        """Read the exchange's arguments, which have passed `check_arguments`."""
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
    """Waiting time for a weight of 1: exponentially distributed if `bits` are uniform.

    The bits are mixed once more (as the last step of SplitMix64 does it), since those of a key and
    of a destination are only laid one upon the other.
    """
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK_64
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK_64
    bits ^= bits >> 31
    return -log(((bits >> 11) + 0.5) / (1 << 53))


def hash_of_binaries(binaries: Sequence[bytes]) -> int:
    """`erlang:phash2(Binaries)`, in `range(RANGE)`; of at least one binary.

    It is Bob Jenkins' hash of 1996 (https://burtleburtle.net/bob/hash/evahash.html), 32 bits wide,
    of which the lowest 27 are given.  Each binary begins with what came out of the one before it,
    and the end of the list counts too.
    """
    state = 0
    for binary in binaries:
        state = _hashed(binary, (_BINARY + state) & _MASK_32)
    _, _, state = _mixed((_LIST_END + _NIL) & _MASK_32, _LIST_END, state)
    return state % RANGE


def _hashed(binary: bytes, state: int) -> int:
    """The empty binary leaves the state as it is."""
    if not binary:
        return state
    a = b = _GOLDEN
    whole_bytes = len(binary) - len(binary) % _BLOCK_BYTES
    for at in range(0, whole_bytes, _BLOCK_BYTES):
        a = a + _number(binary[at : at + 4]) & _MASK_32
        b = b + _number(binary[at + 4 : at + 8]) & _MASK_32
        state = state + _number(binary[at + 8 : at + 12]) & _MASK_32
        a, b, state = _mixed(a, b, state)
    rest = binary[whole_bytes:]
    a = a + _number(rest[:4]) & _MASK_32
    b = b + _number(rest[4:8]) & _MASK_32
    # the lowest octet is that of the length
    state = state + len(binary) + (_number(rest[8:]) << 8) & _MASK_32
    return _mixed(a, b, state)[2]


def _number(octets: bytes) -> int:
    return int.from_bytes(octets, "little")


def _mixed(a: int, b: int, c: int) -> tuple[int, int, int]:
    for right_a, left_b, right_c in ((13, 8, 13), (12, 16, 5), (3, 10, 15)):
        a = (a - b - c & _MASK_32) ^ c >> right_a
        b = (b - c - a & _MASK_32) ^ a << left_b & _MASK_32
        c = (c - a - b & _MASK_32) ^ b >> right_c
    return a, b, c
