"""Alarms: what blocked clients are told, and who hears of changes."""

from fluffle.broker.alarms.alarms import Alarms


def test_the_reason_names_every_resource_that_is_low() -> None:
    alarms = Alarms()
    assert alarms.reason == ""
    alarms.set("memory", low=True)
    assert alarms.reason == "low on memory"
    alarms.set("disk", low=True)
    assert alarms.reason == "low on disk & memory"
    alarms.set("memory", low=False)
    assert alarms.reason == "low on disk"
    alarms.set("disk", low=False)
    assert alarms.reason == ""


def test_listeners_hear_of_changes_only() -> None:
    alarms, heard = Alarms(), list[str]()

    def listener() -> None:
        heard.append(alarms.reason)

    alarms.listen(listener)
    alarms.set("disk", low=False)
    alarms.set("disk", low=True)
    alarms.set("disk", low=True)
    alarms.set("disk", low=False)
    assert heard == ["low on disk", ""]
    alarms.unlisten(listener)
    alarms.unlisten(listener)
    alarms.set("disk", low=True)
    assert heard == ["low on disk", ""]


def test_a_listener_may_leave_while_it_is_told() -> None:
    alarms, heard = Alarms(), list[str]()

    def leave() -> None:
        heard.append("leaves")
        alarms.unlisten(leave)

    alarms.listen(leave)
    alarms.listen(lambda: heard.append("stays"))
    alarms.set("memory", low=True)
    alarms.set("memory", low=False)
    assert heard == ["leaves", "stays", "stays"]
