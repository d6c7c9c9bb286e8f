"""Where fluffle answers otherwise than RabbitMQ 4.0.5, on purpose: the one list, with reasons.

A difference rewrites what RabbitMQ said into what fluffle is to say.  One that changes nothing in
any scenario it names is stale, and a test says so.
"""

import re
from dataclasses import dataclass

from tests.compat.scenario import Transcript


@dataclass(frozen=True, slots=True)
class Difference:
    """In the scenarios and for the clients that match, each match of `theirs` becomes `ours`.

    Where the very words do not matter, `said` matches what fluffle may say: that becomes `ours`
    too.
    """

    reason: str
    scenarios: str
    theirs: str
    ours: str
    clients: str = ".*"
    said: str = ""

    def concerns(self, name: str) -> bool:
        return re.fullmatch(self.scenarios, name) is not None

    def applied(self, transcript: Transcript) -> Transcript:
        """RabbitMQ's transcript as it is to be."""
        return self._rewritten(transcript, self.theirs)

    def read(self, transcript: Transcript) -> Transcript:
        """fluffle's transcript as it is to be compared."""
        return self._rewritten(transcript, self.said) if self.said else transcript

    def _rewritten(self, transcript: Transcript, pattern: str) -> Transcript:
        """The lines of a client are one text, every line with its newline."""
        return {
            name: re.sub(pattern, self.ours, "".join(f"{line}\n" for line in lines)).splitlines()
            if re.fullmatch(self.clients, name)
            else lines
            for name, lines in transcript.items()
        }


def closes(code: str, explanation: str = ".*", ids: str = r"\d+, method_id=\d+") -> str:
    """The pattern of a connection.close: `502, reply_text='SYNTAX_ERROR - …', class_id=…)`."""
    return rf"\[0\] Connection\.Close\(reply_code={code} - {explanation}., class_id={ids}\)"


SILENCE = r"socket closed"

