"""The queue engine and what it is made of.  Pure: no IO, no clock."""
