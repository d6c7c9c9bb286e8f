"""vhosts.* at the desk."""

from tests.broker.control.desk import Desk


def test_a_virtual_host_comes_and_goes() -> None:
    desk = Desk()
    desk.ask("vhosts.add", name="orders")
    assert desk.rows("vhosts.list")[1] == {
        "name": "orders",
        "metadata": {},
        "queues": 0,
        "connections": 0,
        "max_connections": None,
        "max_queues": None,
    }
    assert desk.refusal("vhosts.add", name="orders") == (
        "PRECONDITION_FAILED: vhost 'orders' already exists"
    )
    desk.ask("vhosts.delete", name="orders")
    assert [row["name"] for row in desk.rows("vhosts.list")] == ["/"]


def test_deleting_one_closes_its_connections() -> None:
    desk = Desk()
    client = desk.edge.connect()
    client.declare("q")
    row = desk.rows("vhosts.list")[0]
    assert (row["queues"], row["connections"]) == (1, 1)
    desk.ask("vhosts.delete", name="/")
    client.expect_closed(320, "CONNECTION_FORCED - vhost '/' is deleted")
    assert desk.rows("permissions.list") == []


def test_limits_hold_at_once() -> None:
    desk = Desk()
    client = desk.edge.connect()
    desk.ask("vhosts.limits", name="/", limits={"max-queues": 1})
    client.declare("one")
    row = desk.rows("vhosts.list")[0]
    assert (row["max_connections"], row["max_queues"]) == (None, 1)
    desk.ask("vhosts.limits", name="/", limits={"max-queues": None})
    client.declare("two")


def test_refusals() -> None:
    desk = Desk()
    absent = "NOT_FOUND: vhost 'v' does not exist"
    assert desk.refusal("vhosts.delete", name="v") == absent
    assert desk.refusal("vhosts.limits", name="v", limits={}) == absent
    assert desk.refusal("queues.list", vhost="v") == absent
    assert "1 to 255 bytes" in desk.refusal("vhosts.add", name="")
    assert "there is no limit 'x'" in desk.refusal("vhosts.limits", name="/", limits={"x": 1})
