"""Configuration of a node: options, the files they stand in, and rabbitmq.conf."""
