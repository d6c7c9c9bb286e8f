"""Torture of a cluster, and what it did wrong: `fluffle torture`.

    run                    work under faults, heal, empty all queues, report
    client_group, definers clients at work, through every node
    recording_client       one client, which writes down what it says and hears
    history                what clients write down
    checker, linearizability, online_checker, stalls
                           what no honest broker would have done; how long nothing was done
    faults, system         what goes wrong meanwhile, and what it happens to
    proxy                  a link that can be cut, slowed and reset

It knows AMQP and nothing of this broker, so that the same run can be done against RabbitMQ.
"""
