"""The choice of tests: what runs by day, what at night, and what of it is drawn anew."""
