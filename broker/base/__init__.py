"""Values, errors, logs and small helpers that every other package may import."""
