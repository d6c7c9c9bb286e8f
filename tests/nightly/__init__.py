"""Everything that is too much for a day: new seeds, all mutants, RabbitMQ, torture, coverage."""
