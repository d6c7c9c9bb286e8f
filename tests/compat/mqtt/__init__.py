"""Scenarios of MQTT, which mosquitto and RabbitMQ have been asked."""
