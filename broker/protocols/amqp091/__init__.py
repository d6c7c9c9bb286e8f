"""The edge: AMQP connections and channels, the only floor that knows AMQP methods."""
