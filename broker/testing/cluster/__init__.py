"""Clusters inside tests of applications: each node a process of one loop, and all that can go
wrong."""
