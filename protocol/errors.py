"""Errors of a peer on the wire, with what it must be sent."""

from fluffle.protocol.spec import ReplyCode, reply_text


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
