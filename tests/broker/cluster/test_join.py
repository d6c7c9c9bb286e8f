"""Log lines and advice of a node that waits to join."""

from __future__ import annotations

import logging

import pytest

from fluffle.broker.base.logs import FIELDS_ATTRIBUTE
from fluffle.broker.cluster.join import join_status_of, log_join_status
from fluffle.broker.cluster.links.connection import LinkFailure

REFUSED = LinkFailure("refused by a: secret", "the secrets differ")
ABSENT = LinkFailure("connect call failed", None)


class Links:
    """Links of a node by direction."""

    def __init__(
        self, up: str = "", heard: str = "", hindrances: dict[str, LinkFailure] | None = None
    ) -> None:
        self.dialled_by = heard
        self._up, self._hindrances = up, hindrances or {}

    def is_up(self, node: str) -> bool:
        return node in self._up

    def hindrance(self, node: str) -> LinkFailure | None:
        return self._hindrances.get(node)


def advice(links: Links, *, is_let_in: bool = True, forgotten_start: int = 0) -> str:
    return join_status_of(
        "c", "ba", links, is_let_in=is_let_in, forgotten_start=forgotten_start
    ).advice  # fmt: skip


def test_a_refusal_names_the_refusing_node_and_what_helps() -> None:
    found = join_status_of(
        "c", "ba", Links(hindrances={"a": REFUSED, "b": ABSENT}), is_let_in=True, forgotten_start=0
    )
    assert found == ([], ["a", "b"], ["refused by a: secret"], "the secrets differ")


def test_advice_that_two_give_is_given_once() -> None:
    assert advice(Links(hindrances={"a": REFUSED, "b": REFUSED})) == "the secrets differ"


def test_who_has_links_but_is_not_dialled_hears_that() -> None:
    assert advice(Links(up="ab", heard="a")) == (
        "b cannot dial this node: start it with the --cluster-listen address that they know, and "
        "look whether they reach that"
    )


def test_only_missing_links_are_to_be_looked_at() -> None:
    missing = "start the other nodes, and look why there is no link to them"
    assert advice(Links(up="a", heard="a")) == missing
    assert advice(Links(up="ab", heard="ab")) == (
        "the others are linked, and have yet to agree; look at their logs if this lasts"
    )


def test_who_was_not_let_in_is_to_be() -> None:
    expected = "let it in: on another node, `fluffle cluster add c=HOST:PORT`"
    assert advice(Links(), is_let_in=False) == expected


def test_a_disk_that_was_wiped_comes_first() -> None:
    said = advice(Links(hindrances={"a": REFUSED}), forgotten_start=3)
    assert said.startswith("the cluster has seen start 3 of this node")
    steps = "`fluffle cluster forget c`", "empty --data-dir", "`fluffle cluster add c=HOST:PORT`"
    places = [said.index(step) for step in steps]
    assert places == sorted(places)


def test_the_log_says_who_has_refused(caplog: pytest.LogCaptureFixture) -> None:
    links = Links(hindrances={"a": REFUSED})
    log_join_status(join_status_of("c", "ab", links, is_let_in=True, forgotten_start=0))
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert getattr(record, FIELDS_ATTRIBUTE) == {
        "linked": "none",
        "of": "a,b",
        "hindered": "refused by a: secret",
        "advice": "the secrets differ",
    }
