"""The commands that talk to a running node over its control socket; nothing of a node is in them.

They are started often, by people and by probes, so that they import next to nothing: no event loop,
no store, no broker.  pyproject.toml has the contract.
"""
