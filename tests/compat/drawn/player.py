"""Plays a case on one broker: an operation, then looking until the other player has seen the same.

What is compared of a step:

- what each channel hears from each consumer, and what it hears besides: each in its order.  How
  these are mixed is chance, as several processes of RabbitMQ write them
- which publishes were confirmed: how confirms are put together is a broker's own affair
- how many messages wait in each queue, and its consumers; not those of a quorum queue, among which
  RabbitMQ counts who has got messages until they are settled
- not how many messages a get leaves where there is a quorum queue: RabbitMQ counts what will have
  expired when the next one is asked for
- how often a message of a quorum queue was handed out, under whatever name its headers say it; not
  of one that has died in such a queue before, for in RabbitMQ 4.0 other ends of a hand-out count as
  failures that go with it, and a classic queue passes them on
- whether a message has expired or was too much where both may be: of what comes back and is both,
  RabbitMQ says the latter, fluffle the former
- not the moments at which messages died

A case ends early where a quorum queue of RabbitMQ puts messages that come back at once into another
order (`given_back.py`), or hands those that are too many on backwards, as it does before 4.2.1
(`section_08_limits.several_that_come_back_are_too_many`): from then on it is about other messages.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from threading import BrokenBarrierError
from typing import Any

from fluffle.protocol.methods import Basic, Channel, Connection, make
from tests.compat.drawn.actor import Actor
from tests.compat.drawn.given_back import Held, short_queues
from tests.compat.drawn.observer import Observer
from tests.compat.drawn.operations import Case, Operation, named
from tests.compat.drawn.rendezvous import Judge, Seen, Verdict
from tests.compat.scenario import Peer
from tests.compat.verbs import speaker
from tests.support.client import Client, Closed, Heard

CLIENTS = ("A", "B")
"""Names of the clients."""

SEEN = "   "
"""Prefix of a note about what was seen after a step."""
EARLY_END = "the end: several messages came back in another order"
"""Last note of a case that ends early."""
CHANNELS_EACH = 2
SOON = re.compile(r"message-ttl': [01]\b|expiration='[01]'")
CONSUMERS = re.compile(r"(Queue\.DeclareOk\(queue='(\w+)', .*consumer_count=)\d+")
LEFT = re.compile(r", message_count=\d+")
TIME = re.compile(r"time: T \d+")
REASON = re.compile(r"(?<=S b')(expired|maxlen)(?=')")
DIED_IN = re.compile(r"queue: S b'(\w+)'")
COUNT = re.compile(r"x-(acquired|delivery)-count: l (\d+)(?:, )?")
REDELIVERED = re.compile(r"redelivered=\w+")


class Player:
    """Player of a case with one broker; `prefix` is the name of the run, `place` that at the
    meeting."""

    def __init__(self, case: Case, observer: Observer, prefix: str) -> None:
        self._case = case
        self._observer = observer
        self._prefix = prefix
        self._queues = {
            operation.said["queue"]: operation.said.get("arguments", {}).get("x-queue-type")
            for operation in reversed(case)
            if operation.verb == "declare"
        }
        """Type of each queue, from its first declaration."""
        self._short = short_queues(case)
        self._expires = any(SOON.search(str(operation)) for operation in case)
        self._is_limited = "max-length" in str(list(map(str, case)))
        self._lines: list[tuple[str, str]] = []
        self._verbs: dict[str, Callable[..., object]] = {
            "select": Actor.select,
            "publish": Actor.publish,
            "get": self._get,
            "consume": self._consume,
            "settle": self._settle,
            "commit": Actor.commit,
            "roll_back": Actor.roll_back,
            "recover": Actor.recover,
            "delete": self._delete,
            "close": self._close,
            "hang_up": self._hang_up,
            "set_policy": self._set_policy,
            "clear_policy": self._clear_policy,
        }

    def play(self, peer: Peer, meeting: Judge, place: int) -> None:
        """Until the end of the case, or until the two have not seen the same."""
        self._peer, self._meeting, self._place = peer, meeting, place
        self._actors: dict[tuple[str, int], Actor] = {}
        self._order: list[Actor] = []
        self._ready: dict[str, int] = {}
        """How many messages were last seen to wait in each queue that there is."""
        self._delivered: Counter[str] = Counter()
        """How many messages of each queue came to consumers in this step."""
        for name in CLIENTS:
            self._connect(name)
        try:
            for number, operation in enumerate(self._case):
                peer.note(f"{number}. {operation}")
                before = self._ready
                self._act(operation)
                if self._seen_by_both() is not Verdict.GO_ON:
                    return
                if self._is_in_another_order(before):
                    peer.note(EARLY_END)
                    return
        except BrokenBarrierError:
            peer.note("the other one has left")
        except BaseException:
            meeting.leave()
            raise

    def clear(self) -> None:
        """Delete what is left."""
        exchanges = [each.said["name"] for each in self._case if each.verb == "declare_exchange"]
        policies = [each.said["name"] for each in self._case if each.verb == "set_policy"]
        self._observer.clear(*map(self._named, (self._queues, exchanges, policies)))

    def _named(self, names: Iterable[str]) -> list[str]:
        return [self._prefix + name for name in names]

    # Acting

    def _connect(self, name: str) -> None:
        main = speaker(self._peer, name)
        at = CLIENTS.index(name) * CHANNELS_EACH
        for index, one in enumerate(
            [main, *(main.another() for _ in range(CHANNELS_EACH - 1))], at
        ):
            if len(self._order) <= index:
                self._order.append(Actor(one))
            else:
                self._order[index].begin(one)
            self._actors[name, one.number] = self._order[index]
        main.client.transcript.clear()
        main.client.heard.clear()

    def _act(self, operation: Operation) -> None:
        actor = self._order[operation.channel]
        said = named(operation.said, self._prefix)
        verb = self._verbs.get(operation.verb)
        try:
            if verb is not None:
                verb(actor, **said)
            else:
                getattr(actor.speaker, operation.verb)(**said)
        except (Closed, TimeoutError) as error:
            self._lines.append(("", type(error).__name__))
        self._take()

    def _get(self, actor: Actor, queue: str, *, no_ack: bool) -> None:
        heard = actor.speaker.get(queue, no_ack=no_ack)
        if heard.name == "Basic.GetOk" and not no_ack:
            method: Any = heard.method
            self._take()
            actor.held[method.delivery_tag] = Held(queue.removeprefix(self._prefix), "")

    def _consume(self, actor: Actor, queue: str, tag: str, prefetch: int, **said: Any) -> None:
        actor.speaker.qos(prefetch)
        actor.consumers[tag] = queue.removeprefix(self._prefix)
        if said.get("no_ack", False):
            actor.no_acks.add(tag)
        actor.speaker.consume(queue, tag, **said)

    def _settle(self, actor: Actor, how: str, which: int, **flags: bool) -> None:
        tag = actor.tag(which)
        if tag is not None:
            getattr(actor.speaker, how)(tag, **flags)
            gives_back = flags.get("requeue", False)
            actor.settled(tag, multiple=flags.get("multiple", False), gives_back=gives_back)

    def _delete(self, actor: Actor, queue: str, **flags: bool) -> None:
        actor.speaker.delete(queue, **flags)

    def _close(self, actor: Actor) -> None:
        actor.speaker.close()
        self._take()
        self._begin_again(actor)

    def _hang_up(self, actor: Actor) -> None:
        client = actor.speaker.client
        actor.speaker.hang_up()
        self._take()
        client.close()
        self._connect(self._name_of(client))

    def _set_policy(self, _actor: Actor, name: str, pattern: str, **said: Any) -> None:
        body = {"pattern": f"^{re.escape(self._prefix)}{pattern}$", "priority": 0, **said}
        told = self._observer.http.ask("PUT", f"policies/%2F/{self._prefix}{name}", body)
        self._lines.append(("", f"HTTP {told.status // 100}"))

    def _clear_policy(self, _actor: Actor, name: str) -> None:
        self._observer.http.ask("DELETE", f"policies/%2F/{self._prefix}{name}")

    # Hearing

    def _name_of(self, client: Client) -> str:
        return next(name for name, other in self._peer.clients.items() if other is client)

    def _take(self) -> None:
        """Write down what the clients have heard, and do what it asks for."""
        for name in CLIENTS:
            client = self._peer.clients[name]
            heard_all, client.heard[:] = client.heard[:], []
            client.transcript.clear()
            for heard in heard_all:
                self._hear(name, heard)

    def _hear(self, name: str, heard: Heard) -> None:
        if heard.name in {"Channel.FlowOk", "Channel.OpenOk"}:
            return
        actor = self._actors.get((name, heard.channel))
        if actor is not None:
            actor.hear(heard)
        if heard.name in {"Basic.Ack", "Basic.Nack"}:
            return
        stream = f"{name}{heard.channel:03}"
        if isinstance(heard.method, Basic.Deliver):
            tag = heard.method.consumer_tag or ""
            stream += f" {tag}"
            if actor is not None:
                self._delivered[actor.consumers.get(tag, "")] += 1
        self._lines.append((stream, self._shown(f"{name}{heard}")))
        client = self._peer.clients[name]
        if heard.name == "Channel.Close" and actor is not None:
            client.send(heard.channel, make(Channel.CloseOk))
            self._begin_again(actor)
        elif heard.name == "Connection.Close":
            client.send(0, make(Connection.CloseOk))
            client.close()
            self._connect(name)

    def _shown(self, line: str) -> str:
        """Line in the form that is compared."""
        line = TIME.sub("time: T …", line).replace(self._prefix, "")
        declared = CONSUMERS.search(line)
        if declared is not None and self._queues.get(declared[2]) == "quorum":
            line = CONSUMERS.sub(r"\1…", line)
        if "Basic.GetOk" in line and "quorum" in self._queues.values():
            line = LEFT.sub(", …", line, 1)
        if self._expires and self._is_limited:
            line = REASON.sub("expired or maxlen", line)
        counts = dict(COUNT.findall(line))
        line = COUNT.sub("", line).replace(", }", "}")
        if "quorum" in {self._queues.get(queue) for queue in DIED_IN.findall(line)}:
            return REDELIVERED.sub("…", line)
        handed_out = counts.get("acquired", counts.get("delivery"))
        return f"{line} handed out: {handed_out}" if counts else line

    def _begin_again(self, actor: Actor) -> None:
        """On another channel, which its last one made way for."""
        name = self._name_of(actor.speaker.client)
        del self._actors[name, actor.speaker.number]
        actor.begin(actor.speaker.another())
        self._actors[name, actor.speaker.number] = actor

    def _seen_by_both(self) -> Verdict:
        seen = self._look()
        while (verdict := self._meeting.judge(self._place, seen)) is Verdict.LOOK_AGAIN:
            seen = self._look()
        for line in seen.lines:
            self._peer.note(f"{SEEN}{line}")
        self._lines.clear()
        for actor in self._order:
            actor.forget_confirms()
        return verdict

    def _is_in_another_order(self, before: Mapping[str, int]) -> bool:
        """True if RabbitMQ has messages in another order since this step, in a quorum queue or as
        its dead letters; `before`: how many were ready."""
        given_back = [each for actor in self._order for each in actor.given_back]
        delivered = self._delivered.copy()
        self._delivered.clear()
        for actor in self._order:
            actor.given_back = []
        for queue, kind in self._queues.items():
            if kind != "quorum" or queue not in before.keys() & self._ready.keys():
                continue
            counts = [each.count(queue) for each in given_back]
            died = before[queue] + sum(counts) - delivered[queue] - self._ready[queue]
            are_backwards = queue in self._short and max(counts, default=0) > 1 and died > 1
            if are_backwards or not all(each.is_in_order(queue) for each in given_back):
                return True
        return False

    def _look(self) -> Seen:
        """Facts seen of this step by now."""
        self._await_channels()
        if "quorum" in self._queues.values():
            self._observer.await_log()
        if self._expires:
            self._observer.await_expiry()
        counts = self._observer.counts(self._named(self._queues))
        counted = zip(self._queues, counts, strict=True)
        self._ready = {queue: count[0] for queue, count in counted if count is not None}
        self._await_channels()
        lines = [line for _, line in sorted(self._lines, key=lambda each: each[0])]
        for number, actor in enumerate(self._order):
            lines += [f"{number} {confirmed}" for confirmed in actor.confirms()]
        for (queue, kind), count in zip(self._queues.items(), counts, strict=True):
            shown = count[:1] if count is not None and kind == "quorum" else count
            lines.append(f"{queue}: {shown}")
        return Seen(tuple(lines), is_waiting=any(actor.unconfirmed for actor in self._order))

    def _await_channels(self) -> None:
        """Return when each channel has acted on what it was sent, and what it said was heard."""
        for actor in self._order:
            client = actor.speaker.client
            try:
                actor.speaker.do(make(Channel.Flow, active=True))
            except Closed:
                self._lines.append(("", "socket closed"))
                self._connect(self._name_of(client))
            self._take()
