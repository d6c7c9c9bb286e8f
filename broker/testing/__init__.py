"""Nodes inside tests of applications: the same code as the daemon's, with a clock that can be
moved."""
