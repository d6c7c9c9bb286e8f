"""Stored definitions of a node: facts as bytes, and the image that is read from them."""
