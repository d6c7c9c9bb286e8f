"""Messages on their way between queues: dead letters, moves, conversion of queues."""
