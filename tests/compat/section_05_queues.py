"""Sections 5.1 and 5.4: declaring queues, whose they are, when they go."""

from collections.abc import Callable

from tests.compat.scenario import Peer, scenario
from tests.compat.verbs import Speaker, speaker

REPLY_TO = "amq.rabbitmq.reply-to"


@scenario("5.1")
def declaring_a_queue_again(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("again")
    main.declare("again")
    main.another().declare("again", durable=True)
    main.another().declare("again", auto_delete=True)
    main.another().declare("again", exclusive=True)
    main.another().declare("again", durable=True, auto_delete=True)
    main.another().declare("again", durable=True, auto_delete=True, exclusive=True)
    main.another().declare("again", {"x-expires": 0}, durable=True)
    main.delete("again")
    main.declare("again", durable=True)
    main.another().declare("again")
    main.another().declare("again", durable=True, exclusive=True)
    main.delete("again")
    main.declare("again", auto_delete=True)
    main.another().declare("again")
    main.delete("again")


@scenario("5.1")
def declaring_an_exclusive_queue_again(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("own", exclusive=True, durable=True)
    main.declare("own", exclusive=True, durable=True)
    main.declare("own", exclusive=True)
    main.another().declare("own", exclusive=True)
    main.another().declare("own", exclusive=True, auto_delete=True)
    main.another().declare("own")
    main.another().declare("own", durable=True)


@scenario("5.1")
def passive_declares_compare_nothing(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("passive")
    main.declare("passive", passive=True)
    main.declare("passive", {"x-expires": 0}, passive=True, durable=True, exclusive=True)
    main.another().declare("missing", passive=True)
    nameless = main.another()
    nameless.declare("passive", passive=True)
    nameless.declare("", passive=True)
    main.another().delete("passive")


@scenario("5.1")
def reserved_names_of_queues(peer: Peer) -> None:
    main = speaker(peer)
    for name in ("amq.mine", "amq.", "amq.gen-mine", "amq.rabbitmq.mine", f"{REPLY_TO}.mine"):
        main.another().declare(name, exclusive=True)
        main.another().declare(name, passive=True)
    for name in ("amq", "AMQ.mine", REPLY_TO):
        main.declare(name, exclusive=True)
        main.declare(name, passive=True)
    for name in ("amq.mine", REPLY_TO):
        main.delete(name)


@scenario("5.1")
def names_of_queues(peer: Peer) -> None:
    main = speaker(peer)
    for name in ("with  blanks, ü / ~ #*.", "q" * 255):
        main.declare(name)
        main.fill(name, "by name")
        main.get(name)
        main.delete(name)
    main.declare("line\r\nbreaks\n")
    main.declare("linebreaks", passive=True)
    main.another().purge("line\rbreaks")
    main.another().get("line\nbreaks")
    main.another().consume("line\nbreaks")
    main.delete("\nlinebreaks")
    main.another().declare("linebreaks", passive=True)
    main.declare("\r\n", exclusive=True)


@scenario("5.1")
def server_named_queues(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("", exclusive=True)
    main.declare("", auto_delete=True)
    main.delete("")
    main.declare("", durable=True)
    main.delete("")
    for kind in ("quorum", "stream"):
        main.another().declare("", {"x-queue-type": kind}, durable=True)


@scenario("5.1")
def the_last_declared_queue_of_a_channel(peer: Peer) -> None:
    main = speaker(peer)
    verbs: tuple[Callable[[Speaker], object], ...] = (
        lambda channel: channel.purge(""),
        lambda channel: channel.get(""),
        lambda channel: channel.consume("", "tag"),
        lambda channel: channel.cancel("tag"),
        lambda channel: channel.delete(""),
    )
    for verb in verbs[:3]:
        verb(main.another())
    main.another().delete("")
    main.declare("last 1")
    main.declare("last 2")
    main.fill("last 2", "to the second")
    main.get("")
    main.declare("last 1", passive=True)
    main.fill("last 1", "to the first")
    main.get("")
    for verb in verbs:
        verb(main)
    main.delete("")
    main.another().get("last 1")
    main.delete("last 2")


@scenario("5.1")
def exclusive_queues_are_of_one_connection(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("mine", exclusive=True)
    main.bind("mine", "amq.direct", "mine")
    main.another().declare("mine", passive=True)
    stranger = speaker(peer, "stranger")
    stranger.another().declare("mine", passive=True)
    stranger.another().declare("mine", exclusive=True)
    stranger.another().declare("mine")
    stranger.another().declare("mine", durable=True, auto_delete=True)
    stranger.another().consume("mine")
    stranger.another().get("mine")
    stranger.another().purge("mine")
    stranger.another().delete("mine")
    stranger.another().delete("mine", if_unused=True)
    stranger.another().bind("mine", "amq.direct", "theirs")
    stranger.another().bind("mine", "none")
    stranger.another().unbind("mine", "amq.direct", "mine")
    stranger.unbind("mine", "amq.direct", "never bound")
    stranger.unbind("mine", "none")
    stranger.fill("mine", "anybody may publish")
    main.drain("mine")


@scenario("5.1")
def exclusive_queues_go_with_their_connection(peer: Peer) -> None:
    main, heir = speaker(peer), speaker(peer, "heir")
    main.declare("inherited", exclusive=True)
    main.fill("inherited", "gone with it")
    heir.another().declare("inherited", exclusive=True)
    main.hang_up()
    heir.declare("inherited", exclusive=True)
    heir.drain("inherited")


@scenario("5.1")
def an_auto_delete_queue_goes_with_its_last_consumer(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("last one", auto_delete=True)
    main.get("last one")
    main.declare("last one", passive=True)
    main.consume("last one", "1")
    main.consume("last one", "2")
    main.cancel("1")
    main.declare("last one", passive=True)
    main.cancel("2")
    main.another().declare("last one", passive=True)


@scenario("5.1")
def an_auto_delete_queue_goes_with_messages_held(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("held", auto_delete=True)
    main.fill("held", "never settled")
    main.consume("held", "tag")
    main.expect("Basic.Deliver")
    main.cancel("tag")
    main.ack(1)
    main.settle()
    main.another().declare("held", passive=True)


@scenario("5.1")
def an_auto_delete_queue_waits_for_its_first_consumer(peer: Peer) -> None:
    main, other = speaker(peer), speaker(peer, "other")
    other.declare("stays", auto_delete=True)
    other.hang_up()
    main.declare("stays", passive=True)
    other = speaker(peer, "consumer")
    other.consume("stays")
    other.hang_up()
    main.until_gone("stays")
    main.declare("stays", auto_delete=True)
    consumer = main.another()
    consumer.consume("stays")
    consumer.close()
    main.until_gone("stays")


@scenario("5.1")
def declares_count_ready_messages_and_consumers(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("counted", exclusive=True)
    main.fill("counted", "0", "1", "2", "3", "4")
    main.get("counted", no_ack=False)
    main.declare("counted", exclusive=True)
    main.qos(1)
    main.consume("counted", "tag")
    main.expect("Basic.Deliver")
    main.declare("counted", passive=True)
    main.purge("counted")
    main.purge("counted")
    main.declare("counted", passive=True)
    main.nack(1)
    main.settle()
    main.declare("counted", passive=True)
    main.cancel("tag")
    main.declare("counted", passive=True)


@scenario("5.1", "5.4")
def queues_without_answers(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("silent", nowait=True)
    main.declare("silent", passive=True)
    main.fill("silent", "purged")
    main.purge("silent", nowait=True)
    main.get("silent")
    refused = main.another()
    refused.declare("silent", durable=True, nowait=True)
    refused.expect("Channel.Close")
    main.delete("silent", nowait=True)
    main.declare("silent", passive=True)


@scenario("5.4")
def deleting_if_unused_and_if_empty(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("kept")
    main.fill("kept", "1")
    main.another().delete("kept", if_empty=True)
    main.another().delete("kept", if_empty=True, if_unused=True)
    consumer = main.another()
    consumer.qos(1)
    consumer.consume("kept", "tag")
    consumer.expect("Basic.Deliver")
    main.another().delete("kept", if_unused=True)
    main.another().delete("kept", if_unused=True, if_empty=True)
    main.fill("kept", "2")
    main.another().delete("kept", if_unused=True, if_empty=True)
    consumer.cancel("tag")
    main.another().delete("kept", if_empty=True)
    main.purge("kept")
    main.delete("kept", if_empty=True, if_unused=True)
    consumer.ack(1)
    consumer.settle()


@scenario("5.4")
def deleting_what_is_not_there(peer: Peer) -> None:
    main = speaker(peer)
    main.delete("missing")
    main.delete("missing", if_unused=True, if_empty=True)
    main.delete("amq.missing")
    main.purge("missing")


@scenario("5.4")
def deletes_and_purges_count_ready_messages(peer: Peer) -> None:
    main = speaker(peer)
    main.declare("gone")
    main.fill("gone", "1", "2", "3")
    main.get("gone", no_ack=False)
    main.delete("gone")
    main.ack(1)
    main.settle()
    main.declare("gone")
    main.fill("gone", "1", "2", "3")
    main.get("gone", no_ack=False)
    main.purge("gone")
    main.nack(2)
    main.get("gone")
    main.purge("gone")
    main.delete("gone")


@scenario("5.4", "7.3")
def consumers_of_a_deleted_queue_are_cancelled(peer: Peer) -> None:
    main, other = speaker(peer), speaker(peer, "other")
    main.declare("cancelled")
    for tag in ("2", "10", "1", "3"):
        other.consume("cancelled", tag)
    main.delete("cancelled")
    other.expect("Basic.Cancel", 4)
    other.cancel("1")
    main.declare("cancelled")
    other.consume("cancelled", "1")
    other.delete("cancelled")
    other.expect("Basic.Cancel")


@scenario("5.4", "7.3")
def a_client_without_the_capability_hears_no_cancel(peer: Peer) -> None:
    main = speaker(peer, capabilities=("basic.nack",))
    main.declare("quiet")
    main.consume("quiet", "tag")
    main.delete("quiet")
    main.settle()
    main.cancel("tag")
