"""Mixed abuse of a real node, while a well-behaved client is watched: `make abuse TIME=…`."""
