"""Where fluffle answers otherwise than RabbitMQ 4.0.5, on purpose: the one list, with reasons.

A difference rewrites what RabbitMQ said into what fluffle is to say.  One that changes nothing in
any scenario it names is stale, and a test says so.
"""

import re
from dataclasses import dataclass

from tests.compat.scenario import Transcript


@dataclass(frozen=True, slots=True)
class Difference:
    """In the scenarios and for the clients that match, each match of `theirs` becomes `ours`."""

    reason: str
    scenarios: str
    theirs: str
    ours: str
    clients: str = ".*"

    def concerns(self, name: str) -> bool:
        return re.fullmatch(self.scenarios, name) is not None

    def applied(self, transcript: Transcript) -> Transcript:
        """The transcript as it is to be: the lines of a client are one text, ending in newlines."""
        return {
            name: self._rewritten(lines) if re.fullmatch(self.clients, name) else lines
            for name, lines in transcript.items()
        }

    def _rewritten(self, lines: list[str]) -> list[str]:
        text = "".join(f"{line}\n" for line in lines)
        return re.sub(self.theirs, self.ours, text).splitlines()


DIFFERENCES: tuple[Difference, ...] = (
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
        "x-consumer-timeout is known, and refused for classic queues, as by RabbitMQ 4.3",
        scenarios=r"section_05_arguments\.a_consumer_timeout_is_for_quorum_queues",
        theirs=r"Queue\.DeclareOk\(.*\)",
        ours='Channel.Close(reply_code=406, reply_text="PRECONDITION_FAILED - invalid arg'
        " 'x-consumer-timeout' for queue 'timeout' in vhost '/' of queue type"
        ' rabbit_classic_queue", class_id=50, method_id=10)',
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
)
