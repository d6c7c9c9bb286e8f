"""Reason codes and types of packets are those of the specification."""

from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode as PahoReasonCode

from fluffle.protocol.mqtt.codes import (
    BROKER_CODES,
    CLIENT_CODES,
    PacketType,
    ReasonCode,
    return_code,
)


def test_types_of_packets_are_those_of_another_library() -> None:
    names = [name.upper() for name in PacketTypes.Names[1:]]
    assert [kind.name for kind in PacketType] == names
    assert [int(kind) for kind in PacketType] == list(PacketTypes.indexes)


def test_codes_are_those_of_another_library() -> None:
    known = PahoReasonCode(PacketTypes.CONNACK).names
    assert {int(code) for code in ReasonCode} == set(known)
    places: dict[int, set[int]] = {}
    for number, names in known.items():
        for kinds in names.values():
            for kind in kinds:
                places.setdefault(kind, set()).add(number)
    for kind in PacketType:
        allowed = CLIENT_CODES.get(kind, frozenset()) | BROKER_CODES.get(kind, frozenset())
        # It does not know that the payload of a will may be refused (§3.2.2.2).
        missing = {0x99} if kind is PacketType.CONNACK else set()
        assert set(map(int, allowed)) == places.get(kind, set()) | missing, kind


def test_errors_begin_at_0x80() -> None:
    assert not ReasonCode.REAUTHENTICATE.is_error
    assert ReasonCode.UNSPECIFIED_ERROR.is_error


def test_return_codes_of_mqtt_3_1_1() -> None:
    codes = {return_code(code) for code in ReasonCode}
    assert codes == {0, 1, 2, 3, 4, 5}
    assert [code for code in ReasonCode if not return_code(code)] == [ReasonCode.SUCCESS]
