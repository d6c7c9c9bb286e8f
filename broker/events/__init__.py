"""Events of a node, published to `amq.rabbitmq.event`."""
