"""Storage that survives a restart: logs of entries by group, and a catalog of definitions, in LMDB.

batch     what must become durable together
store     batches in, "it is durable" out
log       entries by group and index; `mover` keeps it small, `positions` finds things in it
catalog   definitions by name
raft_log  the log store of consensus over all of this; `raft_memory` its fake
disk      the port; `environment` is LMDB, `memory` the fake
layout    every key and value on disk; `record` is the one that most bytes are in
"""
