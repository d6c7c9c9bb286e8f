"""RabbitMQ's configuration, read for fluffle: what it says in options, what is ignored and why."""
