"""Resource alarms: memory and disk."""
