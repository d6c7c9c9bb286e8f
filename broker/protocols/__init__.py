"""Protocols that clients speak: AMQP 0-9-1, MQTT and HTTP."""
