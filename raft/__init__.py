"""Consensus, sans-IO: the home of the Raft core.  Empty until quorum queues are built on it."""
