"""`fluffle bench`: a load of publishers and consumers on any AMQP 0-9-1 broker, and its figures.

It knows AMQP and nothing of a node.  It is one process of Python, whose own speed is the limit for
small messages: for what a broker can do at most see benchmarks/.
"""
