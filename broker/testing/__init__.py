"""Nodes inside somebody's tests: the same code as the daemon's, with a clock that can be moved."""
