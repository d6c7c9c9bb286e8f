"""What reads bytes of strangers, given any bytes: by hypothesis in the suite, by `make fuzz`."""
