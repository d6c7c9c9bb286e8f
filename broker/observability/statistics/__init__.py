"""What happens to each queue, exchange, channel and connection of a node: counts, and how fast they
grow.  Composed in at the start, where somebody may ask; else nothing of it is there.
"""
