"""Section 6.2: transactions."""

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker


def transactional(main: Speaker) -> Speaker:
    """A channel that has selected transactions."""
    channel = main.another()
    channel.transact()
    return channel


def hold(main: Speaker, channel: Speaker, queue: str, count: int) -> None:
    """Let a consumer of `channel` hold messages with the tags from 1 on."""
    main.declare(queue, exclusive=True)
    main.fill(queue, *map(str, range(count)))
    channel.consume(queue, "tag")
    channel.expect("Basic.Deliver", count)


@scenario("6.2")
def commit_and_rollback_need_a_select(peer: Peer) -> None:
    main = speaker(peer)
    main.another().commit()
    main.another().roll_back()
    main.transact()
    main.transact()
    main.commit()
    main.roll_back()


@scenario("6.2")
def publishes_wait_for_the_commit(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("waiting", exclusive=True)
    channel = transactional(main)
    channel.publish("", "waiting", "forgotten")
    channel.settle()
    main.get("waiting")
    channel.roll_back()
    main.get("waiting")
    channel.publish("", "waiting", "first")
    channel.publish("", "nowhere", "returned at the commit", mandatory=True)
    channel.publish("", "waiting", "second")
    channel.settle()
    channel.commit()
    main.drain("waiting")


@scenario("6.2")
def a_rollback_brings_settled_tags_back(peer: Peer) -> None:
    main = speaker(peer)
    channel = transactional(main)
    hold(main, channel, "back", 5)
    for _ in range(2):
        channel.ack(1)
        channel.nack(2, requeue=True)
        channel.reject(3, requeue=False)
        channel.settle()
        channel.roll_back()
    channel.ack(3, multiple=True)
    channel.roll_back()
    channel.nack(4, multiple=True, requeue=False)
    channel.commit()
    channel.ack(5)
    channel.commit()
    main.declare("back", exclusive=True)


@scenario("6.2")
def a_commit_settles(peer: Peer) -> None:
    main = speaker(peer)
    channel = transactional(main)
    hold(main, channel, "settled", 5)
    channel.ack(1)
    channel.nack(2, requeue=True)
    channel.reject(3, requeue=False)
    channel.settle()
    channel.commit()
    channel.expect("Basic.Deliver")
    channel.ack(0, multiple=True)
    channel.commit()
    channel.cancel("tag")
    main.get("settled")


@scenario("6.2")
def settled_tags_are_unknown_at_once(peer: Peer) -> None:
    main = speaker(peer)
    channel = transactional(main)
    hold(main, channel, "at once", 2)
    channel.ack(1)
    channel.ack(1)
    channel.refused()
    main.consume("at once", "heir")
    main.expect("Basic.Deliver", 2)


@scenario("6.2")
def an_error_or_a_close_forgets(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("forgotten", exclusive=True)
    wrong = transactional(main)
    wrong.publish("", "forgotten", "with the error")
    wrong.publish("none", "forgotten", "the error")
    wrong.refused()
    main.get("forgotten")
    closed = transactional(main)
    closed.publish("", "forgotten", "with the close")
    closed.close()
    main.get("forgotten")


@scenario("6.2")
def a_close_requeues_what_was_settled(peer: Peer) -> None:
    main = speaker(peer)
    channel = transactional(main)
    hold(main, channel, "requeued", 3)
    channel.ack(1)
    channel.reject(2, requeue=False)
    channel.close()
    main.consume("requeued", "heir")
    main.expect("Basic.Deliver", 3)


@scenario("6.2")
def routes_are_those_of_the_publish(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("routed", exclusive=True)
    main.declare_exchange("routed")
    channel = transactional(main)
    channel.publish("routed", "k", "before the bind", mandatory=True)
    channel.bind("routed", "routed", "k")
    channel.commit()
    channel.publish("routed", "k", "before the unbind", mandatory=True)
    channel.unbind("routed", "routed", "k")
    channel.commit()
    channel.publish("routed", "k", "after the unbind", mandatory=True)
    channel.commit()
    channel.delete_exchange("routed")
    main.drain("routed")


@scenario("6.2")
def a_queue_gone_before_the_commit(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("here", exclusive=True)
    main.fill("here", "acknowledged")
    main.declare("gone")
    channel = transactional(main)
    channel.get("here", no_ack=False)
    channel.ack(1)
    channel.publish("", "gone", "to a queue that goes", mandatory=True)
    channel.publish("", "here", "to one that stays", mandatory=True)
    main.delete("gone")
    channel.commit()
    main.drain("here")


@scenario("6.2", "8.2", "9")
def a_queue_gone_before_the_commit_drops_nothing(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("nothing dropped", exclusive=True)
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "nothing dropped"}
    main.declare("gone and full", {"x-max-length": 0, **dead}, exclusive=True)
    channel = transactional(main)
    channel.publish("", "gone and full", "for nobody", headers={"CC": ["nothing dropped"]})
    main.delete("gone and full")
    channel.commit()
    main.drain("nothing dropped")


@scenario("6.2")
def a_queue_made_anew_before_the_commit(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("anew", exclusive=True)
    channel = transactional(main)
    channel.publish("", "anew", "to the old one")
    channel.settle()
    main.delete("anew")
    main.declare("anew", exclusive=True)
    channel.commit()
    main.get("anew")


@scenario("6.2")
def recover_in_a_transaction(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("recovered", exclusive=True)
    main.fill("recovered", "0", "1")
    channel = transactional(main)
    channel.get("recovered", no_ack=False)
    channel.get("recovered", no_ack=False)
    channel.ack(1)
    channel.recover()
    main.get("recovered", no_ack=False)
    channel.roll_back()
    main.get("recovered")
    channel.recover()
    main.get("recovered")


@scenario("6.2", "7.1")
def room_for_a_consumer_is_made_by_the_commit(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("room", exclusive=True)
    main.fill("room", "0", "1", "2")
    channel = transactional(main)
    channel.qos(1)
    channel.consume("room", "tag")
    channel.expect("Basic.Deliver")
    channel.ack(1)
    channel.settle()
    channel.commit()
    channel.expect("Basic.Deliver")
    channel.ack(2)
    channel.roll_back()
    channel.settle()
    channel.nack(7)
    channel.refused()
