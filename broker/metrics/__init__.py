"""Metrics for Prometheus, under RabbitMQ's names where it has them."""
