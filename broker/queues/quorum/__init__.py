"""What the members of a replicated queue agree on: facts, their bytes, and what they amount to."""
