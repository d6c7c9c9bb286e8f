"""A RabbitMQ that runs somewhere, for tests that are written for fluffle."""
