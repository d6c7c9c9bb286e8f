"""From what is on disk to an image of it.

Everything is in the order of its name.  Whatever stands in something that is not there is damage:
facts are written in the order in which they became true, and removed together.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from fluffle.broker.durability.definitions.fact_codec import decode
from fluffle.broker.durability.definitions.image import KEPT, Image, VhostImage
from fluffle.broker.metadata.facts import Key, Kind
from fluffle.broker.routing.bindings import Binding, DestinationKind
from fluffle.broker.routing.exchange import PREDECLARED
from fluffle.storage.errors import Corrupt

Definitions: TypeAlias = Mapping[str, Sequence[tuple[bytes, bytes]]]
"""Names and values as they are on disk, by kind."""


def read_image(definitions: Definitions) -> Image:
    """Raises `Corrupt`, and `StorageError` for what a later version wrote."""
    image = Image()
    for _, first_start in _facts(definitions, Kind.STARTED):
        image.first_start = first_start
    tables = image.tables
    tables.users.update((user.name, user) for _, user in _facts(definitions, Kind.USER))
    tables.permissions.update(_facts(definitions, Kind.PERMISSION))
    tables.topic_permissions.update(_facts(definitions, Kind.TOPIC_PERMISSION))
    for (name,), settings in _facts(definitions, Kind.VHOST):
        image.vhosts[name] = VhostImage(settings)
    for (name,), _ in _facts(definitions, Kind.DOOMED):
        if name not in image.vhosts:
            raise Corrupt(f"catalog {Kind.DOOMED} {name!r}", "there is no such vhost")
        image.doomed.append(name)
    for key, exchange in _facts(definitions, Kind.EXCHANGE):
        _vhost(image, Kind.EXCHANGE, key).exchanges.append(exchange)
    for key, queue in _facts(definitions, Kind.QUEUE):
        _vhost(image, Kind.QUEUE, key).queues.append(queue._replace(successor=None))
    for key, binding in _facts(definitions, Kind.BINDING):
        _vhost(image, Kind.BINDING, key).bindings.append(binding)
    for vhost in image.vhosts.values():
        _check_bindings(vhost)
    for kind in KEPT:
        image.kept[kind].update(_facts(definitions, kind))
    return image


def _facts(definitions: Definitions, kind: Kind) -> Iterator[tuple[Any, Any]]:
    facts = [decode(kind, name, value) for name, value in definitions.get(kind, ())]
    return iter(sorted(facts, key=lambda fact: fact[0]))


def _vhost(image: Image, kind: Kind, key: Key) -> VhostImage:
    vhost = image.vhosts.get(str(key[0]))
    if vhost is None:
        raise Corrupt(f"catalog {kind} {key[1]!r}", f"there is no vhost {key[0]!r}")
    return vhost


def _check_bindings(vhost: VhostImage) -> None:
    exchanges = {spec.name for spec in (*PREDECLARED, *vhost.exchanges)}
    queues = {queue.spec.name for queue in vhost.queues}
    for binding in vhost.bindings:
        is_queue = binding.destination_kind is DestinationKind.QUEUE
        if binding.source not in exchanges:
            raise _dangling(binding, f"there is no exchange '{binding.source}'")
        if binding.destination not in (queues if is_queue else exchanges):
            kind = binding.destination_kind.value
            raise _dangling(binding, f"there is no {kind} '{binding.destination}'")


def _dangling(binding: Binding, why: str) -> Corrupt:
    where = f"catalog binding from '{binding.source}' to '{binding.destination}'"
    return Corrupt(where, why)
