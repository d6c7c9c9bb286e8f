"""Clusters inside somebody's tests: each node a process of one loop, and all that can go wrong."""
