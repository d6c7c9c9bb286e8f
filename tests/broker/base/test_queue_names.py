"""Names of the queues of clients' sessions, and whose a queue of such a name is."""

from hashlib import sha256

from hypothesis import given
from hypothesis import strategies as st

from fluffle.broker.base.queue_names import clients_of, shared_queue, subscription_queue

IDS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=300)


def test_queues_of_a_session_are_named_by_its_client() -> None:
    assert subscription_queue("meter 7", 0) == "mqtt-subscription-meter 7qos0"
    assert subscription_queue("meter 7", 1) == "mqtt-subscription-meter 7qos1"
    assert subscription_queue("meter 7", 2) == "mqtt-subscription-meter 7qos1"


def test_the_longest_name_is_not_shortened() -> None:
    name = subscription_queue("x" * (255 - 18 - 4), 1)
    assert name == f"mqtt-subscription-{'x' * 233}qos1"
    longer = subscription_queue("x" * 234, 1)
    digest = sha256(b"x" * 234).hexdigest()[:32]
    assert longer == f"mqtt-subscription-{'x' * 200}~{digest}qos1"
    assert len(longer) == 255


def test_a_client_that_is_called_like_a_digest_has_a_queue_of_its_own() -> None:
    victim = subscription_queue("x" * 300, 1)
    thief = victim.removeprefix("mqtt-subscription-").removesuffix("qos1")
    assert subscription_queue(thief, 1) != victim


@given(st.lists(IDS, min_size=2, max_size=2, unique=True))
def test_each_client_has_its_queues(clients: list[str]) -> None:
    names = {subscription_queue(client, qos) for client in clients for qos in (0, 1)}
    assert len(names) == 4
    assert max(len(name.encode()) for name in names) <= 255


@given(st.lists(IDS | IDS.map(lambda each: each * 30), unique=True), st.data())
def test_a_client_is_found_by_the_names_of_its_queues(
    clients: list[str], data: st.DataObject
) -> None:
    some = [each for each in clients if data.draw(st.booleans())]
    names = [subscription_queue(each, data.draw(st.sampled_from([0, 1]))) for each in some]
    assert sorted(clients_of(names, clients)) == sorted(some)


def test_what_is_named_like_a_queue_of_a_client_is_not_always_one() -> None:
    digest = subscription_queue("x" * 300, 1).removeprefix("mqtt-subscription-")
    clients = ["c", "", "x" * 300, digest.removesuffix("qos1")]
    names = [shared_queue("c", "a"), "mqtt-subscription-c", "mqtt-subscription-cqos2", "cqos1"]
    assert clients_of(names, clients) == []
    assert clients_of(["mqtt-subscription-qos0", f"mqtt-subscription-{digest}"], clients) == [
        "",
        "x" * 300,
    ]
