"""Fuzzing of all that reads bytes of strangers: by hypothesis in the suite, by `make fuzz`."""
