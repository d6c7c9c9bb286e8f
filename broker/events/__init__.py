"""What happens on a node, told to whoever is bound to `amq.rabbitmq.event`."""
