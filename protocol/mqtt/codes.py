"""Numbers of MQTT: types of packets and reason codes; and the error that carries a code.

Sources: MQTT 5.0 (S5 below) §2.1.2, §2.4, and of each packet the table of its codes; MQTT 3.1.1
(S3 below) §3.2.2.3.
"""

from enum import IntEnum

MQTT_3_1, MQTT_3_1_1, MQTT_5 = 3, 4, 5
"""Versions by the level that CONNECT names.  What holds below `MQTT_5` holds for both others."""


class PacketType(IntEnum):
    """Types of packets, the upper half of their first octet."""

    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


class ReasonCode(IntEnum):
    """Outcomes as MQTT 5.0 numbers them; from 0x80 on they are errors."""

    SUCCESS = 0x00
    """Also the normal disconnection, and a granted QoS of 0."""
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2

    @property
    def is_error(self) -> bool:
        return self >= ReasonCode.UNSPECIFIED_ERROR


class InvalidPacket(Exception):
    """Bytes that MQTT does not allow, with the reason code for a client of 5.0."""

    def __init__(self, code: ReasonCode, text: str) -> None:
        super().__init__(text)
        self.code = code
        self.text = text


def malformed(text: str) -> InvalidPacket:
    return InvalidPacket(ReasonCode.MALFORMED_PACKET, text)


def protocol_error(text: str) -> InvalidPacket:
    return InvalidPacket(ReasonCode.PROTOCOL_ERROR, text)


RETURN_CODE_UNAVAILABLE = 3
FAILURE = 0x80
"""The only error that SUBACK knows before 5.0."""

RETURN_CODES: dict[ReasonCode, int] = {
    ReasonCode.SUCCESS: 0,
    ReasonCode.UNSUPPORTED_PROTOCOL_VERSION: 1,
    ReasonCode.CLIENT_IDENTIFIER_NOT_VALID: 2,
    ReasonCode.BAD_USER_NAME_OR_PASSWORD: 4,
    ReasonCode.NOT_AUTHORIZED: 5,
    ReasonCode.QUOTA_EXCEEDED: 5,
}
"""Return codes of CONNACK before 5.0; all that is not here is `RETURN_CODE_UNAVAILABLE`."""


def return_code(code: ReasonCode) -> int:
    """Return what CONNACK says before 5.0 for a reason code, as RabbitMQ maps them."""
    return RETURN_CODES.get(code, RETURN_CODE_UNAVAILABLE)


def codes_of(*numbers: int) -> frozenset[ReasonCode]:
    return frozenset(map(ReasonCode, numbers))


RECEIVED = codes_of(0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99)
RELEASED = codes_of(0x00, 0x92)
END_OF_BOTH = codes_of(
    *(0x00, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99)
)

CLIENT_CODES: dict[PacketType, frozenset[ReasonCode]] = {
    PacketType.PUBACK: RECEIVED,
    PacketType.PUBREC: RECEIVED,
    PacketType.PUBREL: RELEASED,
    PacketType.PUBCOMP: RELEASED,
    PacketType.DISCONNECT: END_OF_BOTH | codes_of(0x04),
    PacketType.AUTH: codes_of(0x18, 0x19),
}
"""Codes that a client may send, by packet."""

BROKER_CODES: dict[PacketType, frozenset[ReasonCode]] = {
    PacketType.CONNACK: codes_of(
        *(0x00, 0x80, 0x81, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8A, 0x8C),
        *(0x90, 0x95, 0x97, 0x99, 0x9A, 0x9B, 0x9C, 0x9D, 0x9F),
    ),
    PacketType.PUBACK: RECEIVED,
    PacketType.PUBREC: RECEIVED,
    PacketType.PUBREL: RELEASED,
    PacketType.PUBCOMP: RELEASED,
    PacketType.SUBACK: codes_of(
        *(0x00, 0x01, 0x02, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2)
    ),
    PacketType.UNSUBACK: codes_of(0x00, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91),
    PacketType.DISCONNECT: END_OF_BOTH
    | codes_of(
        *(0x87, 0x89, 0x8B, 0x8C, 0x8D, 0x8E, 0x8F, 0x9A, 0x9B, 0x9C, 0x9D, 0x9E, 0x9F),
        *(0xA0, 0xA1, 0xA2),
    ),
    PacketType.AUTH: codes_of(0x00, 0x18),
}
"""Codes that a broker may send, by packet."""
