"""Types of AMQP field tables: values with the type tag each came with.

A tag is the one-letter string of the wire (`t b B s u I i l L f d D S x T F A V`).  It is kept
because a value must leave the broker as it came: `('s', 5)` and `('l', 5)` are equal numbers
and different bytes.

Python values by tag: t bool; b B s u I i l L T int (T in seconds); f d float; D (scale, value);
S x bytes; F FieldTable; A list of Field; V None.
"""

from typing import TypeAlias

FieldValue: TypeAlias = (
    "bool | int | float | bytes | tuple[int, int] | dict[str, Field] | list[Field] | None"
)
Field: TypeAlias = tuple[str, FieldValue]
FieldTable: TypeAlias = dict[str, Field]
"""Keys as text (surrogateescape for bytes that are not UTF-8), in the order of the wire."""
