"""Definitions as changes: decided in one place, committed, applied wherever they count.  Pure."""
