"""What is remembered of a node's definitions: facts into bytes, and back into an image of them."""
