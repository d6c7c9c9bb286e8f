"""Storage that survives a restart: logs of entries by group, and a catalog of definitions, in LMDB.

store     batches in, "it is durable" out; the thread that commits
log       entries by group and index
raft_log  the log store of consensus over all of this, `heads` what it keeps besides entries
disk      the port, and one in memory; `environment` is LMDB
layout    every key and value on disk
"""