DIFFERENCES: tuple[Difference, ...] = (
    Difference(
        "a wrong protocol header is answered with that of AMQP 0-9-1, which is what fluffle"
        " speaks; RabbitMQ names AMQP 1.0",
        scenarios=r"section_01_connection\.protocol_headers_that_are_refused",
        theirs=r"3, 1, 0, 0\]",
        ours="0, 0, 9, 1]",
    ),
    Difference(
        "the mechanism ANONYMOUS is not offered: who connects says who he is",
        scenarios=r"section_01_connection\.what_the_server_says_of_itself",
        theirs=r"ANONYMOUS\n",
        ours="",
    ),
    Difference(
        "the server properties say version 4.3.5, whose behaviour this is, and have"
        " fluffle_version beside it",
        scenarios=r"section_01_connection\.what_the_server_says_of_itself",
        theirs=r"(information: S)\n(platform: S\n.*\nversion: S b')4\.0\.5'",
        ours=r"fluffle_version: S\n\1\n\g<2>4.3.5'",
    ),
    Difference(
        "a SASL response that cannot be read is a 502, an unknown mechanism a 503; RabbitMQ hangs"
        " up after three seconds",
        scenarios=r"section_01_connection\.responses_that_no_mechanism_reads",
        theirs=SILENCE,
        ours="refused",
        said=closes(
            "(502, reply_text='SYNTAX_ERROR|503, reply_text=.COMMAND_INVALID)",
            ids="10, method_id=11",
        ),
        clients="(?!.*name).*",
    ),
    Difference(
        "an AMQPLAIN LOGIN that is no string is a 403, like any other unknown name; RabbitMQ hangs"
        " up after three seconds",
        scenarios=r"section_01_connection\.responses_that_no_mechanism_reads",
        theirs=SILENCE,
        ours="refused",
        said=closes("403, reply_text='ACCESS_REFUSED", "Login was refused using .*"),
        clients=".*name",
    ),
    Difference(
        "limits out of range are a 530 with the text that RabbitMQ logs; RabbitMQ hangs up after"
        " three seconds",
        scenarios=r"section_01_connection\.limits_that_are_not_taken",
        theirs=SILENCE,
        ours="refused",
        said=closes(
            "530, reply_text='NOT_ALLOWED",
            r"negotiated (frame|channel)_max = \d+( \(no limit\))? is (higher|lower) than the"
            r" (maximum|minimum) allowed value \(\d+\)",
            ids="10, method_id=31",
        ),
    ),
    Difference(
        "the lowest frame_max is 8192 bytes, as with RabbitMQ 4.1",
        scenarios=r"section_01_connection\.the_smallest_frame_of_old",
        theirs=r"Connection\.OpenOk\(.*\)",
        ours="Connection.Close(reply_code=530, reply_text='NOT_ALLOWED - negotiated frame_max ="
        " 4096 is lower than the minimum allowed value (8192)', class_id=10, method_id=31)",
    ),
    Difference(
        "methods out of turn before tune-ok are a 504, frames on channels a 505, as after it;"
        " RabbitMQ hangs up after three seconds",
        scenarios=r"section_01_connection\.methods_before_their_time",
        theirs=SILENCE,
        ours="refused",
        said=closes(
            "(504, reply_text='CHANNEL_ERROR|505, reply_text='UNEXPECTED_FRAME)",
            ".* connection state (starting|tuning)",
        ),
    ),
    Difference(
        "FRAME_ERROR and UNEXPECTED_FRAME are explained in words; RabbitMQ prints the octets",
        scenarios=r"section_01_\w+\.(frames_that_are_(malformed|too_large)|content_on_channel_zero"
        r"|content_headers_that_are_wrong|methods_before_their_time)",
        theirs=r"(FRAME_ERROR|UNEXPECTED_FRAME) - type \d+, all octets = .*(?=', class_id)",
        ours=r"\1 - …",
        clients=r"end octet.*|kind.*|heartbeat.*|frame_max.*|header|body|empty|truncated"
        r"|(body|channel\.open) for open",
        said=r"(FRAME_ERROR|UNEXPECTED_FRAME) - .*(?=', class_id)",
    ),
    Difference(
        "a frame too large is a 501 during the handshake too; RabbitMQ hangs up after three"
        " seconds",
        scenarios=r"section_01_frames\.a_frame_too_large_for_the_handshake",
        theirs=SILENCE,
        ours="refused",
        said=closes("501, reply_text='FRAME_ERROR", ids="0, method_id=0"),
    ),
    Difference(
        "a body that is longer than announced, or announced as more than 512 MiB, is a 501;"
        " RabbitMQ 4.0.5 waits for ever",
        scenarios=r"section_01_frames\.(bodies_longer_than_announced|absurd_sizes)",
        theirs="nothing is said",
        ours="refused",
        said=closes("501, reply_text='FRAME_ERROR", ids="0, method_id=0"),
    ),
    Difference(
        "a method that does not exist is a 503, as the specification has it, and a table with an"
        " unknown tag a 501; RabbitMQ hangs up at once",
        scenarios=r"section_01_frames\.(methods_that_do_not_exist|arguments_that_cannot_be_read)",
        theirs=SILENCE,
        ours="refused",
        said=closes(
            "(503, reply_text='COMMAND_INVALID|501, reply_text='FRAME_ERROR)",
            r"(unimplemented method \d+\.\d+|cannot decode .*,5,1,107,63,49,50>>)",
        ),
    ),
    Difference(
        "a passive declare needs one of the three rights, as by RabbitMQ 4.3",
        scenarios=r"section_03_permissions\.passive_declares",
        theirs=r"\[(\d+)\] \w+\.DeclareOk\(.*\n.*Channel\.CloseOk\(\)",
        ours=r"[\1] refused",
        said=r"\[(\d+)\] Channel\.Close\(reply_code=403, .* - configure access to .*",
        clients="nobody",
    ),
    Difference(
        "a user who has all his channels is told his own name; RabbitMQ 4.0.5 names the node",
        scenarios=r"section_03_permissions\.channels_of_a_user",
        theirs=r"for user 'oracle@localhost'(.*limit of \((\d)\))",
        ours=r"for user '…'\1",
        said=r"for user '(?:no|two) channels?'(.*limit of \((\d)\))",
    ),
    Difference(
        "topic binding keys with more than two `#` words are refused, as by RabbitMQ 4.3.5",
        scenarios=r"section_04_routing\.more_than_two_hash_words",
        theirs=r"Queue\.BindOk\(\)",
        ours='Channel.Close(reply_code=406, reply_text="PRECONDITION_FAILED - Topic binding key'
        " '#.a.#.b.#' uses 3 '#' wildcards, at most 2 are allowed\", class_id=50, method_id=20)",
    ),
    Difference(
        "properties that cannot be read are a 501, not a 541, one more word of flags included;"
        " client properties too, instead of a hang-up without a word",
        scenarios=r"section_11_tables\..*_that_cannot_be_read",
        theirs=r"\[(541)?\]",
        ours="[501]",
    ),
    Difference(
        "headers are passed on byte for byte: RabbitMQ sorts them by name, drops the second of"
        " two with one name, writes `L` as `l` and true as 1, and clears unused flags",
        scenarios=r"section_11_tables\.what_could_be_written_otherwise",
        theirs=r"(?m): [0-9a-f ]+$",
        ours=": as sent",
    ),
    Difference(
        "x-queue-version 1 is refused, as by RabbitMQ 4.3",
        scenarios=r"section_05_arguments\.the_first_queue_version",
        theirs=r"Queue\.DeclareOk\(.*\)",
        ours=r"Channel.Close(reply_code=406, reply_text='PRECONDITION_FAILED - invalid arg"
        r" \\'x-queue-version\\' for queue \\'first version\\' in vhost \\'/\\':"
        r""" "unsupported queue version \\'1\\'"', class_id=50, method_id=10)""",
    ),
    Difference(
        "a text of more than 255 bytes is cut between characters, where RabbitMQ closes the"
        " connection with 541 unless all are ASCII",
        scenarios=r"section_02_errors\.a_long_text_that_is_not_ascii",
        theirs="Connection.Close: INTERNAL_",
        ours="Channel.Close: NOT_FOUND",
    ),
    Difference(
        "basic.cancel-ok is no error, since the specification lets clients answer a basic.cancel",
        scenarios=r"section_02_errors\.methods_that_only_a_server_sends",
        theirs=r".*503.*\n",
        ours="",
        clients=r"Basic\.CancelOk",
    ),
    Difference(
        "an expiration is passed on as it was written: RabbitMQ writes +60000 as 60000",
        scenarios=r"section_06_publishing\.expirations",
        theirs=r"(delivery_tag=2, .*)expiration='60000'(.*\n.*)expiration='60000'",
        ours=r"\1expiration='+60000'\2expiration='0060000'",
    ),
    Difference(
        "a prefetch for each consumer does not lift the one that all share",
        scenarios=r"section_07_consuming\.a_shared_limit_is_not_lifted_by_each_ones_own",
        theirs=r".*delivery_tag=[23], .*\n",
        ours="",
    ),
    Difference(
        "answers by direct reply-to are numbered like other deliveries, as by RabbitMQ 4.2",
        scenarios=r"section_10_reply_to\.question_and_answers|nodes\.answers_come_from_any_node",
        theirs=r"'replies', delivery_tag=\d+",
        said=r"'replies', delivery_tag=\d+",
        ours="'replies', delivery_tag=…",
    ),
    Difference(
        "answers by direct reply-to are part of a transaction, as by RabbitMQ 4.2",
        scenarios=r"section_10_reply_to\.asking_oneself_in_a_transaction",
        theirs=r".*b'forgotten'\n",
        ours="",
    ),
    Difference(
        "a mandatory answer by direct reply-to is never returned, as by RabbitMQ 4.2: 4.0"
        " delivers and returns it",
        scenarios=r"section_10_reply_to\.a_mandatory_answer_is_routed",
        theirs=r".*Basic\.Return\(.*\n",
        ours="",
    ),
    Difference(
        "the names of direct reply-to cannot be bound or unbound, as by RabbitMQ 4.3",
        scenarios=r"section_10_reply_to\.a_requester_is_not_bound",
        theirs=r"Channel\.Close\(reply_code=404.*(\n.*)Queue\.UnbindOk\(\)",
        ours="Channel.Close(reply_code=403, reply_text='ACCESS_REFUSED - cannot bind or unbind to a"
        " volatile (direct reply-to) queue', class_id=50, method_id=20)\\1"
        "Channel.Close(reply_code=403, reply_text='ACCESS_REFUSED - cannot bind or unbind to a"
        " volatile (direct reply-to) queue', class_id=50, method_id=50)",
    ),
    Difference(
        "what has failed in a quorum queue is new in the next one if it was in a classic queue in"
        " between",
        scenarios=r"section_15_dying\.through_a_classic_queue"
        r"|quorum\.section_09_dead_letters\.a_cycle_ends_in_one_queue_and_not_in_another",
        theirs=r"redelivered=True(, exchange='.*?x-death: A \[F \{[^}]*queue: S b'"
        r"(?:between|ages classic)'.*?), x-delivery-count: l \d+(.*)",
        ours=r"redelivered=False\1\2",
    ),
    Difference(
        "what has failed in a quorum queue goes on being counted in the next one, as by RabbitMQ"
        " 4.3, where to be rejected with requeue is a failure",
        scenarios=r"section_15_at_least_once\.what_must_arrive_does"
        r"|section_15_durability\.quorum_counts\..*",
        theirs=r"('(?:sure quorum|grave)', .*)redelivered=False(.*)(x-death: .*?)(, .*'worn out')",
        ours=r"\1redelivered=True\2failed, \3\4",
        said=r"('(?:sure quorum|grave)', .*)redelivered=True(.*)x-acquired-count: l \d+, "
        r"(x-death: .*?), x-delivery-count: l \d+(, .*'worn out')",
    ),
    Difference(
        "x-acquired-count is how often a message was handed out in all; in RabbitMQ it begins anew"
        " with what has failed where it died, and once more when that comes back",
        scenarios=r"section_15_dying\.how_often_it_was_handed_out_in_all",
        theirs=r"(x-death: .*?)x-delivery-count: l \d+",
        ours=r"some, \1",
        said=r"x-acquired-count: l \d+, (x-death: .*?)x-delivery-count: l \d+",
    ),
    Difference(
        "of what comes back to a quorum queue at once and is too much the oldest is dead-lettered"
        " first, as by RabbitMQ 4.2.1; before that it hands them on backwards",
        scenarios=r"section_08_limits\.several_that_come_back_are_too_many",
        theirs=r"(?m)^(.*'at once quorum .*delivery_tag=)(\d+)(.*) b'1'\n"
        r".*delivery_tag=(\d+).* b'0'$",
        ours=r"\1\2\3 b'0'\n\1\4\3 b'1'",
    ),
    Difference(
        "what a channel gives back to a quorum queue at once comes in the order in which it was"
        " handed out; with RabbitMQ consumer after consumer, and what basic.get got at the end if"
        " the channel ends, else in front",
        scenarios=r"section_15_quorum\.what_one_channel_gives_back_at_once",
        theirs=r"(?m)^(?:(close|hang up): b'1 3 2 4 0 5|(nack|recover): b'0 5 1 3 2 4)'$",
        ours=r"\1\2: b'0 1 2 3 4 5'",
    ),
    Difference(
        "what comes from a quorum queue again has x-acquired-count, and x-delivery-count if that"
        " failed, as by RabbitMQ 4.3; 4.0 has the first under the second name",
        scenarios=r"section_15_quorum\.(giving_back|unknown_tags_of_one|what_is_given_back.*)"
        r"|section_15_dying\..*|section_15_at_least_once\..*|section_15_durability\.quorum_(messages|counts)\..*"
        r"|section_08_expiry\.again_and_again_after_a_while"
        r"|section_07_single_active\.(the_highest|who_takes_nothing)_.*|(nodes|quorum)\..*"
        r"|section_08_limits\.what_comes_back_is_too_much",
        theirs=r"(?P<death>x-death: .*?, )?x-delivery-count: l (?P<count>\d+)",
        ours=r"acquired: \g<count> \g<death>",
        said=r"x-acquired-count: l (?P<count>\d+)"
        r"(?:, (?P<death>x-death: .*?, )?x-delivery-count: l \d+)?",
    ),
    Difference(
        "who has got messages from a quorum queue is none of its consumers; RabbitMQ counts one for"
        " each message until it is settled",
        scenarios=r"section_15_quorum\.(polling|transactions)|quorum\.section_07_consuming\..*",
        theirs=r"consumer_count=[12]",
        ours="consumer_count=0",
    ),
    Difference(
        "a transaction that publishes to a quorum queue which has gone meanwhile is a 406, as with"
        " a classic queue; RabbitMQ commits, and the message is lost, or in the next queue of that"
        " name",
        scenarios=r"quorum\.section_06_transactions\.a_queue_(gone|made_anew)_before_the_commit",
        theirs=r"\[(\d)\] Tx\.CommitOk\(\)(\n.*Basic\.Get)(Ok\(.*to the old one'|.*)",
        ours="[\\1] 406\\2…",
        said=r"\[(\d)\] Channel\.Close\(.* partial tx completion', .*\)(\n.*Basic\.Get)(.*)",
    ),
    Difference(
        "who uses a durable classic queue whose node is away is told at once which node that is;"
        " RabbitMQ 4.0 says that its process is stopped, or lets clients wait if the node was"
        " killed",
        scenarios=r"nodes\.the_node_of_classic_queues_is_stopped",
        clients="tries on a",
        theirs=r"NOT_FOUND - (queue 'nodes\.home' in vhost '/') process is stopped by supervisor",
        ours=r"NOT_FOUND - home node 'c' of durable \1 is down or inaccessible",
    ),
    Difference(
        "a hash-header or hash-property that is no string is a 406; RabbitMQ closes the connection"
        " with 541",
        scenarios=r"section_04_types\.arguments_of_a_hash_that_are_no_strings",
        theirs=r"\[0\] Connection\.Close\(reply_code=541, .*\)",
        ours="refused",
        said=r"\[1\] Channel\.Close\(reply_code=406, .* invalid type 'long' for arg 'hash-.*\)",
    ),
    Difference(
        "a weight of an x-consistent-hash exchange beyond 10,000 is a 406, as with RabbitMQ 4.3",
        scenarios=r"section_04_types\.weights_that_are_too_large_since_4_3",
        theirs=r"\[2\] Queue\.BindOk\(\)",
        ours="[2] 406",
        said=r"\[2\] Channel\.Close\(reply_code=406, .* must not exceed 10000', .*\)",
    ),
    Difference(
        "an exchange that is bound to an x-recent-history exchange is given the oldest message"
        " first, as a queue is; RabbitMQ begins with the newest",
        scenarios=r"section_04_history\.exchanges_that_are_bound_to_a_history_of_several",
        theirs=r"key of 3(.*)b'3'(\n.*\n.*)key of 1(.*)b'1'",
        ours=r"key of 1\1b'1'\2key of 3\3b'3'",
    ),
    Difference(
        "an exchange that leads nowhere may be bound to an x-recent-history exchange; RabbitMQ"
        " makes the binding and closes the connection with 541",
        scenarios=r"section_04_history\.exchanges_where_a_history_leads_nowhere",
        theirs=r"\[0\] Connection\.Close\(reply_code=541, .*\)",
        ours="[1] Exchange.BindOk()",
    ),
    Difference(
        "an x-dead-letter-routing-key of more than 255 bytes is cut between characters; RabbitMQ"
        " closes the connection of whoever gets the message with 541",
        scenarios=r"(quorum\.)?section_09_dead_letters\.a_routing_key_that_no_frame_holds",
        clients="other",
        theirs=r"\[0\] Connection\.Close\(reply_code=541, .*\)",
        ours="got",
        said=r"\[1\] Basic\.GetOk\(.*routing_key='k{255}'.*",
    ),
    Difference(
        "a binding of an x-jms-topic exchange without a selector that can be read is a 406 with"
        " RabbitMQ 4.3's texts; RabbitMQ closes the connection with 541",
        scenarios=r"section_04_selectors\.selectors_that_cannot_be",
        theirs=r"\[0\] Connection\.Close\(reply_code=541, .*\)",
        ours="refused",
        said=r"\[1\] Channel\.Close\(reply_code=406, .* (cannot parse|invalid JMS) selector.*\)",
    ),
    Difference(
        "selectors with other atoms than selectors have, with a LIKE that cannot be, or a hundred"
        " deep, are a 406, as with RabbitMQ 4.3, where sixteen deep is enough for it",
        scenarios=r"section_04_selectors\.selectors_that_rabbitmq_refuses_since_4_3",
        theirs=r"(\[[2-6]\]) Queue\.BindOk\(\)",
        ours=r"\1 406",
        said=r"(\[\d\]) Channel\.Close\(reply_code=406, .* invalid JMS selector.*\)",
    ),
    Difference(
        "a selector that contains a regular expression, which no client makes, is a 406",
        scenarios=r"section_04_selectors\.a_selector_with_a_regular_expression",
        theirs=r"\[2\] Queue\.BindOk\(\)",
        ours="[2] 406",
        said=r"\[2\] Channel\.Close\(reply_code=406, .* \{invalid_regex,not_supported\}.*\)",
    ),
    Difference(
        "if a selector cannot be worked out with what a header is, it does not match; RabbitMQ"
        " closes the connection of the publisher with 541",
        scenarios=r"section_04_selectors\.headers_that_a_selector_cannot_use",
        clients="case .*",
        theirs=r"\[0\] Connection\.Close\(reply_code=541, .*\)",
        ours="[1] Basic.GetEmpty(cluster_id='')",
    ),
    Difference(
        "two bindings of an x-jms-topic exchange that differ in their selectors alone both count;"
        " with RabbitMQ both have the selector of the last",
        scenarios=r"section_04_selectors\.two_selectors_of_one_key",
        theirs=r"\[1\] Basic\.GetOk\(delivery_tag=1(.*, )message_count=0\)(.*)2}}(.*)2'",
        ours=r"[1] Basic.GetOk(delivery_tag=1\1message_count=1)\g<2>1}}\g<3>1'\n"
        r"[1] Basic.GetOk(delivery_tag=2\1message_count=0)\g<2>2}}\g<3>2'",
    ),
    Difference(
        "an exclusive queue of an MQTT session is not durable in its event, as it is nowhere on"
        " disk; RabbitMQ says that it is",
        scenarios=r"mqtt_events\.heard",
        theirs="durable: t True, exclusive: t True",
        ours="durable: t False, exclusive: t True",
    ),
    Difference(
        "the queue for QoS 0 of an MQTT client that has gone is deleted by rmq-internal in its"
        " event, as any exclusive queue is; by RabbitMQ it is deleted by the user",
        scenarios=r"mqtt_events\.heard",
        theirs=r"(queue\.deleted .* S b'rabbit_mqtt_qos0_queue', user_\w+: S b)'guest'",
        ours=r"\1'rmq-internal'",
    ),
    Difference(
        "the arguments of a binding for MQTT 5.0 in its event are those that the API shows;"
        " RabbitMQ has a record of Erlang beside them",
        scenarios=r"mqtt_events\.heard",
        theirs=r"S b'{mqtt_subscription_opts,[^}]*}', ",
        ours="",
    ),
)
