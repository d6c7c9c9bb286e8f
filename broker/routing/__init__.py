"""From an exchange and a routing key to the names of queues.  Pure: no IO, no clock."""
