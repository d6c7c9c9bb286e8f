"""Section 8: messages that have waited for too long, on both types of queue; and x-expires of 5.4.

Nothing here looks at a clock: what dies arrives somewhere, and that is waited for.
"""

from collections.abc import Iterator

from fluffle.protocol.methods import Queue, make
from tests.compat.scenario import End, Peer, across, scenario
from tests.compat.verbs import Arguments, Speaker, speaker

TYPES = ("classic", "quorum")


def aging(main: Speaker, queue: str, kind: str, **said: object) -> None:
    """A queue whose dead come to the queue `<queue> dead`, of which somebody consumes."""
    arguments: Arguments = {
        "x-queue-type": kind,
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": f"{queue} dead",
        **{f"x-{name.replace('_', '-')}": value for name, value in said.items()},
    }
    main.declare(f"{queue} dead", exclusive=True)
    main.consume(f"{queue} dead", f"{queue} dead", no_ack=True)
    main.declare(queue, arguments, durable=True)


@scenario("8.1", "9")
def messages_of_a_queue_expire(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"ttl {kind}"
        aging(main, queue, kind, message_ttl=100)
        for body in ("a", "b", "c"):
            main.publish("", queue, body, headers={"z": 1}, delivery_mode=2)
        main.expect("Basic.Deliver", 3)
        main.declare(queue, passive=True)
        main.delete(queue)
    main.without_times()


@scenario("8.1", "9")
def messages_say_how_long_they_may_wait(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"expiration {kind}"
        aging(main, queue, kind, message_ttl=60_000)
        main.publish("", queue, "a", expiration="50", headers={"CC": ["other"]})
        main.publish("", queue, "b", expiration="60", priority=1, timestamp=3)
        main.expect("Basic.Deliver", 2)
        main.delete(queue)
    main.without_times()


@scenario("8.1")
def the_queue_is_right_if_it_says_less(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"less {kind}"
        aging(main, queue, kind, message_ttl=50)
        main.publish("", queue, "a", expiration="60000")
        main.expect("Basic.Deliver")
        main.delete(queue)
    main.without_times()


@scenario("8.1")
def only_what_is_next_expires(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"next {kind}"
        aging(main, queue, kind)
        main.fill(queue, "first")
        main.publish("", queue, "second", expiration="1")
        later(main, f"{queue} clock")
        main.declare(queue, passive=True)
        main.get(queue)
        main.expect("Basic.Deliver")
        main.delete(queue)
    main.without_times()


def later(main: Speaker, name: str) -> None:
    """Wait until a message has expired that may wait for a while."""
    with main.aside() as other:
        aging(other, name, "classic", message_ttl=300)
        other.publish("", name)
        other.expect("Basic.Deliver")
        other.delete(name)


@scenario("8.1")
def what_is_in_hands_does_not_expire(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"hands {kind}"
        aging(main, queue, kind)
        holder = main.another()
        holder.qos(1)
        holder.consume(queue, "holder")
        main.publish("", queue, "m", expiration="200")
        [delivery] = holder.expect("Basic.Deliver")
        later(main, f"{queue} clock")
        holder.cancel("holder")
        method: object = delivery.method
        holder.reject(method.delivery_tag, requeue=True)  # type: ignore[attr-defined]
        main.expect("Basic.Deliver")
        main.delete(queue)
    main.without_times()


@scenario("8.1")
def without_any_time_to_live(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"zero {kind}"
        aging(main, queue, kind, message_ttl=0)
        main.publish("", queue, "for nobody")
        main.expect("Basic.Deliver")
        main.get(queue)
        main.delete(queue)
    aging(main, "zero consumed", "classic", message_ttl=0)
    consumer = main.another()
    consumer.consume("zero consumed", "c", no_ack=True)
    main.publish("", "zero consumed", "for the consumer")
    main.expect("Basic.Deliver")
    main.publish("", "zero consumed", "again", expiration="5")
    main.expect("Basic.Deliver")
    consumer.cancel("c")
    main.delete("zero consumed")
    main.without_times()


@scenario("8.1", "9")
def again_and_again_after_a_while(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        work, wait = f"work {kind}", f"wait {kind}"
        of_type: Arguments = {"x-queue-type": kind, "x-dead-letter-exchange": ""}
        main.declare(work, {**of_type, "x-dead-letter-routing-key": wait}, durable=True)
        back = {**of_type, "x-dead-letter-routing-key": work, "x-message-ttl": 20}
        main.declare(wait, back, durable=True)
        main.publish("", work, "m", expiration="60000")
        main.consume(work, work)
        for _ in range(3):
            [delivery] = main.expect("Basic.Deliver")
            method: object = delivery.method
            main.reject(method.delivery_tag, requeue=False)  # type: ignore[attr-defined]
        main.expect("Basic.Deliver")
        main.delete(work, wait)
    main.without_times()


@scenario("8.1", "9")
def round_and_round_for_nobody(peer: Peer) -> None:
    """A message that expires where it has expired before is dropped."""
    main = speaker(peer)
    for kind in TYPES:
        here, there = f"here {kind}", f"there {kind}"
        for queue, to in ((here, there), (there, here)):
            arguments: Arguments = {
                "x-queue-type": kind,
                "x-dead-letter-exchange": "",
                "x-dead-letter-routing-key": to,
                "x-message-ttl": 20,
            }
            main.declare(queue, arguments, durable=True)
        main.publish("", here, "m")
        later(main, f"{here} clock")
        for queue in (here, there):
            main.declare(queue, passive=True)
            main.delete(queue)


@scenario("5.4")
def a_queue_that_nobody_uses_goes(peer: Peer) -> None:
    main = speaker(peer)
    for kind in TYPES:
        queue = f"unused {kind}"
        aging(main, queue, kind, expires=200)
        main.fill(queue, "0", "1")
        other = main.another()
        while main.client.heard[-1].name != "Channel.Close":
            other.bind(queue, "amq.fanout")  # which is no use of it
        main.forget(f"[{other.number}] Queue.BindOk(")
        main.another().declare(queue, passive=True)
        main.settle()


@scenario("5.4")
def a_queue_lasts_while_it_is_used(peer: Peer) -> None:
    """No answer is waited for while nobody uses it: on a machine that is busy it would go."""
    main = speaker(peer)
    for kind in TYPES:
        queue = f"used {kind}"
        main.declare(queue, {"x-queue-type": kind, "x-expires": 250}, durable=True, nowait=True)
        main.consume(queue, queue)
        later(main, f"{queue} clock")
        main.declare(queue, passive=True)
        main.cancel(queue, nowait=True)
        main.delete(queue)
        main.do(make(Queue.Declare, queue=queue, passive=True, nowait=False))
        main = speaker(peer, f"after {kind}")


@across(End.STOP, "8.1", "5.4")
@across(End.KILL, "8.1", "5.4")
def life_goes_on(peer: Peer) -> Iterator[None]:
    """A restart neither prolongs a life nor loses it.

    No dead letters: RabbitMQ loses those that it sends before their queue is there again.
    """
    main = speaker(peer)
    for kind in TYPES:
        queue = f"lasting {kind}"
        main.declare(queue, {"x-queue-type": kind}, durable=True)
        main.confirms()
        main.publish("", queue, "short", expiration="100", delivery_mode=2)
        main.publish("", queue, "long", expiration="3600000", delivery_mode=2)
        main.publish("", queue, "for ever", delivery_mode=2)
        main.confirmed(3)
        main = speaker(peer, f"after {kind}")
    yield
    main = speaker(peer, "after")
    for kind in TYPES:
        queue = f"lasting {kind}"
        main.consume(queue, queue)
        main.expect("Basic.Deliver", 2)
        main.cancel(queue)
        main.delete(queue)
    main.without_times()
