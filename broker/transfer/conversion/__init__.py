"""A classic queue becomes a quorum queue in its place, with all its messages."""
