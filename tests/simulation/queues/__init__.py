"""Runs about queues: metadata, replicated queues, their leaders, edges and clients."""
