"""Arguments in JSON and in field tables.

As RabbitMQ reads them: an integer is a `long`, a number with a point a `double`, and so on.  The
way back forgets the type tags, which JSON has no place for.
"""

from typing import Any

from fluffle.broker.definitions.parser import DefinitionsError
from fluffle.protocol.spec import ProtocolError
from fluffle.protocol.types import Field, FieldTable, FieldValue
from fluffle.protocol.wire import encode_table, read_table

LONG_MIN, LONG_MAX = -(2**63), 2**63 - 1


def table_of(arguments: dict[str, Any]) -> FieldTable:
    """Return the arguments of an entry as a field table.  DefinitionsError for what cannot be in
    one."""
    table = _table_of(arguments)
    try:
        read_table(encode_table(table), 0)
    except (ProtocolError, ValueError) as error:
        raise DefinitionsError(f"these cannot be arguments: {error}") from error
    return table


def plain(table: FieldTable) -> dict[str, Any]:
    """Return a field table as arguments of an entry."""
    return {name: _plain_value(value) for name, (_tag, value) in table.items()}


def _table_of(arguments: dict[str, Any]) -> FieldTable:
    return {name: _field_of(value) for name, value in arguments.items()}


def _field_of(value: Any) -> Field:
    match value:
        case None:
            return "V", None
        case bool():
            return "t", value
        case int():
            if not LONG_MIN <= value <= LONG_MAX:
                raise DefinitionsError(f"{value} is too large for an argument")
            return "l", value
        case float():
            return "d", value
        case str():
            return "S", value.encode()
        case dict():
            return "F", _table_of(value)
        case _:
            return "A", [_field_of(item) for item in value]


def _plain_value(value: FieldValue) -> Any:
    match value:
        case bytes():
            return value.decode(errors="replace")
        case dict():
            return plain(value)
        case list():
            return [_plain_value(item) for _tag, item in value]
        case (int(scale), int(unscaled)):
            return unscaled / 10**scale
        case _:
            return value
