"""Helpers that several tests share: fakes, models and a way to ask for tools."""
