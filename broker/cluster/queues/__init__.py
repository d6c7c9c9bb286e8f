"""Queues whose messages live on other nodes too, or only there."""
