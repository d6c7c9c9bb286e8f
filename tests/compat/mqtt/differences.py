"""Where fluffle speaks MQTT otherwise than its reference, on purpose: the one list, with reasons.

A difference rewrites what the reference said into what fluffle is to say.  One that changes nothing
in any scenario it names is stale, and a test says so.
"""

from __future__ import annotations

import re

from tests.compat.differences import Difference
from tests.compat.scenario import Transcript

CLOSED = r"socket closed\n"
PINGED = "PINGRESP()\n"
MALFORMED, PROTOCOL_ERROR = r"DISCONNECT\(0x81\)", "DISCONNECT(0x82)"
ANNOUNCED = "receive_maximum=1024, topic_alias_maximum=16, maximum_packet_size=16908288"
WELCOME_5 = f"CONNACK(present=0, code=0x00, {ANNOUNCED})"
LIMITS = "announced limits are our own: a window of 1024, packets as large as the largest message"


def refused(code: int) -> str:
    """The answer to a CONNECT that is not taken."""
    return f"CONNACK(present=0, code=0x{code:02x})\nsocket closed\n"


def said(code: int) -> str:
    return f"DISCONNECT(0x{code:02x})\nsocket closed\n"


def granted(code: int, kind: str = "SUBACK") -> str:
    return f"{kind}(#1, 0x{code:02x})\n{PINGED}"


DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        LIMITS,
        scenarios=r"section_0[12].*",
        theirs=r"(CONNACK\(present=0, code=0x00)(, assigned[^,)]*)?, receive_maximum=20,"
        r" topic_alias_maximum=16\)",
        ours=rf"\1\2, {ANNOUNCED})",
    ),
    Difference(
        "sessions end after a day at most, and a CONNACK says so",
        scenarios=r"section_01_packets\.what_a_connack_says",
        theirs=r"code=0x00, receive_maximum",
        ours="code=0x00, session_expiry=86400, receive_maximum",
        clients="expires never",
    ),
    Difference(
        f"{LIMITS}; QoS 2 is",
        scenarios=r"section_07_login\.credentials",
        theirs=r"CONNACK\(present=0, code=0x00, session.*\)",
        ours=WELCOME_5,
    ),
    # Whoever speaks version 5 is told why
    Difference(
        "a CONNECT of version 5 that is malformed is told so; mosquitto hangs up",
        scenarios=r"section_01_packets\.(flags_of_a_connect|a_connect_that_is_too_short_or_too_long)",
        theirs=CLOSED,
        ours=refused(0x81),
        clients="(?!password|[05] bytes).* in 5",
    ),
    Difference(
        "the same of an identifier that is no string",
        scenarios=r"section_01_wire\.identifiers_that_are_no_strings",
        theirs=CLOSED,
        ours=refused(0x81),
        clients=".* in 5",
    ),
    Difference(
        "the same of properties of other packets: 0x82",
        scenarios=r"section_01_properties\.each_property_in_a_connect",
        theirs=rf"^{CLOSED}",
        ours=refused(0x82),
        clients="(?!MAXIMUM_PACKET_SIZE).*",
    ),
    Difference(
        "a CONNACK that would be larger than the client takes leaves out its properties; mosquitto"
        " hangs up",
        scenarios=r"section_01_properties\.each_property_in_a_connect",
        theirs=CLOSED,
        ours=f"CONNACK(present=0, code=0x00)\n{PINGED}",
        clients="MAXIMUM_PACKET_SIZE",
    ),
    Difference(
        "the same of properties that stand twice, and of those of a will: 0x82",
        scenarios=r"section_01_properties\.each_property_(twice_in_a_connect|in_a_will)",
        theirs=rf"^{CLOSED}",
        ours=refused(0x82),
    ),
    Difference(
        "the same of values that are out of range",
        scenarios=r"section_01_properties\.values_that_are_out_of_range",
        theirs=rf"^{CLOSED}",
        ours=refused(0x82),
        clients="(Receive|Maximum|Request).*",
    ),
    Difference(
        "the same of properties that cannot be read",
        scenarios=r"section_01_properties\.values_that_are_out_of_range",
        theirs=rf"^{CLOSED}",
        ours=refused(0x81),
        clients="unknown|cut short|user cut short",
    ),
    Difference(
        "data of an authentication without its method is a protocol error, as the specification"
        " says; mosquitto takes it",
        scenarios=r"section_01_properties\.(each_property_in_a_connect|values_that_are_out_of_range)",
        theirs=r"CONNACK\(present=0, code=0x00.*\)\nPINGRESP\(\)\n",
        ours=refused(0x82),
        clients="AUTH_DATA|data, no method",
    ),
    Difference(
        "a password without a user is refused as a wrong one, as RabbitMQ does; mosquitto, which"
        " asks nobody for a password here, takes it",
        scenarios=r"section_01_packets\.flags_of_a_connect",
        theirs=r"CONNACK\(present=0, code=0x00.*\)\nPINGRESP\(\)\n",
        ours=refused(0x86),
        clients="password, no user in 5",
    ),
    Difference(
        "a will with a wildcard in its topic, or with none, is told why; mosquitto hangs up",
        scenarios=r"section_02_sessions\.the_topic_of_a_will_is_wrong",
        theirs=CLOSED,
        ours=refused(0x90),
        clients=".* in 5",
    ),
    Difference(
        "a client of version 5 is told why its connection ends; mosquitto hangs up at some errors",
        scenarios=r"section_01_packets\.(a_ping_with_a_body)|section_01_wire\.a_length_of_five_bytes",
        theirs=rf"^{CLOSED}",
        ours=said(0x81),
        clients="(PINGREQ )?in 5",
    ),
    Difference(
        "the same of a second CONNECT",
        scenarios=r"section_01_packets\.a_second_connect",
        theirs=rf"^{CLOSED}",
        ours=said(0x82),
        clients="in 5",
    ),
    Difference(
        "the same of a DISCONNECT with a code that no client may send; mosquitto takes all",
        scenarios=r"section_01_packets\.codes_of_a_disconnect",
        theirs=rf"^{CLOSED}",
        ours=said(0x82),
        clients="0x01|0x87|0xff",
    ),
    Difference(
        "the same of content types and user properties that are not UTF-8",
        scenarios=r"section_01_properties\.values_that_are_out_of_range",
        theirs=rf"^{CLOSED}",
        ours=said(0x81),
        clients=".* not UTF-8 in 5",
    ),
    Difference(
        "the same of silence",
        scenarios=r"section_02_sessions\.silence_ends_a_connection",
        theirs=rf"^{CLOSED}",
        ours=said(0x8D),
        clients="in 5",
    ),
    # Codes
    Difference(
        "a topic with a wildcard is 0x90, a topic name that is not valid; mosquitto says 0x81",
        scenarios=r"section_01_packets\.a_publish_that_is_wrong",
        theirs=MALFORMED,
        ours="DISCONNECT(0x90)",
        clients=".*with [+#].* in 5",
    ),
    Difference(
        "a topic that is empty, without an alias, is a protocol error; mosquitto says 0x81",
        scenarios=r"section_01_packets\.a_publish_that_is_wrong",
        theirs=MALFORMED,
        ours=PROTOCOL_ERROR,
        clients="empty in 5",
    ),
    Difference(
        "a SUBSCRIBE or UNSUBSCRIBE without filters, with the identifier 0, with Retain Handling 3"
        " or with properties of other packets is a protocol error, as the specification says;"
        " mosquitto says 0x81",
        scenarios=r"section_01_packets\.a_subscribe_that_is_wrong"
        r"|section_01_properties\.each_property_in_(a_subscribe|an_unsubscribe)",
        theirs=MALFORMED,
        ours=PROTOCOL_ERROR,
        clients="(Retain Handling|.*id 0|no .*filter|id twice|[A-Z_]{4,}).* in 5",
    ),
    Difference(
        "wrong flags are noticed before that only a broker sends a CONNACK",
        scenarios=r"section_01_packets\.what_only_a_broker_sends",
        theirs=r"DISCONNECT\(0x82\)",
        ours="DISCONNECT(0x81)",
        clients="CONNACK with flags in 5",
    ),
    Difference(
        "a packet of type 0 is malformed; mosquitto calls it a protocol error",
        scenarios=r"section_01_wire\.types_that_there_are_not",
        theirs=r"DISCONNECT\(0x82\)",
        ours="DISCONNECT(0x81)",
        clients="type 0.* in 5",
    ),
    Difference(
        "a client that takes topic aliases is sent some, as by RabbitMQ",
        scenarios=r"section_02_messages\.aliases_for_a_client_that_takes_some",
        theirs=r"(.*/0', b'0')\)\n(.*/1', b'1')\)\n.*/0', b'2'\)\n.*/1', b'3'\)",
        ours=r"\1, topic_alias=1)\n\2, topic_alias=2)\n"
        r"PUBLISH(qos=0, '', b'2', topic_alias=1)\nPUBLISH(qos=0, '', b'3', topic_alias=2)",
    ),
    Difference(
        "the alias 0 is 0x94, topic alias invalid, as with RabbitMQ",
        scenarios=r"section_01_properties\.values_that_are_out_of_range"
        r"|section_02_messages\.topic_aliases_of_a_client",
        theirs=r"DISCONNECT\(0x82\)",
        ours="DISCONNECT(0x94)",
        clients="alias 0 in 5|zero",
    ),
    Difference(
        "a subscription identifier is no property of a client's PUBLISH: 0x82; mosquitto takes it",
        scenarios=r"section_01_properties\.each_property_in_a_publish",
        theirs=r"PINGRESP\(\)\n",
        ours=said(0x82),
        clients="SUBSCRIPTION_ID in 5",
    ),
    Difference(
        "a PUBREL or PUBREC of a message that is not known is answered 0x92; mosquitto says 0x00",
        scenarios=r"section_01_packets\.answers_that_nobody_waits_for|.*\.answers_that_are_wrong"
        r"|.*\.answers_of_the_wrong_kind",
        theirs=r"(PUBCOMP\(#\d+|PUBREL\(id \d+), 0x00\)",
        ours=r"\1, 0x92)",
        clients=".* in 5",
    ),
    Difference(
        "the same of a second PUBREL",
        scenarios=r"section_03_quality\.a_message_of_qos_2_that_is_sent_twice",
        theirs=r"(PUBCOMP\(#5, 0x00\)\n)PUBCOMP\(#5, 0x00\)",
        ours=r"\1PUBCOMP(#5, 0x92)",
        clients="dup .* in 5",
    ),
    # Filters
    Difference(
        "a filter that is not valid is refused by its code in the SUBACK, which version 5 has 0x8F"
        " for, and the client goes on; mosquitto ends it",
        scenarios=r"section_01_packets\.filters_that_are_wrong",
        theirs=rf"^(DISCONNECT\(0x81\)\n)?{CLOSED}",
        ours=granted(0x8F),
        clients="'.*' in 5",
    ),
    Difference(
        "the same of version 3.1.1, with 0x80",
        scenarios=r"section_01_packets\.filters_that_are_wrong",
        theirs=rf"^{CLOSED}",
        ours=granted(0x80),
        clients="'.*' in 4",
    ),
    Difference(
        "the same of an UNSUBSCRIBE",
        scenarios=r"section_01_packets\.filters_that_are_wrong",
        theirs=rf"^(DISCONNECT\(0x81\)\n)?{CLOSED}",
        ours=granted(0x8F, "UNSUBACK"),
        clients="un .* in 5",
    ),
    Difference(
        "the same of an UNSUBSCRIBE of version 3.1.1, of which the answer has no codes",
        scenarios=r"section_01_packets\.filters_that_are_wrong",
        theirs=rf"^{CLOSED}",
        ours=f"UNSUBACK(#1)\n{PINGED}",
        clients="un .* in 4",
    ),
    Difference(
        "the same of a client that asks for no reasons",
        scenarios=r"section_02_messages\.who_asks_for_no_reasons",
        theirs=rf"DISCONNECT\(0x81\)\n{CLOSED}",
        ours=granted(0x8F),
    ),
    Difference(
        "the same of the name of a group; mosquitto takes an empty one",
        scenarios=r"section_02_messages\.groups_that_are_wrong",
        theirs=rf"(DISCONNECT\(0x8[12]\)\n)?{CLOSED}|SUBACK\(#1, 0x01\)\nPINGRESP\(\)\n",
        ours=granted(0x8F),
        clients=r"\$share.* in 5",
    ),
    Difference(
        "the same of the name of a group in version 3.1.1",
        scenarios=r"section_02_messages\.groups_that_are_wrong",
        theirs=rf"{CLOSED}|SUBACK\(#1, 0x01\)\nPINGRESP\(\)\n",
        ours=granted(0x80),
        clients=r"\$share.* in 4",
    ),
    # What is delivered
    Difference(
        "what a member of a group had not acknowledged when it ended goes to another; mosquitto"
        " drops it with the session",
        scenarios=r"section_02_messages\.a_member_ends_and_has_not_acknowledged",
        theirs=r"PUBLISH\(qos=1, id 1, ('[^']*'), b'end'\)",
        ours=r"PUBLISH(qos=1, id 1, \1, b'had by the first')\n"
        r"PUBLISH(qos=1, id 2, \1, b'end')",
        clients="second in .*",
    ),
    Difference(
        "of overlapping filters one copy comes, with the largest QoS; mosquitto sends one a filter"
        " in version 5",
        scenarios=r"section_02_messages\.overlapping_filters",
        theirs=r"(?s)(b'over'\)\n).*'over'\)\n.*\(.*'(.*)', b'end'\)",
        ours=r"\1PUBLISH(qos=1, id 2, '\2', b'end')",
        clients="in 5",
    ),
    Difference(
        "the same of filters of different QoS, of which mosquitto takes the first in version 3.1.1",
        scenarios=r"section_02_messages\.overlapping_filters_of_different_qos",
        theirs=r"PUBLISH\(qos=0, ('.*/4/a')",
        ours=r"PUBLISH(qos=1, id 1, \1",
        clients="in 4",
    ),
    Difference(
        "the same of filters of different QoS in version 5",
        scenarios=r"section_02_messages\.overlapping_filters_of_different_qos",
        theirs=r"PUBLISH\(qos=0.*\)\n",
        ours="",
        clients="in 5",
    ),
    Difference(
        "Retain As Published is no option of version 3.1.1: what is live has no RETAIN there, also"
        " for a subscription that was made in version 5",
        scenarios=r"section_02_options\.options_outlive_a_connection_in_another_version",
        theirs=r"(id [12]), retain, ",
        ours=r"\1, ",
        clients="client",
    ),
    Difference(
        "a message of QoS 2 is delivered when it comes, as the specification lets a broker, and not"
        " when its PUBREL does",
        scenarios=r"section_02_messages\.an_identifier_in_use",
        theirs=r"PUBLISH\(.*b'two'\)\n",
        ours="",
    ),
    Difference(
        "a Clean Start ends the session before it, so that its delayed will is published;"
        " mosquitto forgets it",
        scenarios=r"section_02_sessions\.a_delayed_will_comes_with_the_end_of_its_session",
        theirs=r"(PUBLISH\(qos=1)",
        ours=r"PUBLISH(qos=0, 'a_delayed_will_comes_with_the_end_of_its_session/5/w',"
        r" b'delayed')\n\1",
        clients="watcher in 5",
    ),
    Difference(
        "who is taken over has not said goodbye, so that its will is published, as with RabbitMQ,"
        " and a delayed one if the session has ended; mosquitto does neither",
        scenarios=r"section_02_sessions\.a_takeover_publishes_the_will",
        theirs=r"(PUBLISH\(qos=0.*'a_takeover_publishes_the_will/will/)plain', b'plain'\)\n",
        ours=r"\1delayed', b'delayed')\n\1plain', b'plain')\n\1plain', b'plain')\n",
        clients="watcher",
    ),
    Difference(
        "a DISCONNECT of an error, 0x80 and more, publishes the will, as with RabbitMQ",
        scenarios=r"section_02_sessions\.a_disconnect_with_will",
        theirs=r"(PUBLISH\(.*b'end 128')",
        ours=r"PUBLISH(qos=0, 'a_disconnect_with_will/5/128', b'128')\n\1",
        clients="watcher in 5",
    ),
    Difference(
        "what expires after no second at all is gone at once, as with RabbitMQ",
        scenarios=r"section_03_quality\.the_expiry_of_a_retained_message",
        theirs=r"PUBLISH\(.*'zero'.*\n(PINGRESP\(\)\n)left: False",
        ours=r"\1SUBACK(#2, 0x01)\nleft: True",
    ),
    # Between AMQP and MQTT
    Difference(
        "user properties CC and BCC are no headers: such a one must be an array, or nobody could"
        " publish the message again",
        scenarios=r"section_06_conversion\.properties_with_the_names_of_others",
        theirs=r"headers=\{BCC: S b'other', CC: S b'other'\}, ",
        ours="",
    ),
    Difference(
        "no time in milliseconds is longer than ten years, as with RabbitMQ where AMQP sets one",
        scenarios=r"section_06_conversion\.properties_with_the_names_of_others",
        theirs=r"'4294967295000'",
        ours="'315360000000'",
    ),
    Difference(
        "a Response Topic has no wildcards, as the specification says",
        scenarios=r"section_06_amqp\.properties_for_mqtt",
        theirs=r", response_topic='answers/to/\+'",
        ours="",
    ),
    Difference(
        "floats are written as short as they can be",
        scenarios=r"section_06_conversion\.values_of_headers",
        theirs=r"'2\.50+e\+00'\), user=\('float', '5\.0+e-01'\)",
        ours="'2.5'), user=('float', '0.5')",
    ),
    Difference(
        "a header with a control character is no user property: a client may refuse it, and"
        " mosquitto's library ends its connection",
        scenarios=r"section_06_conversion\.values_of_headers",
        theirs=r"b'lines', user=\('trace', '[^']*'\)",
        ours="b'lines'",
    ),
    Difference(
        "what queues count is the broker's, and no user property",
        scenarios=r"section_06_conversion\.values_of_headers",
        theirs=r"b'counts', user=.*\)\)",
        ours="b'counts')",
    ),
    Difference(
        "what is left of an expiration is the expiry; RabbitMQ does not pass it on",
        scenarios=r"section_06_conversion\.values_of_headers",
        theirs=r"b'expiration'\)",
        ours="b'expiration', message_expiry=60)",
    ),
    Difference(
        "a routing key that is no topic, empty or with control characters, reaches no client:"
        " it might end its connection",
        scenarios=r"section_06_conversion\.keys_that_are_no_topics",
        theirs=r"PUBLISH\(qos=1, id 1, ''.*\)\nPUBLISH\(qos=1, id 2, '.x01'.*\)\n"
        r"PUBLISH\(qos=1, id 3(.*)\nPUBLISH\(qos=1, id 4",
        ours=r"PUBLISH(qos=1, id 1\1\nPUBLISH(qos=1, id 2",
    ),
    Difference(
        "who sends more than the broker announces to take at once is ended with 0x93, as the"
        " specification says; mosquitto refuses what is too many",
        scenarios=r"section_02_messages\.more_messages_than_the_broker_takes_at_once",
        theirs=r"PUBREC.*\nPINGRESP\(\)\n",
        ours=said(0x93),
    ),
    Difference(
        "a client whose queue is deleted is told so and ended; RabbitMQ leaves it deaf",
        scenarios=r"section_06_amqp\.a_queue_is_deleted_under_its_client",
        theirs=r"PINGRESP\(\)\n",
        ours=said(0x98),
    ),
    Difference(
        "an expiration of AMQP is passed on, as whole seconds that are left; RabbitMQ drops it",
        scenarios=r"section_06_amqp\.an_expiration_of_amqp",
        theirs=r"of (\d+)(00) ms: None\nof (\d+) ms: None",
        ours=r"of \1\2 ms: 600\nof \3 ms: 1",
        clients="client",
    ),
    # Permissions
    Difference(
        "who may not publish is told so, in version 5 with QoS 1, and goes on; RabbitMQ ends him",
        scenarios=r"section_07_login\.what_permissions_refuse_to_publishers",
        theirs=CLOSED,
        ours=f"PUBACK(#1, 0x87)\n{PINGED}",
        clients="(nobody|reader), QoS 1 in 5",
    ),
    Difference(
        "the same of version 3.1.1, where a PUBACK can say nothing",
        scenarios=r"section_07_login\.what_permissions_refuse_to_publishers",
        theirs=CLOSED,
        ours=f"PUBACK(#1, 0x00)\n{PINGED}",
        clients="(nobody|reader), QoS 1 in 4",
    ),
    Difference(
        "the same of QoS 0, of which nothing is said",
        scenarios=r"section_07_login\.what_permissions_refuse_to_publishers",
        theirs=CLOSED,
        ours=PINGED,
        clients="(nobody|reader), QoS 0 .*",
    ),
    Difference(
        "the same of topic permissions",
        scenarios=r"section_07_login\.what_topic_permissions_refuse",
        theirs=CLOSED,
        ours=f"PUBACK(#2, 0x87)\n{PINGED}",
        clients="writes in 5",
    ),
    Difference(
        "the same of topic permissions in version 3.1.1",
        scenarios=r"section_07_login\.what_topic_permissions_refuse",
        theirs=CLOSED,
        ours=f"PUBACK(#2, 0x00)\n{PINGED}",
        clients="writes in 4",
    ),
    Difference(
        "who may not subscribe is told so and goes on; RabbitMQ ends him",
        scenarios=r"section_07_login\.what_(topic_)?permissions_refuse(_to_subscribers)?",
        theirs=CLOSED,
        ours=PINGED,
        clients="reads .*|(writer|nobody) in .*",
    ),
    Difference(
        "each filter has a code of its own; RabbitMQ refuses all behind the first that it refuses,"
        " and ends the client",
        scenarios=r"section_07_login\.some_filters_are_allowed",
        theirs=rf"0x87, 0x87\)\n{CLOSED}",
        ours=f"0x87, 0x01)\n{PINGED}",
    ),
)


def as_meant(name: str, theirs: Transcript, ours: Transcript) -> tuple[Transcript, Transcript]:
    """The two transcripts of a scenario, which are equal if only what is meant to differ does."""
    for difference in DIFFERENCES:
        if re.fullmatch(difference.scenarios, name):
            theirs, ours = difference.applied(theirs), difference.read(ours)
    return theirs, ours
