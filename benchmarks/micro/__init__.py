"""Measurements of single functions, in nanoseconds per message."""
