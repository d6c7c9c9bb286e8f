"""Statistics of the queues, exchanges, channels and connections of a node: counts and rates.
They are composed in at the start where they are wanted, and cost nothing otherwise."""
