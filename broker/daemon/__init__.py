"""The daemon of fluffle serve, and commands that work on configuration and data without a node."""
