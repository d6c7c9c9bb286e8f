"""Consensus, sans-IO: many Raft groups of one node; messages and facts in, one output a turn out.

Standard library only; no clock, no chance, no disk: `now_ms` and a `Chance` are arguments, and what
must be written or read is part of the output.  The rules and the way through the files are in
`docs/raft.md`.
"""
