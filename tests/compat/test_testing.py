"""Tests that are written for fluffle, run against RabbitMQ by `--amqp-broker`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.compat.oracle import RabbitMQ, free_port
from tests.support.certificates import Authority

pytest_plugins = ("pytester",)
pytestmark = pytest.mark.compat

ORACLE = pytest.mark.oracle("broker/testing")

SUITE = """
import pika
import pytest

QUEUES = [
    {"name": "orders", "durable": True},
    {"name": "safe", "durable": True, "arguments": {"x-queue-type": "quorum"}},
]
pytestmark = pytest.mark.amqp(
    definitions={"queues": QUEUES},
    users={"app": "secret"},
    permissions={"app": ("", ".*", ".*")},
)

def test_rights(amqp):
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().queue_declare("mine")
    assert set(amqp.queues()) == {"orders", "safe"}

@pytest.mark.parametrize("queue", ["orders", "safe"])
def test_counts(amqp, queue):
    for body in (b"1", b"2", b"3"):
        amqp.publish("", queue, body, headers={"try": 1}, priority=4, type="order")
    amqp.expect(queue, count=3, ready=3)
    held = amqp.get(queue)
    assert (held.body, held.headers, held.redelivered) == (b"1", {"try": 1}, False)
    assert (held.properties["priority"], held.properties["type"]) == (4, "order")
    amqp.expect(queue, ready=2, unacked=1)
    held.reject(requeue=True)
    amqp.expect(queue, count=3, unacked=0)
    assert [each.body for each in amqp.consume(queue, count=2)] == [b"1", b"2"]
    amqp.expect(queue, count=1)
    assert amqp.purge(queue) == 1
    amqp.expect(queue, count=0)

def test_messages(amqp):
    amqp.publish("", "orders", b'{"number": 7}', headers={"try": 1}, content_type="x")
    amqp.publish("", "orders", b"\\xff")
    first, second = amqp.messages("orders")
    assert first.json() == {"number": 7}
    assert (first.headers, first.properties["content_type"]) == ({"try": 1}, "x")
    assert (second.body, second.routing_key) == (b"\\xff", "orders")
    amqp.expect("orders", ready=2)

def test_what_is_not_so(amqp):
    with pytest.raises(AssertionError, match="there is no queue 'missing' after 0.1 s, but: 'o"):
        amqp.expect("missing", count=1, within=0.1)
    with pytest.raises(AssertionError, match="has not had 1 ready within 0.1 s; it has .*0 ready"):
        amqp.expect("orders", ready=1, within=0.1)
    with pytest.raises(AssertionError, match="gave 0 of 1 messages within 0.1 s"):
        amqp.get("orders", within=0.1)
    with pytest.raises(AssertionError, match="no queue takes what is published to exchange ''"):
        amqp.publish("", "missing", b"")
    amqp.publish("", "orders", b"")
    amqp.expect("orders", ready=1)

@pytest.mark.asyncio
async def test_coroutine(amqp):
    await amqp.publish("", "orders", b"1")
    await amqp.expect("orders", ready=1)
    assert [each.body for each in await amqp.consume("orders")] == [b"1"]
"""

LACKING = """
import pytest

def test_the_clock(amqp):
    amqp.advance(minutes=1)

def test_the_clock_of_the_broker(amqp_broker):
    amqp_broker.clock.advance(minutes=1)

def test_faults(amqp):
    amqp.faults.cut_after(10)

def test_a_cluster(amqp_cluster):
    pass

@pytest.mark.asyncio
async def test_coroutine(amqp):
    await amqp.explain("", "orders")
"""


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {"management": free_port(), "amqps": free_port()}


@pytest.fixture(scope="module")
def rabbitmq(
    tmp_path_factory: pytest.TempPathFactory, authority: Authority, ports: dict[str, int]
) -> Iterator[RabbitMQ]:
    """With its management API."""
    config = f"""
        management.tcp.ip = 127.0.0.1
        management.tcp.port = {ports["management"]}
        listeners.ssl.1 = 127.0.0.1:{ports["amqps"]}
        ssl_options.cacertfile = {authority.ca_file}
        ssl_options.certfile = {authority.cert_file}
        ssl_options.keyfile = {authority.key_file}
        ssl_options.verify = verify_none
    """
    folder = tmp_path_factory.mktemp("rabbitmq")
    with RabbitMQ(folder, config, "rabbitmq_management") as node:
        yield node


def run(pytester: pytest.Pytester, *words: str) -> pytest.RunResult:
    return pytester.runpytest_subprocess("-W", "ignore::pytest.PytestWarning", *words)


@ORACLE
def test_tests_for_fluffle_run_against_rabbitmq(
    pytester: pytest.Pytester, rabbitmq: RabbitMQ, ports: dict[str, int]
) -> None:
    pytester.makepyfile(test_suite=SUITE, test_lacking=LACKING)
    result = run(
        pytester,
        "-rs",
        f"--amqp-broker=external://guest:guest@127.0.0.1:{rabbitmq.port}",
        f"--amqp-management=http://127.0.0.1:{ports['management']}",
    )
    result.assert_outcomes(passed=6, skipped=5)
    needed = ("advance", "clock.advance", "faults.cut_after", "amqp_cluster", "explain")
    result.stdout.fnmatch_lines_random([f"*needs fluffle: {name}" for name in needed])
    assert rabbitmq.ctl("list_vhosts", "--silent").split() == ["/"]
    assert "app" not in rabbitmq.ctl("list_users", "--silent")


def test_and_against_fluffle(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_suite=SUITE)
    run(pytester).assert_outcomes(passed=6)


@ORACLE
@pytest.mark.usefixtures("rabbitmq")
def test_a_broker_may_be_reached_by_tls(
    pytester: pytest.Pytester,
    authority: Authority,
    ports: dict[str, int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    pytester.makepyfile(
        """
        def test_it(amqp):
            assert amqp.url.startswith("amqps://")
            amqp.expect("amq.gen", ready=0, within=0)
        """
    )
    result = run(
        pytester,
        "-rf",
        f"--amqp-broker=amqps://guest:guest@localhost:{ports['amqps']}",
        f"--amqp-management=http://127.0.0.1:{ports['management']}",
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*there is no queue 'amq.gen' after 0 s, but: none"])
