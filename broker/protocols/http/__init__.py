"""RabbitMQ's management API over HTTP, and the pages on top of it."""
