"""Tortures a cluster and says what it did wrong: `fluffle torture`.

    workload, roles   clients at work, through every node
    witness, hearing  one client, and what it reads
    history           what clients write down
    checker, gaps     what no honest broker would have done; how long nothing was done
    faults, system    what goes wrong meanwhile, and what it happens to
    proxy             a link that can be cut, slowed and reset

It knows AMQP and nothing of this broker, so that the same run can be done against RabbitMQ.
"""
