"""Turns, timers, group commits and background work of one event loop."""
