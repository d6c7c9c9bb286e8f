"""Edges and the leaders of queues: the numbered streams between them, without a network."""
