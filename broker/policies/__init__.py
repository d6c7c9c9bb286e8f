"""Policies: which of them a queue or an exchange falls under, and what they say together.  Pure."""
