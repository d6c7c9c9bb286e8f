"""Mistakes about nodes: on which of them queues are, who is one, and what all know."""

from tests.simulation.queues.engine_mutants import mutant

SERVING = "broker.cluster.queues."

NODE_MUTANTS = [
    mutant(
        "D2",
        "a member that nobody wants stays",
        SERVING + "members:steps",
        "(members - set(wanted))",
        "set()",
    ),
    mutant(
        "D5",
        "queues with too few members get no more",
        SERVING + "reconciling:Reconciling._reconcile",
        "self._ports.settle(partial(self._decide, queue), nobody_waits)",
        "pass",
    ),
    mutant(
        "N1",
        "who was forgotten stays a member of the group of definitions",
        "broker.cluster.membership:steps",
        "sorted(members - set(nodes))",
        "()",
    ),
    mutant(
        "N2",
        "who was let in is not told as which member it may begin",
        "broker.cluster.membership:Membership.unknown",
        "self._metadata.leads and member",
        "False and member",
    ),
    mutant(
        "N3",
        "a disk that lacks what others know of is taken for what it was",
        "broker.cluster.links.identity:Lives.has_all_of",
        ">= commit",
        ">= 0",
    ),
    mutant(
        "E1",
        "a change is answered before all have it",
        "broker.cluster.everywhere:Everywhere._behind",
        "other.reached < revision",
        "other.reached < revision - 1",
    ),
    mutant(
        "E2",
        "what comes true after its connection has ended is kept",
        "broker.server.registry:delete_late",
        "owners.has_ended(owner)",
        "False",
    ),
    mutant(
        "E3",
        "what earlier lives of a node have left is kept",
        "broker.definitions.leftovers:ended_before",
        "definition.boot < boot",
        "False",
    ),
    mutant(
        "I1",
        "what changes nothing by what a node knows is answered at once",
        "broker.cluster.metadata:ReplicatedMetadata.change",
        "self.reads.ask(partial(self._decide, pending), failed)",
        "self._decide(pending)",
    ),
    mutant(
        "I2",
        "who asks whether all is known here is told so at once",
        "broker.cluster.read_index:ReadIndex.ask",
        "self._fresh.append(Asker(done, failed, self._group.give_up_at_ms()))",
        "return done()",
    ),
    mutant(
        "I3",
        "who leads by its own account need not ask whether it still does",
        "broker.cluster.read_index:ReadIndex._send",
        "group.read_index(partial(self._answered, number))",
        "self._answered(number, self._applied)",
    ),
    mutant(
        "I4",
        "nobody waits until the read index is applied",
        "broker.cluster.read_index:ReadIndex.applied",
        "index < self._needed",
        "False",
    ),
    mutant(
        "I5",
        "who asks while a round is under way is told what that brings",
        "broker.cluster.read_index:ReadIndex.ask",
        "self._fresh.append(",
        "(self._asked or self._fresh).append(",
    ),
    mutant(
        "I6",
        "rounds are numbered from 1 at each start, whatever an earlier one has asked",
        "broker.cluster.read_index:ReadIndex.__init__",
        "boot * ROUNDS_A_BOOT",
        "0",
    ),
    mutant(
        "I7",
        "a queue that is deleted is taken for the last of its name at once",
        SERVING + "deletions:Deletions.decide",
        "self._knowledge.ask(known, unknown)",
        "known()",
    ),
    mutant(
        "I8",
        "what was for the next queue of a name is confirmed, as gone with the one before",
        SERVING + "deletions:Deletions._is_replaced",
        "found.definition.id != queue.id",
        "False",
    ),
    mutant(
        "I9",
        "nobody hears what becomes of messages whose queue was deleted before it had them",
        SERVING + "deletions:Deletions.decide",
        "self._knowledge.ask(known, unknown)",
        "pass",
    ),
]
