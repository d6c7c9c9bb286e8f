"""`ExternalBroker`: as a `ThreadedBroker`, as far as that goes.

Virtual hosts come and go by the management API.  What only fluffle can do (move a clock, cut a
connection, tell a history) is `UnsupportedFeature`: whoever runs the tests says what becomes of
one that uses it.
"""

from __future__ import annotations

from collections.abc import Set
from types import TracebackType
from typing import NamedTuple, Self, cast

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.testing.external.management import Management
from fluffle.broker.testing.external.vhost import ExternalVhost, Lacks, UnsupportedFeature
from fluffle.broker.testing.loop_thread import LoopThread
from fluffle.broker.testing.requirements import NOTHING_SPECIAL, VhostRequirements
from fluffle.broker.testing.threaded import BlockingVhost
from fluffle.broker.testing.urls import address_of, amqp_url
from fluffle.broker.testing.vhost import Vhost

MANAGEMENT_PORT = 15672


class CreatedVhost(NamedTuple):
    """A virtual host that was not there before."""

    wanted: VhostRequirements
    users: list[str]
    """Those of it that were not there before either: they go with it."""


class ExternalBroker:
    """From when it is entered until it is left; then the virtual hosts that it made are gone."""

    def __init__(self, url: str, management_url: str, lacks: Lacks) -> None:
        """`management_url` may be empty: the usual port of the same host.  ValueError."""
        self._address = at = address_of(url)
        self._authority = f"[{at.host}]" if ":" in at.host else at.host
        self._management = Management(
            management_url or f"http://{self._authority}:{MANAGEMENT_PORT}", at.user, at.password
        )
        self._lacks = lacks
        self._thread = LoopThread("fluffle external")
        self._looked_at: dict[str, ExternalVhost] = {}
        self._made: dict[str, CreatedVhost] = {}
        """No other is ever deleted: it may be in production."""

    def __enter__(self) -> Self:
        """ManagementError where there is no management API, or not for this user."""
        self._management.ask_now("GET", "whoami")
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        where: TracebackType | None,
    ) -> None:
        try:
            for name in (*self._made,):
                self.delete_vhost(name)
            for vhost in self._looked_at.values():
                self._thread.call(vhost.close)
        finally:
            self._thread.end()

    def __getattr__(self, name: str) -> UnsupportedFeature:
        if name.startswith("_"):
            raise AttributeError(name)
        return UnsupportedFeature(name, self._lacks)

    @property
    def url(self) -> str:
        """URL for any client: with the virtual host that was named."""
        return self.url_of(self._address.vhost)

    def url_of(self, vhost: str) -> str:
        """Return the URL for another virtual host."""
        return self._url(self._address.user, self._address.password, vhost)

    def vhost(self, name: str = "") -> BlockingVhost:
        """Return what is in a virtual host, by default the one that was named."""
        name = name or self._address.vhost
        wanted_users = self._made[name].wanted.users if name in self._made else {}
        users = {**wanted_users, self._address.user: self._address.password}
        urls = {user: self._url(user, users[user], name) for user in users}
        vhost = ExternalVhost(name, urls, self._management, self._lacks, self.url_of(name))
        self._looked_at[name] = vhost
        return BlockingVhost(
            self._thread, cast(Vhost, vhost)
        )  # it has what a Vhost has, or lacks it

    def add_vhost(self, name: str, wanted: VhostRequirements = NOTHING_SPECIAL) -> BlockingVhost:
        """Make a new virtual host, with what is wanted in it.

        PreconditionFailed if it or one of its users is there, ManagementError, ValueError.
        """
        entries = wanted.entries()
        self._check_free("vhosts", {name})
        self._check_free("users", wanted.users.keys())
        queue_type = wanted.default_queue_type
        self._make("vhosts", name, {"default_queue_type": queue_type} if queue_type else {})
        self._made[name] = made = CreatedVhost(wanted, [])
        ask = self._management.ask_now
        try:
            for user, password in wanted.users.items():
                self._make("users", user, {"password": password, "tags": ""})
                made.users.append(user)
            for user, rights in wanted.rights((self._address.user,)).items():
                ask("PUT", "permissions", name, user, content=rights._asdict())
            if entries:
                ask("POST", "definitions", name, content=entries)
        except BaseException:
            self.delete_vhost(name)
            raise
        return self.vhost(name)

    def _check_free(self, kind: str, names: Set[str]) -> None:
        there = {each["name"] for each in self._management.ask_now("GET", kind)}
        if taken := there & names:
            raise PreconditionFailed(f"the broker has {kind} of these names: {shown(taken)}")

    def _make(self, kind: str, name: str, content: object) -> None:
        """PreconditionFailed if another client has made it in the meantime."""
        if not self._management.make_now(kind, name, content=content):
            raise PreconditionFailed(f"the broker has {kind} of these names: {shown({name})}")

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all that is in it, and the users that were made for it.
        ManagementError."""
        users = self._made.pop(name).users
        if name in self._looked_at:
            self._thread.call(self._looked_at.pop(name).close)
        self._management.ask_now("DELETE", "vhosts", name)
        for user in users:
            self._management.ask_now("DELETE", "users", user)

    def _url(self, user: str, password: str, vhost: str) -> str:
        at = self._address
        scheme = "amqps" if at.is_encrypted else "amqp"
        return amqp_url(user, password, f"{self._authority}:{at.port}", vhost, scheme=scheme)


def shown(names: Set[str]) -> str:
    return ", ".join(map(repr, sorted(names)))
