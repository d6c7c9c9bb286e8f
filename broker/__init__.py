"""The broker: routing, queues, the AMQP server around them and the daemon around that."""
