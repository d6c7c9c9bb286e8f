"""Clusters that are founded, grow and shrink, under a bad network: see `formation_cluster`."""
