"""Moving messages between queues, while both are in use."""
