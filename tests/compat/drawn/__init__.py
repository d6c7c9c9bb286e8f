"""Conversations that chance draws, held with RabbitMQ and with fluffle step by step."""
