"""Faults between a broker and its clients, on demand.

    client's socket --> TappedConnection --> Connection of the broker
                         |
                         +-- frozen, cut, in pieces; confirms held back;
                             packets of MQTT refused, sent twice, cut off

`ClientAcceptor` accepts in the place of the loop and puts a `TappedConnection` in front of each
connection: a broker that runs as a daemon has neither.  `FaultScope` is what
faults of one virtual host act on, and remembers which are in effect; `operations` has them all by
name.
"""
