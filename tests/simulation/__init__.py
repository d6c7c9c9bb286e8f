"""Whole clusters in one thread: production code on simulated time, networks and disks."""
