"""Parts of a node, put together: alone, in a cluster, and its HTTP listeners."""
