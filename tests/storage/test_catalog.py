"""The catalog: definitions by kind and name, in the same commits as everything else."""

from fluffle.storage.batch import Batch
from fluffle.storage.catalog import SLICE
from tests.storage.support import Host


def definitions(host: Host, kind: str) -> dict[bytes, bytes]:
    return dict(host.store.catalog.items(kind))


def test_definitions_are_found_by_kind(host: Host) -> None:
    batch = Batch()
    batch.put("queue", b"orders", b"durable")
    batch.put("queues", b"orders", b"another kind")
    batch.put("user", b"guest", b"hash")
    host.submit(batch)
    assert definitions(host, "queue") == {}
    host.settle()
    host.restart()
    assert definitions(host, "queue") == {b"orders": b"durable"}
    assert definitions(host, "user") == {b"guest": b"hash"}
    assert definitions(host, "vhost") == {}


def test_the_last_word_counts_within_a_batch_and_over_batches(host: Host) -> None:
    first, second = Batch(), Batch()
    first.put("queue", b"a", b"1")
    first.remove("queue", b"a")
    first.put("queue", b"b", b"1")
    first.put("queue", b"c", b"1")
    second.put("queue", b"a", b"2")
    second.put("queue", b"b", b"2")
    second.remove("queue", b"c")
    for batch in (first, second):
        host.store.submit(batch)
    host.store.flush()
    host.settle()
    assert definitions(host, "queue") == {b"a": b"2", b"b": b"2"}
    host.submit(first)
    host.settle()
    assert definitions(host, "queue") == {b"b": b"1", b"c": b"1"}


def test_definitions_and_entries_are_durable_together(host: Host) -> None:
    batch = Batch()
    batch.put("queue", b"orders", b"durable")
    batch.append(1, 1, b"message")
    host.submit(batch, "both")
    host.restart()
    assert (definitions(host, "queue"), host.indexes(1)) == ({}, [])
    host.submit(batch, "both")
    host.settle()
    host.restart()
    assert (definitions(host, "queue"), host.indexes(1)) == ({b"orders": b"durable"}, [1])


def test_more_than_a_slice(host: Host) -> None:
    batch = Batch()
    expected = {b"queue %d" % number: b"%d" % number for number in range(2 * SLICE + 1)}
    for name, value in expected.items():
        batch.put("queue", name, value)
    host.submit(batch)
    host.settle()
    assert definitions(host, "queue") == expected


def test_an_empty_batch_is_false() -> None:
    batch = Batch()
    assert not batch
    batch.remove("queue", b"a")
    assert batch
