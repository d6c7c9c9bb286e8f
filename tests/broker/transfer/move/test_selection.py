"""Which messages are meant."""

import pytest

from fluffle.broker.base.errors import BrokerError
from fluffle.broker.transfer.move.selection import Selection
from fluffle.protocol.properties import Properties, encode_properties
from fluffle.protocol.wire import to_table

RAW = encode_properties(
    Properties(headers=to_table({"tenant": "a=b", "tries": 3, "is_old": True, "list": [1]}))
)
BARE = encode_properties(Properties())


@pytest.mark.parametrize(
    ("headers", "routing_key", "is_meant"),
    [
        ([], None, True),
        (["tenant=a=b"], None, True),
        (["tenant=a=b", "tries=3", "is_old=true"], None, True),
        (["tenant=a=b", "tries=4"], None, False),
        (["other=1"], None, False),
        (["list=[1]"], None, False),
        ([], "orders.*", True),
        ([], "orders.#", True),
        ([], "orders", False),
        (["tries=3"], "*.new", True),
        (["tries=3"], "*.old", False),
    ],
)
def test_all_that_is_asked_must_be_so(
    headers: list[str], routing_key: str | None, *, is_meant: bool
) -> None:
    assert Selection(headers, routing_key).takes("orders.new", RAW) is is_meant


def test_what_has_no_headers_has_none_of_them() -> None:
    assert not Selection(["tries=3"]).takes("k", BARE)
    assert Selection().takes("k", BARE)


def test_what_cannot_be_asked() -> None:
    with pytest.raises(BrokerError, match="'tries' is no header; write name=value"):
        Selection(["tries"])
    with pytest.raises(BrokerError, match="uses 3 '#' wildcards"):
        Selection([], "#.a.#.b.#")
