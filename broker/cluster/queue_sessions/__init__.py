"""Numbered sessions between a node's clients and the leaders of queues, without a network."""
