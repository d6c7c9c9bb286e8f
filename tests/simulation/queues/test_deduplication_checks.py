"""Messages that a simulated queue may accept that deduplicates."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from fluffle.broker.queues.deduplication import key_of
from fluffle.broker.queues.quorum.entry_codec import FIRST_VERSION, REMEMBERS, FactBatch
from fluffle.broker.queues.quorum.facts import Fact, Purged, Remembered
from fluffle.protocol.properties import Properties, build_content, encode_properties
from tests.simulation.facts import Violation
from tests.simulation.queues.deduplication_checks import DeduplicationChecks, headers_of

GROUP = 7


def content(key: int | None) -> bytes:
    return build_content(encode_properties(Properties(headers=headers_of(key))), b"body")


def packed(*keys: int) -> list[bytes]:
    names = [key_of(content(key)) for key in keys]
    return [name.digest + bytes(8) for name in names if name is not None]


def entry(version: int = REMEMBERS, facts: Sequence[Fact] = ()) -> FactBatch:
    return FactBatch(0, 0, [*facts], None, version)


def test_what_is_on_record_is_not_taken_again() -> None:
    keys = DeduplicationChecks(GROUP)
    keys.apply(entry(), [content(1), content(None)], [], packed(1), is_sure=True)
    assert [keys.stands_for(content(key)) for key in (1, 2, None)] == [True, False, False]
    with pytest.raises(Violation, match="taken once more"):
        keys.apply(entry(), [content(1)], packed(1), packed(1), is_sure=True)


def test_what_is_taken_is_on_record() -> None:
    with pytest.raises(Violation, match="does not remember"):
        DeduplicationChecks(GROUP).apply(entry(), [content(1)], [], [], is_sure=True)


def test_what_was_forgotten_or_could_not_be_said_may_come_again() -> None:
    keys = DeduplicationChecks(GROUP)
    keys.apply(entry(), [content(1)], packed(1, 2), packed(1), is_sure=True)
    keys.apply(entry(FIRST_VERSION), [content(1)], packed(1), packed(1), is_sure=True)
    keys.apply(entry(), [content(1)], packed(1), packed(1), is_sure=False)


@pytest.mark.parametrize("forgets", [Purged([range(1, 2)]), Remembered(b"", 0)], ids=["it", "all"])
def test_what_comes_with_a_purge_may_be_forgotten(forgets: Fact) -> None:
    """Even if nothing was known before."""
    DeduplicationChecks(GROUP).apply(entry(facts=[forgets]), [content(1)], [], [], is_sure=True)
