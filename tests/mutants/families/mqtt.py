"""Mistakes in what MQTT sessions keep, send and forget: one a rule of the specification."""

from tests.mutants.change import Insert, Remove, Swap
from tests.mutants.mutant import Mutant

MQTT = [
    # From the client
    Mutant("MQ1", "a packet of QoS 2 is not remembered", Remove()),
    Mutant("MQ2", "a packet is not noted with its message", Swap("A is not None", "False")),
    Mutant(
        "MQ3",
        "a packet is answered before it is durable",
        Swap("when_safe(A, partial(B, C))", "B(C)"),
    ),
    Mutant(
        "MQ4", "a message is answered at once", Swap("A(B)", "self._answer_run(B, B.packet_ids)")
    ),
    Mutant("MQ5", "a released packet is not forgotten", Remove()),
    Mutant("MQ6", "a released packet is forgotten in memory only", Swap("A is None", "True")),
    Mutant("MQ7", "a message that comes again is taken again", Swap("A in B", "False")),
    Mutant("MQ8", "the first message of a run is retained", Swap("A[-1]", "A[0]")),
    # To the client
    Mutant("MQ9", "what is sent again has no DUP", Swap("A > 0 and B", "False")),
    Mutant("MQ10", "what is sent again has another identifier", Swap("A(B, C)", "None")),
    Mutant("MQ11", "what is sent again has the QoS of now", Swap("A.qos", "qos")),
    Mutant("MQ12", "an identifier is free at PUBREC", Swap("not A", "True")),
    Mutant("MQ13", "a packet that the client has is not remembered", Remove()),
    Mutant("MQ14", "PUBREL does not come again", Remove()),
    Mutant("MQ15", "retained messages do not come again", Remove()),
    Mutant("MQ16", "the client's receive maximum is no limit", Swap("min(A, B, C)", "min(A, B)")),
    Mutant("MQ17", "what waits for PUBCOMP takes no place", Remove()),
    Mutant("MQ18", "what is sent with QoS 2 is not noted", Swap("A(B, C, D)", "D()")),
    Mutant("MQ19", "the QoS of a subscription is no limit", Swap("min(A, B)", "A")),
    Mutant("MQ20", "filters that overlap make two copies", Swap("A > 0 and not B and C", "False")),
    Mutant("MQ21", "No Local is passed over", Swap("A[B]", "False")),
    Mutant("MQ22", "retained messages wait for ever", Remove()),
    Mutant("MQ23", "an identifier in use is used again", Swap("A(B)", "True")),
    Mutant("MQ24", "what matches a topic is remembered for ever", Remove()),
    Mutant("MQ25", "PUBREL comes before PUBREC is durable", Insert("release()")),
    # Sessions
    Mutant("MQ27", "a session is present though its client begins anew", Swap("not A.B", "True")),
    Mutant("MQ28", "who comes second is another client", Swap("A(B)", "None")),
    Mutant("MQ29", "a will is published though its client is back", Swap("not A", "True")),
    Mutant("MQ30", "a will is published though its client has taken leave", Remove()),
    Mutant("MQ31", "a session does not end", Remove()),
    Mutant("MQ32", "packets of the client are forgotten by a restart", Remove()),
    Mutant("MQ33", "packets to the client are forgotten by a restart", Remove()),
    Mutant("MQ34", "the messages of packets are forgotten by a restart", Remove()),
    Mutant("MQ35", "what a session has is not forgotten with it", Swap("A.joined(B)", "A")),
    # In a cluster
    Mutant("MQ36", "packets are noted in many changes at once", Swap("A and not B", "A")),
    Mutant(
        "MQ37",
        "packets are noted of whichever session has the client",
        Swap("A is not None and B == C", "A is not None"),
    ),
    Mutant("MQ38", "one session has all others noted anew", Remove()),
    Mutant("MQ39", "who comes elsewhere ends who came there later", Swap("A < B", "True")),
    Mutant("MQ41", "what a client had elsewhere is kept from it", Remove()),
    Mutant(
        "MQ42", "an earlier connection takes the place of a later one", Swap("0 < A < B", "True")
    ),
    Mutant("MQ40", "a node does not say that it has a later client", Remove()),
    Mutant("MQ43", "a session that is begun anew is the one before", Swap("max(A, B)", "1")),
    # Where a session moves
    Mutant(
        "MQ51",
        "a message that is published once more has another key",
        Swap("message_key(A, B, C)", "packets.new_number().to_bytes(16)"),
    ),
    Mutant("MQ52", "a packet whose message was in no queue is not released", Remove()),
    Mutant("MQ53", "identifiers of a session from elsewhere are free", Remove()),
    Mutant("MQ54", "a session that has moved is remembered where it was", Remove()),
    Mutant("MQ55", "who has connected elsewhere stays connected", Remove()),
    Mutant(
        "MQ56",
        "the end of a connection is put on record of a session of another node",
        Swap(
            "A is None or B is None or not C(D) or E != F",
            "A is None or B is None or E != F",
        ),
    ),
    Mutant("MQ57", "a session stays that of the node before", Swap("A.joined(B)", "A")),
    Mutant(
        "MQ58",
        "a session that has moved is adopted",
        Swap(
            "A is None or B is None or C != D or not E.F()", "A is None or B is None or not E.F()"
        ),
    ),
    Mutant(
        "MQ59",
        "sessions of a node that is back are adopted",
        Swap("A is None or B is None or C != D or not E.F()", "A is None or B is None or C != D"),
    ),
    Mutant("MQ60", "a session whose client was connected is not adopted", Remove()),
    Mutant("MQ61", "PUBREC does not wait for what is retained", Remove()),
    Mutant("MQ63", "a will that is due is not on record", Swap("A.joined(B)", "A")),
    Mutant(
        "MQ73",
        "the end of a connection is put on record of the next one",
        Swap(
            "A is None or B is None or not C(D) or E != F",
            "A is None or B is None or not C(D)",
        ),
    ),
    Mutant("MQ74", "a client that connects publishes its own will", Swap("A and not B", "A")),
    Mutant(
        "MQ75",
        "a will that another node has to publish is forgotten",
        Swap("A is None or B != C", "A is None"),
    ),
    Mutant("MQ76", "a will that cannot be published stays on record", Remove()),
    Mutant("MQ77", "wills of a lost node are not published", Remove()),
    Mutant("MQ78", "wills that were under way are forgotten by a restart", Remove()),
    Mutant("MQ79", "a will is forgotten before its queues have it", Remove()),
    Mutant("MQ80", "a will is forgotten before it is retained", Remove()),
    Mutant("MQ64", "a session outlives its queue", Swap("A.joined(B)", "A")),
    Mutant(
        "MQ65",
        "a queue for QoS 0 is not made anew when its disk is lost",
        Swap("A(B.spec)", "False"),
    ),
    Mutant("MQ62", "PUBACK does not wait for what is retained", Remove()),
    # What is counted, answered, and on record
    Mutant("MQ71", "messages whose topic is too long for AMQP are not counted", Remove()),
    Mutant(
        "MQ72",
        "a session that ends with its connection is present at another node",
        Swap("not A.B", "False"),
    ),
    Mutant("MQ66", "a session that ended while a client was refused stays on record", Remove()),
    Mutant(
        "MQ67", "queues expire as the client asked for when it came first", Swap("A.joined(B)", "A")
    ),
    Mutant("MQ68", "queues expire as CONNECT, not DISCONNECT, said", Swap("A.joined(B)", "A")),
    Mutant(
        "MQ69",
        "all messages of a run are refused where the last is not retained",
        Swap("{A[-1]: B}", "dict.fromkeys(A, B)"),
    ),
    Mutant(
        "MQ70",
        "the first message of a run whose packets are noted is refused for the last",
        Swap("A[-1]", "A[0]"),
    ),
]
