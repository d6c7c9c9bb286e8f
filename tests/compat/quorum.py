"""Scenarios that are written for classic queues, with quorum queues in their place.

What a scenario declares without a type is durable then, and nobody's own: it is deleted when the
scenario has ended.
"""

import re
from contextlib import ExitStack

from fluffle.protocol.methods import Queue, make, pamqp_table
from fluffle.protocol.wire import to_table
from tests.compat.scenario import Drive, Peer, Transcript, load_scenarios
from tests.compat.verbs import speaker
from tests.support.client import Client

THESE = (
    r"section_05_queues\.deletes_and_purges_count_ready_messages",
    r"section_06_publishing\.(bodies_of_all_sizes|every_publish_is_confirmed_once)",
    r"section_06_publishing\.(mandatory_messages_come_back|an_error_drops_what_is_behind_it)",
    r"section_06_transactions\..*",
    r"section_07_(consuming|settling)\..*",
    r"section_09_dead_letters\..*",
)

NOT_THESE = {
    # What quorum queues have not.
    r"section_07_consuming\.a_(limit_that|shared_limit_).*": "a prefetch that consumers share",
    r"section_07_consuming\.each_queue_has_its_share_of_a_shared_limit": "the same",
    r"section_07_consuming\.an_exclusive_consumer_wants_no_other": "exclusive consumers",
    # What is about no queue, or about both types anyhow.
    r"section_07_consuming\.(prefetch_in_bytes|consuming_what_is_not_there).*": "no queue",
    r"section_06_transactions\.commit_and_rollback_need_a_select": "no queue",
    r"section_09_dead_letters\.what_is_too_much_leads_back_to_its_queue": "both",
    # What is one way or the other, since a queue answers before it has done what it was asked for.
    r"section_07_consuming\.what_was_published_before.*": "a delivery before an answer",
    r"section_06_transactions\.(a_commit_settles|room_for_a_consumer.*)": "a delivery at a commit",
    r"section_07_settling\.tag_0_is_all_there_are": "how many consumers RabbitMQ counts",
    r"section_07_settling\.a_message_comes_back_to_another_consumer": "a nack before a delivery",
    # What RabbitMQ 4.0 does otherwise than 4.3, or than fluffle.
    r"section_07_settling\.messages_of_two_routes_come_in_order": "two priorities",
    r"section_06_transactions\.a_queue_gone_before_the_commit_drops_nothing": "it succeeds",
}
"""Reasons by patterns of names."""

CANCELLED = "] Basic.Cancel("
"""Pattern of a cancel whose order is undefined when a client deletes its own queue."""

NAMES = [
    name
    for name in sorted(load_scenarios())
    if any(re.fullmatch(each, name) for each in THESE)
    and not any(re.fullmatch(each, name) for each in NOT_THESE)
]


class AsQuorum:
    """Declares quorum queues.  `elsewhere`: another node, that is to lead them."""

    def __init__(self, elsewhere: Client | None = None) -> None:
        self.names: set[str] = set()
        self._elsewhere = elsewhere

    def __call__(self, declare: Queue.Declare) -> Queue.Declare:
        arguments = declare.arguments or {}
        if declare.passive or declare.auto_delete or not declare.queue:
            return declare
        self.names.add(declare.queue)
        typed = pamqp_table(to_table({"x-queue-type": "quorum"})) | arguments
        changed = make(Queue.Declare, queue=declare.queue, durable=True, arguments=typed)
        if self._elsewhere is not None:
            self._elsewhere.call(1, changed)
        changed.nowait = declare.nowait
        return changed


def run(drive: Drive, port: int, elsewhere: int | None = None) -> Transcript:
    with ExitStack() as stack:
        leader = stack.enter_context(Client("127.0.0.1", elsewhere)) if elsewhere else None
        if leader is not None:
            leader.open()
            leader.channel(1)
        as_quorum = AsQuorum(leader)
        peer = Peer("127.0.0.1", port, declared_as=as_quorum)
        try:
            drive(peer)
        finally:
            heard = peer.hang_up()
            cleaning = Peer("127.0.0.1", port)
            speaker(cleaning).delete(*as_quorum.names)
            cleaning.hang_up()
    return {who: [line for line in lines if CANCELLED not in line] for who, lines in heard.items()}
