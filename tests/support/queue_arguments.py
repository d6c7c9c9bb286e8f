"""Arguments of queues, by names that are none of Python's with an x in front."""

from fluffle.protocol.wire import FieldTable, PlainValue, to_table


def queue_arguments(**said: PlainValue) -> FieldTable:
    """`queue_arguments(max_length=5)`: a table with x-max-length; what is None is not said."""
    return to_table(
        {f"x-{name.replace('_', '-')}": value for name, value in said.items() if value is not None}
    )
