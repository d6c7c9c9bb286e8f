"""Measurements of the broker, alone and beside RabbitMQ.  See README.md."""
