"""Numbers of AMQP 0-9-1 as RabbitMQ uses them: frame kinds, reply codes, protocol limits;
and the error that carries a reply code.

Sources: the AMQP 0-9-1 specification §4.2, §1.2 (constants) and RabbitMQ 4.3's framing module.
"""

from enum import IntEnum

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_END = 0xCE

FRAME_OVERHEAD_BYTES = 8
"""Seven bytes before the payload (kind, channel, size) and the end octet behind it."""

DIRECT_REPLY_TO = "amq.rabbitmq.reply-to"
"""The queue that is none: an answer to it goes straight to the requester (RabbitMQ)."""

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

CLASS_BASIC = 60
METHOD_PUBLISH = 40
SHORTSTR_BYTES_MAX = 255


class ReplyCode(IntEnum):
    """Why a channel or a connection was closed, or a message returned (§1.2)."""

    REPLY_SUCCESS = 200
    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    INVALID_PATH = 402
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


SOFT_CODES = frozenset(
    {
        ReplyCode.CONTENT_TOO_LARGE,
        ReplyCode.NO_ROUTE,
        ReplyCode.NO_CONSUMERS,
        ReplyCode.ACCESS_REFUSED,
        ReplyCode.NOT_FOUND,
        ReplyCode.RESOURCE_LOCKED,
        ReplyCode.PRECONDITION_FAILED,
    }
)
"""The codes that close only the channel; every other error closes the connection."""


def reply_text(code: ReplyCode, explanation: str) -> str:
    """Return the text RabbitMQ sends with `code`: its name, a dash, the explanation.

    At most 255 bytes; of a longer one RabbitMQ keeps 252 and says so with three dots.
    """
    text = f"{code.name} - {explanation}".encode(errors="surrogateescape")
    if len(text) > SHORTSTR_BYTES_MAX:
        text = text[: SHORTSTR_BYTES_MAX - 3] + b"..."
    return text.decode(errors="ignore")


class ProtocolError(Exception):
    """Bytes or methods that AMQP does not allow; `code` decides what is closed.

    `class_id` and `method_id` name the offending method, 0 and 0 when there is none.
    """

    def __init__(
        self, code: ReplyCode, explanation: str, *, class_id: int = 0, method_id: int = 0
    ) -> None:
        super().__init__(reply_text(code, explanation))
        self.code = code
        self.explanation = explanation
        self.class_id = class_id
        self.method_id = method_id

    @property
    def reply_text(self) -> str:
        """Reply text as RabbitMQ words it, `NAME - explanation`; at most 255 bytes."""
        return reply_text(self.code, self.explanation)
