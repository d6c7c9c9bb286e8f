"""Changes of the packets of one session, as `PacketChanges` makes them of many."""

from collections.abc import Iterable, Mapping

from fluffle.broker.base.client_session import SENT
from fluffle.broker.metadata.change import Change
from fluffle.broker.vhosts.client_sessions import PacketChanges, SessionHost


def keep_packets(vhost: SessionHost, client_id: str, stage: str, numbers: Iterable[int]) -> Change:
    changes = PacketChanges(vhost)
    changes.keep(client_id, stage, numbers)
    return changes.change()


def keep_sent(vhost: SessionHost, client_id: str, messages: Mapping[int, int]) -> Change:
    changes = PacketChanges(vhost)
    changes.keep_messages(client_id, messages, SENT)
    return changes.change()


def forget_packets(
    vhost: SessionHost, client_id: str, stage: str, numbers: Iterable[int]
) -> Change:
    changes = PacketChanges(vhost)
    changes.forget(client_id, stage, numbers)
    return changes.change()
