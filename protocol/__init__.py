"""AMQP 0-9-1 as bytes and events, sans-IO.  Imports nothing but the standard library and pamqp."""
