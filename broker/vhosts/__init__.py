"""Virtual hosts: their queues and exchanges, and changes of them."""
