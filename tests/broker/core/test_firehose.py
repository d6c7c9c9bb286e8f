"""The firehose: what it is silent about, and the order of copies."""

from collections.abc import Callable, Sequence

from fluffle.broker.core.firehose import Firehose
from fluffle.broker.queues.queue_api import DeliveryBatch, QueueHandle
from fluffle.broker.vhosts.vhost import TracedBatch, TracedClient, set_tracer
from fluffle.protocol.methods import Basic, Exchange, Queue, encode_method, make
from fluffle.protocol.properties import decode_properties
from fluffle.protocol.wire import Field
from tests.broker.admin.verb_harness import VerbHarness
from tests.support.edge import Client, Edge, publish_frames


def traced() -> tuple[Client, Client]:
    """Client that works, and client that traces it."""
    edge = Edge()
    edge.vhost.tracer = Firehose(edge.vhost, "node a")
    worker, watcher = edge.connect(), edge.connect()
    watcher.declare("watching")
    watcher.bind("watching", "amq.rabbitmq.trace", "#")
    return worker, watcher


def copies(watcher: Client) -> list[tuple[str, bytes, dict[str, Field]]]:
    """Take all of them: routing key, body, headers."""
    found: list[tuple[str, bytes, dict[str, Field]]] = []
    while True:
        watcher.send(encode_method(1, Basic.Get(queue="watching", no_ack=True)))
        arrival = watcher.take()
        if not isinstance(arrival.method, Basic.GetOk):
            return found
        headers = decode_properties(arrival.header[12:]).headers
        assert headers is not None
        found.append((arrival.method.routing_key or "", arrival.body, headers))


def test_copies_come_as_messages_were_published_and_delivered() -> None:
    worker, watcher = traced()
    worker.declare("q")
    worker.send(*(publish_frames(b"%d" % n, ("q", "none")[n % 2]) for n in range(6)))
    assert [(key, body) for key, body, _ in copies(watcher)] == [
        ("publish.", b"%d" % n) for n in range(6)
    ]
    worker.consume("q")
    found = copies(watcher)
    assert [(key, body) for key, body, _ in found] == [("deliver.q", b"%d" % n) for n in (0, 2, 4)]
    assert {headers["node"] for _, _, headers in found} == {("S", b"node a")}
    assert {headers["redelivered"] for _, _, headers in found} == {("I", 0)}


def test_what_is_drawn_is_copied_in_order_with_the_queue_that_got_it() -> None:
    worker, watcher = traced()
    worker.declare_exchange("x", "x-random")
    for queue in ("q0", "q1"):
        worker.declare(queue)
        worker.bind(queue, "x")
    worker.publish(*[b"%d" % n for n in range(20)], exchange="x", queue="k")
    found = copies(watcher)
    assert [body for _, body, _ in found] == [b"%d" % n for n in range(20)]
    queues = [headers["routed_queues"] for _, _, headers in found]
    assert {len(each[1]) for each in queues} == {1}  # type: ignore[arg-type]
    assert len({str(each) for each in queues}) == 2


def test_copies_are_not_copied() -> None:
    worker, watcher = traced()
    worker.publish(b"x", queue="none")
    watcher.consume("watching")
    assert [arrival.method.routing_key for arrival in watcher.arrivals()] == ["publish."]  # type: ignore[attr-defined]
    watcher.expect_nothing()


def test_they_go_on_to_exchanges_that_are_bound() -> None:
    worker, watcher = traced()
    worker.declare_exchange("recent", "x-recent-history")
    bind = make(
        Exchange.Bind, destination="recent", source="amq.rabbitmq.trace", routing_key="publish.#"
    )
    worker.call(bind, Exchange.BindOk)
    worker.publish(b"x", queue="none")
    copies(watcher)
    worker.call(
        make(Exchange.Unbind, destination="recent", source="amq.rabbitmq.trace",
             routing_key="publish.#"),
        Exchange.UnbindOk,
    )  # fmt: skip
    watcher.bind("watching", "recent")
    assert [body for _, body, _ in copies(watcher)] == [b"x"]


def test_a_command_switches_it() -> None:
    desk = VerbHarness()
    client = desk.edge.connect()
    client.declare("watching")
    client.bind("watching", "amq.rabbitmq.trace", "#")
    found = []
    for on in (False, True, True, False):
        desk.ask("vhosts.trace", name="/", on=on)
        assert [row["tracing"] for row in desk.rows("vhosts.list")] == [on]
        client.publish(b"x", queue="none")
        found.append(len(copies(client)))
    assert found == [0, 1, 1, 0]
    assert desk.refusal("vhosts.trace", name="none", on=True) == (
        "NOT_FOUND: vhost 'none' does not exist"
    )


class Count:
    """A `Tracer` that counts."""

    def __init__(self) -> None:
        self.published_count = self.delivered_count = self.purged_count = 0

    def published(
        self, client: TracedClient, routed_batches: Sequence[TracedBatch], more: Sequence[str]
    ) -> None:
        self.published_count += sum(len(each.contents) for each in routed_batches)

    def delivered(
        self, client: TracedClient, delivery_batch: DeliveryBatch, first_tag: int
    ) -> None:
        self.delivered_count += len(delivery_batch.contents)

    def purging(self, client: TracedClient, queue: QueueHandle) -> Callable[[], None]:
        return self._purged

    def _purged(self) -> None:
        self.purged_count += 1


def test_several_taps_see_the_same_and_know_nothing_of_each_other() -> None:
    worker, watcher = traced()
    vhost, count = worker.edge.vhost, Count()
    set_tracer(vhost, "firehose", Firehose(vhost, "node a"))
    set_tracer(vhost, "count", count)
    worker.declare("q")
    worker.call(make(Queue.Purge, queue="q"), Queue.PurgeOk)
    worker.publish(b"1", queue="q")
    worker.consume("q")
    assert (count.published_count, count.delivered_count, count.purged_count) == (1, 1, 1)
    assert [key for key, _, _ in copies(watcher)] == ["publish.", "deliver.q"]
    set_tracer(vhost, "firehose", None)
    worker.publish(b"2", queue="q")
    assert (count.published_count, copies(watcher)) == (2, [])
    set_tracer(vhost, "count", None)
    assert vhost.tracer is None
