"""Whole clusters with clients of MQTT."""
