"""Who may log in, and what he may do.  No sockets and no clock; slow checks go through a port."""
