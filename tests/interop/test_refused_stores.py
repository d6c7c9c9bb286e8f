"""Stores on which `fluffle serve` does not start: it prints what is wrong and where, exits with 1,
changes nothing."""

from __future__ import annotations

import subprocess
from pathlib import Path

import amqp
import pytest

from fluffle.broker.durability.fact_codec import encode_key
from fluffle.broker.metadata.change import Kind
from fluffle.storage.disk import WriteTransaction
from fluffle.storage.environment import DATA_FILE, STORE_FOLDER, open_environment
from fluffle.storage.layout import FORMAT, FORMAT_KEY, Table, catalog_key, format_value
from tests.support.daemon import COMMAND, Daemon, environment_for_nodes
from tests.support.deadlines import DEADLINE_S

FLUFFLE = COMMAND[:3]
QUEUE = "a queue with a name of its own"


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Data directory of a node that was killed when it had a durable queue with a message."""
    daemon = Daemon(tmp_path)
    daemon.start()
    with amqp.Connection(f"127.0.0.1:{daemon.port}", confirm_publish=True) as connection:
        channel = connection.channel()
        channel.queue_declare(QUEUE, durable=True, auto_delete=False)
        channel.basic_publish(amqp.Message("m", delivery_mode=2), routing_key=QUEUE)
    daemon.kill()
    return tmp_path


def fluffle(*arguments: object) -> tuple[int, str]:
    """Exit code and output of a command that ends by itself."""
    done = subprocess.run(
        [*FLUFFLE, *map(str, arguments)],
        env=environment_for_nodes(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def serve(data_dir: Path) -> tuple[int, str]:
    return fluffle("serve", "--listen", "127.0.0.1:0", "--data-dir", data_dir)


def data_of(data_dir: Path) -> bytes:
    return (data_dir / STORE_FOLDER / DATA_FILE).read_bytes()


def change(data_dir: Path, work: WriteTransaction) -> None:
    environment = open_environment(data_dir)
    environment.commit(work)
    environment.close()


def assert_refused(data_dir: Path, *texts: str) -> None:
    """Twice, because the first try must not have changed anything."""
    before = data_of(data_dir)
    for _ in range(2):
        code, output = serve(data_dir)
        assert code == 1
        assert output.count("\n") == 1, output
        assert [text for text in ("start_failed", *texts) if text not in output] == []
    assert data_of(data_dir) == before


def test_a_second_instance(data_dir: Path) -> None:
    with Daemon(data_dir) as first:
        code, output = serve(data_dir)
        assert code == 1
        assert f"another node (process {first.pid}) keeps its data in {data_dir}" in output
        with amqp.Connection(f"127.0.0.1:{first.port}") as connection:
            declared = connection.channel().queue_declare(QUEUE, passive=True)
            assert declared.message_count == 1


def test_a_newer_format(data_dir: Path) -> None:
    newer = WriteTransaction(puts=[(Table.SYSTEM, FORMAT_KEY, format_value(FORMAT + 1))])
    change(data_dir, newer)
    assert_refused(data_dir, f"has format {FORMAT + 1}", "nothing has been changed")


def test_a_corrupt_definition(data_dir: Path) -> None:
    file = data_dir / STORE_FOLDER / DATA_FILE
    data = data_of(data_dir)
    assert QUEUE.encode() in data
    file.write_bytes(data.replace(QUEUE.encode(), QUEUE.upper().encode()))
    assert_refused(data_dir, "corrupt: table catalog, queue", "do not match their checksum")
    code, output = fluffle("log", "verify", data_dir)
    assert code == 1
    assert "corrupt: table catalog, queue" in output


def test_a_definition_that_is_lost(data_dir: Path) -> None:
    key = catalog_key(Kind.VHOST, encode_key(("/",)))
    change(data_dir, WriteTransaction(removes=[(Table.CATALOG, key)]))
    assert_refused(data_dir, f"corrupt: catalog queue '{QUEUE}'", "there is no vhost '/'")


def test_what_is_there_is_shown(data_dir: Path) -> None:
    code, output = fluffle("log", "dump", data_dir)
    assert code == 0
    assert f"catalog queue '/' '{QUEUE}' auto_delete=False arguments={{}} groups=[1, 2]" in output
    assert "catalog user 'guest' tags=['administrator']" in output
    assert "catalog permission 'guest' '/' configure='.*' write='.*' read='.*'" in output
    assert "catalog vhost '/' max_connections=None" in output
    code, output = fluffle("log", "verify", data_dir)
    assert (code, output.split(", ")[1]) == (0, "0 damaged\n")
