"""What survives a restart: the home of the LMDB store.  Empty until durable queues are built on it."""
