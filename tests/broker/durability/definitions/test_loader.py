"""What is on disk as an image, in order; what does not fit together is damage."""

from __future__ import annotations

import pytest

from fluffle.broker.access.limits import VhostSettings
from fluffle.broker.access.permissions import Permission
from fluffle.broker.access.users import User
from fluffle.broker.durability.definitions.fact_codec import encode, encode_key
from fluffle.broker.durability.definitions.image import FirstStart, Image
from fluffle.broker.durability.definitions.loader import read_image
from fluffle.broker.metadata.facts import Key, Kind
from fluffle.broker.queues.arguments import QueueSpec
from fluffle.broker.queues.journal import QueueDefinition
from fluffle.broker.routing.bindings import Binding, DestinationKind, binding_key
from fluffle.broker.routing.exchange import ExchangeSpec
from fluffle.storage.errors import Corrupt

Fact = tuple[Kind, Key, object]


def image_of(*facts: Fact) -> Image:
    definitions: dict[str, list[tuple[bytes, bytes]]] = {}
    for kind, key, value in facts:
        definitions.setdefault(kind, []).append((encode_key(key), encode(kind, value)))
    return read_image(definitions)


def vhost(name: str) -> Fact:
    return Kind.VHOST, (name,), VhostSettings()


def queue(name: str) -> Fact:
    return Kind.QUEUE, ("v", name), QueueDefinition(QueueSpec(name, durable=True), (1, 2))


def exchange(name: str) -> Fact:
    return Kind.EXCHANGE, ("v", name), ExchangeSpec(name, durable=True)


def binding(source: str, kind: DestinationKind, destination: str) -> Fact:
    made = Binding(source, destination, kind, "")
    return Kind.BINDING, binding_key("v", made), made


def test_nothing_is_a_first_start() -> None:
    assert image_of() == Image()
    assert Image().first_start is None
    made = FirstStart(("u", "w"), ("v",))
    assert image_of((Kind.STARTED, (), made)).first_start == made


def test_what_an_earlier_version_made_at_a_first_start_is_not_known() -> None:
    written = [(encode_key(()), b"\x01\xc0")]
    assert read_image({str(Kind.STARTED): written}).first_start == FirstStart()


def test_everything_is_in_the_order_of_its_name() -> None:
    image = image_of(
        *(vhost(name) for name in ("w", "v")),
        *(queue(name) for name in ("r", "q")),
        *(exchange(name) for name in ("y", "x")),
        *(binding("x", DestinationKind.QUEUE, name) for name in ("r", "q")),
        *((Kind.USER, (name,), User(name)) for name in ("zoë", "anna")),
        *((Kind.PERMISSION, (name, "v"), Permission()) for name in ("zoë", "anna")),
        *((Kind.POLICY, ("v", name), {"name": name}) for name in ("p", "o")),
    )
    found = image.vhosts["v"]
    assert list(image.vhosts) == ["v", "w"]
    assert [queue.spec.name for queue in found.queues] == ["q", "r"]
    assert [spec.name for spec in found.exchanges] == ["x", "y"]
    assert [made.destination for made in found.bindings] == ["q", "r"]
    assert list(image.tables.users) == ["anna", "zoë"]
    assert list(image.tables.permissions) == [("anna", "v"), ("zoë", "v")]
    assert [entry["name"] for entry in image.kept[Kind.POLICY].values()] == ["o", "p"]


QUEUE, EXCHANGE = DestinationKind.QUEUE, DestinationKind.EXCHANGE


@pytest.mark.parametrize(
    ("facts", "damage"),
    [
        ([queue("q")], "catalog queue 'q': there is no vhost 'v'"),
        ([(Kind.DOOMED, ("v",), None)], "catalog doomed 'v': there is no such vhost"),
        ([exchange("x")], "catalog exchange 'x': there is no vhost 'v'"),
        (
            [vhost("v"), queue("q"), binding("x", QUEUE, "q")],
            "catalog binding from 'x' to 'q': there is no exchange 'x'",
        ),
        (
            [vhost("v"), exchange("q"), binding("amq.topic", QUEUE, "q")],
            "catalog binding from 'amq.topic' to 'q': there is no queue 'q'",
        ),
        (
            [vhost("v"), queue("q"), binding("amq.topic", EXCHANGE, "q")],
            "catalog binding from 'amq.topic' to 'q': there is no exchange 'q'",
        ),
    ],
)
def test_what_stands_in_nothing_is_damage(facts: list[Fact], damage: str) -> None:
    with pytest.raises(Corrupt, match=f"^corrupt: {damage}$"):
        image_of(*facts)
