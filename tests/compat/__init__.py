"""Scenarios that run against RabbitMQ and fluffle, which must answer alike."""
