"""Journals of durable queues, on the disk of their node."""
