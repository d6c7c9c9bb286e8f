"""What remembers queues when the process does not."""
