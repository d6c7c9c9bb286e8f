"""Totals of rows that were made a moment ago."""

import asyncio
from typing import Any, cast

from fluffle.broker.base.errors import NotFound
from fluffle.broker.protocols.http.call import Call
from fluffle.broker.protocols.http.endpoints.totals import with_counts


class Deferred:
    """A call, in one of whose virtual hosts nothing is any more."""

    path: dict[str, str] = {}  # noqa: RUF012  is not changed
    query: dict[str, str] = {}  # noqa: RUF012  is not changed

    async def rows(self, _verb: str, *, vhost: str, **_more: Any) -> list[dict[str, Any]]:
        if vhost == "gone":
            raise NotFound("no vhost 'gone'")
        return [{"name": "q", "rate": 1}]


def test_a_virtual_host_that_is_gone_meanwhile_takes_nothing_from_the_others() -> None:
    rows = [{"vhost": vhost, "name": "q"} for vhost in ("/", "gone")]
    answer = asyncio.run(with_counts(cast(Call, Deferred()), "queues.statistics", rows))
    assert answer == [{**rows[0], "rate": 1}, rows[1]]
