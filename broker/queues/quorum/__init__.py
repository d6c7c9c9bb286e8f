"""Quorum queues: facts that the members agree on, their bytes, and the state that results."""
