"""An operator of a crash run: users, virtual hosts and rights come and go by the control socket.

To the checker each is a thing that is declared and deleted, as a queue is.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from random import Random

from fluffle.broker.cli.client import LocalClient as ControlClient
from fluffle.broker.torture.history import (
    Clearing,
    ClearingAsked,
    ClearingDone,
    DeclareAsked,
    Declared,
    Looked,
    Note,
)
from fluffle.protocol.methods import Basic, Queue, make
from fluffle.protocol.properties import Properties
from tests.support.client import Client, Closed

USERS = ("crash.alice", "crash.bob")
VHOSTS = ("crash.one", "crash.two")
EVERYTHING = {"configure": ".*", "write": ".*", "read": ".*"}


def user(name: str) -> str:
    return f"user {name}"


def vhost(name: str) -> str:
    return f"vhost {name}"


def permission(name: str, in_vhost: str) -> str:
    return f"permission of {name} in {in_vhost}"


THINGS = (
    *map(user, USERS),
    *map(vhost, VHOSTS),
    *(permission(name, each) for name in USERS for each in VHOSTS),
)


class Operator:
    """Operator of a node over its control socket, who writes down what is done."""

    def __init__(self, data_dir: Path, port: int, note: Note, random: Random) -> None:
        self._client = ControlClient(data_dir)
        self._port = port
        self._note = note
        self._random = random

    def work(self) -> None:
        """Until the node is gone: click's exceptions then."""
        with self._client:
            while True:
                self._change_user(self._random.choice(USERS), self.look())
                self._change_vhost(self._random.choice(VHOSTS), self.look())

    def clear(self) -> None:
        """Delete all virtual hosts of ours."""
        with self._client:
            there = self.look()
            for name in VHOSTS:
                if vhost(name) in there:
                    self._delete_vhost(name)

    def look(self) -> set[str]:
        """Names of the objects that exist."""
        rows = self._client.rows
        there = {user(row["user"]) for row in rows("users.list")}
        there |= {vhost(row["name"]) for row in rows("vhosts.list")}
        there |= {permission(row["user"], row["vhost"]) for row in rows("permissions.list")}
        for thing in THINGS:
            self._note(Looked(thing, found=thing in there))
        return there

    def _change_user(self, name: str, there: set[str]) -> None:
        if user(name) not in there:
            with self._making(user(name)):
                self._client.call("users.add", name=name)
        elif self._random.random() < 0.3:
            with self._deleting(user(name), *(permission(name, each) for each in VHOSTS)):
                self._client.call("users.delete", name=name)

    def _change_vhost(self, name: str, there: set[str]) -> None:
        if vhost(name) not in there:
            with self._making(vhost(name)):
                self._client.call("vhosts.add", name=name)
            self._client.call("permissions.set", user="guest", vhost=name, **EVERYTHING)
            fill(self._port, name)
        elif self._random.random() < 0.3:
            self._delete_vhost(name)
        else:
            self._change_permission(self._random.choice(USERS), name, there)

    def _change_permission(self, name: str, in_vhost: str, there: set[str]) -> None:
        thing = permission(name, in_vhost)
        if user(name) not in there:
            return
        if thing not in there:
            with self._making(thing):
                self._client.call("permissions.set", user=name, vhost=in_vhost, **EVERYTHING)
        else:
            with self._deleting(thing):
                self._client.call("permissions.clear", user=name, vhost=in_vhost)

    def _delete_vhost(self, name: str) -> None:
        with self._deleting(vhost(name), *(permission(each, name) for each in USERS)):
            self._client.call("vhosts.delete", name=name)

    @contextmanager
    def _making(self, thing: str) -> Iterator[None]:
        self._note(DeclareAsked(thing))
        yield
        self._note(Declared(thing))

    @contextmanager
    def _deleting(self, *things: str) -> Iterator[None]:
        for thing in things:
            self._note(ClearingAsked(thing, Clearing.DELETE))
        yield
        for thing in things:
            self._note(ClearingDone(thing, Clearing.DELETE))


def fill(port: int, in_vhost: str) -> None:
    """Leave messages in a durable queue: they go with the virtual host."""
    with Client("127.0.0.1", port) as client, suppress(Closed):
        client.open(vhost=in_vhost)
        client.channel(1)
        client.call(1, make(Queue.Declare, queue="left", durable=True))
        for _ in range(20):
            client.publish(1, "", "left", b"left", Properties(delivery_mode=2))
        client.call(1, make(Basic.Qos))
