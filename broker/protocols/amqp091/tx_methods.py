"""confirm.select, tx.select, tx.commit and tx.rollback: the modes of a channel."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from fluffle.broker.base.errors import PreconditionFailed
from fluffle.broker.protocols.amqp091.channel import Channel, once_settled
from fluffle.broker.protocols.amqp091.transaction import PendingTransactionPublishes, Transaction
from fluffle.protocol.methods import Confirm, Method, Tx, make
from fluffle.protocol.steps import Steps, Unfinished


def transaction_of(channel: Channel) -> Transaction:
    """The transaction of a channel; PreconditionFailed when it is not transactional."""
    if channel.transaction is None:
        raise PreconditionFailed("channel is not transactional")
    return channel.transaction


def on_select(channel: Channel, _method: Method) -> None:
    if channel.confirms is not None:
        raise PreconditionFailed("cannot switch from confirm to tx mode")
    if channel.transaction is None:
        transaction = Transaction(channel.publisher, channel.settlements)
        channel.transaction = channel.publisher.mode = transaction
        channel.unacked.keep()
    channel.reply(make(Tx.SelectOk))


def on_commit(channel: Channel, method: Method) -> None:
    raise Unfinished(commit(channel, method, transaction_of(channel)))


def commit(channel: Channel, method: Method, transaction: Transaction) -> Steps[None]:
    """Give back, which may be left; then do the rest, whether the channel ends meanwhile or not."""
    yield from transaction.give_back()
    taken = PendingTransactionPublishes()
    channel.committing = transaction.commit(taken)
    try:
        for _ in channel.committing:  # not `yield from`: it goes on when this is given up
            yield
    finally:
        channel.committing = None
    if channel.is_open:
        channel.ask(method, taken.answer(), partial(committed, channel, method))


def committed(channel: Channel, method: Method, is_complete: bool) -> None:  # noqa: FBT001 - it is an answer
    if not is_complete:
        raise PreconditionFailed("partial tx completion")
    once_settled(channel, method, lambda: channel.reply(make(Tx.CommitOk)))


def on_rollback(channel: Channel, _method: Method) -> None:
    raise Unfinished(roll_back(channel, transaction_of(channel)))


def roll_back(channel: Channel, transaction: Transaction) -> Steps[None]:
    yield from transaction.roll_back()
    channel.reply(make(Tx.RollbackOk))


def on_confirm_select(channel: Channel, method: Method) -> None:
    """§confirm.select (RabbitMQ): repeating it changes nothing; not with tx."""
    assert isinstance(method, Confirm.Select)
    if channel.transaction is not None:
        raise PreconditionFailed("cannot switch from tx to confirm mode")
    if channel.confirms is None:
        channel.publisher.confirm()
    if not method.nowait:
        channel.reply(make(Confirm.SelectOk))


HANDLERS: dict[type[Method], Callable[[Channel, Method], None]] = {
    Confirm.Select: on_confirm_select,
    Tx.Select: on_select,
    Tx.Commit: on_commit,
    Tx.Rollback: on_rollback,
}
