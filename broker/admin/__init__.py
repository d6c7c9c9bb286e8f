"""Administering a running node: verbs over its parts, and the socket that takes them."""
