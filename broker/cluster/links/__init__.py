"""TCP between the nodes of a cluster: proofs of identity, frames, links that return.

`links.ClusterLinks` is the port `Links` over real sockets.  Each node dials each other node and
sends over the connection that it dialled; what it receives comes over those that were dialled to
it.  So between two nodes there are two connections, each with one direction for frames.
"""
