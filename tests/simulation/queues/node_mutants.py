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
]
