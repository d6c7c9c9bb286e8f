"""Definitions: RabbitMQ's JSON of users, virtual hosts and what is in them, in and out."""
