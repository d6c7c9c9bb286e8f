"""Storage of a node: journals of queues, definitions on disk, paging."""
