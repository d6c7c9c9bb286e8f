"""Systems to torture on this machine: `python -m tests.torture fluffle --seconds 60`.

What tortures is that of `fluffle torture`; here are nodes that it can do anything to.
"""
