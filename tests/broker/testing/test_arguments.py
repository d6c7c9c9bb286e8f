"""Requirements of a test for its virtual host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pika
import pytest

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.testing.arguments import VhostRequirements, requirements_of
from fluffle.broker.testing.threaded import BlockingVhost, ThreadedBroker
from tests.support.inner_pytest import run_pytest

pytest_plugins = ("pytester",)

DEFINITIONS: dict[str, Any] = {
    "rabbit_version": "4.0.5",
    "users": [{"name": "other", "password": "x", "tags": ""}],
    "vhosts": [{"name": "/"}],
    "exchanges": [{"vhost": "/", "name": "events", "type": "topic", "durable": True}],
    "queues": [{"vhost": "/", "name": "orders", "durable": True, "arguments": {}}],
    "bindings": [
        {
            "vhost": "/",
            "source": "events",
            "destination": "orders",
            "destination_type": "queue",
            "routing_key": "order.*",
            "arguments": {},
        }
    ],
}


@pytest.mark.amqp(
    users={"app": "a/b", "reader": "r"},
    permissions={"app": ("^app", ".*", ".*"), "guest": ("", "", ".*")},
)
def test_users_have_their_rights(amqp: BlockingVhost) -> None:
    assert list(amqp.urls) == ["app", "reader", "guest"]
    assert amqp.url == amqp.urls["app"]
    assert "app:a%2Fb@" in amqp.url
    with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
        connection.channel().queue_declare("app.orders")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            connection.channel().queue_declare("orders")
    with pika.BlockingConnection(pika.URLParameters(amqp.urls["guest"])) as connection:
        channel = connection.channel()
        channel.basic_publish("", "app.orders", b"")
        with pytest.raises(pika.exceptions.ChannelClosedByBroker, match="ACCESS_REFUSED"):
            channel.queue_declare("app.orders", passive=False)


@pytest.mark.parametrize("_time", range(2))
@pytest.mark.amqp(users={"app": "secret"})
def test_users_go_with_their_virtual_host(
    amqp: BlockingVhost, amqp_broker: ThreadedBroker, _time: int
) -> None:
    assert set(amqp_broker.broker.node.catalogue.access.users) == {"guest", "app"}


@pytest.mark.amqp(definitions=DEFINITIONS)
class TestDefinitions:
    def test_they_are_made_in_the_fresh_virtual_host(self, amqp: BlockingVhost) -> None:
        amqp.publish("events", "order.new", b"first")
        assert amqp.messages("orders")[0].body == b"first"

    @pytest.mark.amqp(default_queue_type="quorum")
    def test_marks_of_class_and_function_count_together(self, amqp: BlockingVhost) -> None:
        with pika.BlockingConnection(pika.URLParameters(amqp.url)) as connection:
            connection.channel().queue_declare("new", durable=True)
        assert amqp.queues()["new"]["type"] == "quorum"
        assert "orders" in amqp.queues()

    @pytest.mark.amqp(definitions=None)
    def test_what_is_closest_counts(self, amqp: BlockingVhost) -> None:
        assert amqp.queues() == {}


def test_definitions_may_be_a_file_and_of_one_virtual_host_only(tmp_path: Path) -> None:
    file = tmp_path / "definitions.json"
    file.write_text(json.dumps(DEFINITIONS))
    assert [*VhostRequirements(definitions=file).entries()] == ["exchanges", "queues", "bindings"]
    file.write_text(json.dumps({"queues": [{"vhost": "a", "name": "q"}, {"vhost": "b"}]}))
    with pytest.raises(ValueError, match="more than one virtual host: 'a', 'b'"):
        VhostRequirements(definitions=file).entries()


def test_what_cannot_be_made_leaves_nothing(amqp_broker: ThreadedBroker) -> None:
    node = amqp_broker.broker.node
    vhosts, users = set(node.catalogue.vhosts), set(node.catalogue.access.users)
    odd = {"name": "q", "arguments": {"x-queue-type": "odd"}}
    for wanted, why in (
        (VhostRequirements(users={"new": "x", "guest": "x"}), "has users of these names: guest"),
        (
            VhostRequirements(users={"new": "x"}, default_queue_type="odd"),
            "Unsupported queue type: odd",
        ),
        (
            VhostRequirements(users={"new": "x"}, definitions={"queues": [odd]}),
            "of the definitions is skipped",
        ),
    ):
        with pytest.raises(PreconditionFailed, match=why):
            amqp_broker.add_vhost("odd", wanted)
        assert (set(node.catalogue.vhosts), set(node.catalogue.access.users)) == (vhosts, users)


def test_an_argument_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(TypeError, match=r"no argument 'user', but users: names with passwords"):
        requirements_of([{"user": {"app": "secret"}}])


def test_unknown_arguments_fail_the_test_or_the_session(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        test_marks="""
        import pytest

        @pytest.mark.amqp(user={})
        def test_unknown(amqp):
            pass

        @pytest.mark.amqp({"app": "secret"})
        def test_without_a_name(amqp):
            pass
        """,
        test_config="""
        import pytest

        @pytest.fixture(scope="session")
        def amqp_broker_config():
            return {"port": 5672}

        def test_it(amqp):
            pass
        """,
    )
    result = run_pytest(pytester, "-q", "--strict-markers", "test_marks.py")
    result.assert_outcomes(errors=2)
    result.stdout.fnmatch_lines_random(
        [
            "*has no argument 'user', but users: names with passwords*",
            "*have names, unlike {'app': 'secret'}",
        ]
    )
    result = run_pytest(pytester, "-q", "test_config.py")
    result.assert_outcomes(errors=1)
    result.stdout.fnmatch_lines(["amqp_broker_config has 'port', which is none of config, *"])


@pytest.mark.parametrize("said", ["Config(LOOPBACK, product='mine')", "{'users': {'me': 'x'}}"])
def test_the_broker_of_the_session_is_made_as_its_fixture_says(
    pytester: pytest.Pytester, said: str
) -> None:
    pytester.makeconftest(
        f"""
        import pytest
        from functools import partial
        from fluffle.broker.config.config import Config as Made
        from fluffle.broker.testing.broker import LOOPBACK as listen

        LOOPBACK = None

        def Config(_, **named):
            return Made(listen=listen, **named)

        @pytest.fixture(scope="session")
        def amqp_broker_config():
            return {said}
        """
    )
    pytester.makepyfile(
        """
        def test_it(amqp, amqp_broker):
            node = amqp_broker.broker.node
            users = set(node.catalogue.access.users)
            assert (node.parts.config.product, users) in (("mine", {"guest"}), ("RabbitMQ", {"me"}))
        """
    )
    run_pytest(pytester, "-q").assert_outcomes(passed=1)
