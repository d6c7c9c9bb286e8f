"""What survives a restart: the home of the LMDB store.  Empty until queues are durable."""
