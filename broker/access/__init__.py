"""Access control: users, their passwords and what they may do.

No sockets and no clock; slow checks go through a port.
"""
