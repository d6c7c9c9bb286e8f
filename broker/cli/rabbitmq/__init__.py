"""`rabbitmqctl` and its sisters: RabbitMQ's verbs, words and exit codes over our control verbs.

For scripts, health checks and containers that know these.  What a verb does is in its table; how
words are read and what is printed is the same for all of them.
"""
