"""Draws a case: a few queues and exchanges that belong together, and what is done with them.

What cannot be compared is not drawn.  `docs/compatibility.md` says why fluffle differs in this:

- priorities where there is a quorum queue (RabbitMQ 4.0 has two there), or where single messages
  expire (a classic queue of RabbitMQ keeps what has expired below what is more urgent)
- priorities where the length is limited: of what comes back and is too much RabbitMQ drops the most
  urgent first, fluffle what was handed out first
- basic.nack with requeue and basic.recover where deliveries are limited: they are no failures here
- BCC where what dies keeps its routing keys: those of BCC are not among them here; nor a key that
  is in BCC besides, for which x-death of RabbitMQ has the keys in another order
- bytes as a limit of a quorum queue, which RabbitMQ 4.0 counts without properties
- a quorum queue that refuses publishes gets all of them by one channel: RabbitMQ tells each by
  itself, and lets in what is under way
- a consistent hash that has a choice, an exchange behind an x-recent-history exchange
- what must arrive (at-least-once) has a queue that takes it: RabbitMQ tries again after minutes
- a queue that is deleted before the commit of a transaction with a message for it: if it is a
  quorum queue that fails here; and RabbitMQ cancels the consumers of a new one of the same name
- a transaction that rejects messages beside one that publishes: here all of it is done before
  somebody is served, or what does not live at all dies
- a transaction with a message that is refused: its channel is closed before what it published is
  handed out to itself
- policies by which messages do not live at all: RabbitMQ drops at once what comes in behind one
  that does, if nothing is dead-lettered
- several messages of a quorum queue that die by a policy: RabbitMQ hands them on backwards
- several consumers of a quorum queue with a prefetch: who has made room waits behind the others
  with RabbitMQ, and keeps its place here
- priorities of consumers of a quorum queue of which one is active: RabbitMQ 4.0 forgets to serve
  the next one when the active one gives back its last message

And this is chance:

- where deliveries of several queues to one channel are numbered: it consumes from one
- where a dead letter comes beside a copy of its message, or what was published behind it: what
  dies goes to a queue that gets nothing else, or each message is published to one queue alone
- which consumer of a closed channel loses what it held first: where deliveries are limited a
  channel has one
- whether what lives for a millisecond is handed out: nobody consumes then
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from tests.compat.drawn.actor import CONFIRM, TX
from tests.compat.drawn.operations import Case, Operation

CHANNELS = 4
KEYS = ("a", "b", "a.b")
BINDING_KEYS = {
    "direct": KEYS,
    "fanout": ("", "a"),
    "topic": ("a", "*", "#", "a.*", "#.b", "*.b"),
    "headers": ("",),
    "x-consistent-hash": ("1",),
    "x-recent-history": ("", "a"),
}
MATCHES: tuple[dict[str, Any], ...] = (
    {"x-match": "all", "h": 1},
    {"x-match": "any", "h": 1, "g": "a"},
    {"x-match": "all", "h": 2, "g": "a"},
    {"h": 2},
    {},
)
OVERFLOWS = ("drop-head", "reject-publish", "reject-publish-dlx")
LONG_MS = 3_600_000


class CaseGenerator:
    """Generator of a case: its queues, and what is done with them."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self._operations: list[Operation] = []
        self._tags = 0
        kinds = chance.choice((("classic",), ("quorum",), ("classic", "quorum")))
        self._queues = {f"q{n}": chance.choice(kinds) for n in range(chance.randint(1, 4))}
        types = tuple(BINDING_KEYS)
        self._exchanges = {f"x{n}": chance.choice(types) for n in range(chance.randint(0, 3))}
        quorum_count = list(self._queues.values()).count("quorum")
        self._prioritises = quorum_count == 0 and chance.random() < 0.3
        self._limits_deliveries = quorum_count == 1 and chance.random() < 0.5
        self._refuses = quorum_count > 0 and chance.random() < 0.3
        """True if a quorum queue refuses publishes."""
        modes = ("", CONFIRM) if self._refuses else ("", CONFIRM, CONFIRM, TX)
        self._modes = tuple(chance.choice(modes) for _ in range(CHANNELS))
        self._consumes = chance.random() < 0.8
        self._lives_ms = (0, LONG_MS) if self._consumes else (0, 1, LONG_MS)
        self._buries = self._refuses or TX in self._modes or chance.random() < 0.2
        """True if dead letters go to a queue that gets nothing else."""
        self._graves = {f"g{n}": "classic" for n in range(len(self._queues)) if self._buries}
        self._may_vanish = not self._refuses and TX not in self._modes
        """True if queues and channels may be deleted at any time."""
        self._alone: set[str] = set()
        """Queues with a single active consumer."""
        self._consumes_from: dict[int, str] = {}
        self._consumed: Counter[str] = Counter()
        self._limited: set[str] = set()
        """Queues of which a consumer has a prefetch."""
        self._publishing: set[int] = set()
        self._giving_back: set[int] = set()

    def drawn(self, count: int) -> Case:
        """The estate, so many operations, and how all is taken out of the queues in the end."""
        for channel, mode in enumerate(self._modes):
            if mode:
                self._add(channel, "select", mode=mode)
        self._declare_all()
        for _ in range(count):
            self._draw_one()
        for channel in range(CHANNELS):
            self._add(channel, "close")
        for queue in (*self._queues, *self._graves):
            self._add(0, "drain", queue=queue)
        return tuple(self._operations)

    def _add(self, channel: int, verb: str, **said: Any) -> None:
        self._operations.append(Operation(channel, verb, said))

    def _maybe(self, share: float) -> bool:
        return self._chance.random() < share

    def _any_queue(self) -> str:
        return self._chance.choice((*self._queues, *self._queues, *self._graves))

    def _living(self) -> str:
        return self._chance.choice(tuple(self._queues))

    # The estate

    def _declare_all(self) -> None:
        for queue in (*self._queues, *self._graves):
            self._declare(queue)
        for name, kind in self._exchanges.items():
            arguments: dict[str, Any] = {}
            if self._maybe(0.3):
                arguments["alternate-exchange"] = self._chance.choice(
                    (*self._exchanges, "amq.fanout")
                )
            if kind == "x-recent-history":
                arguments["x-recent-history-length"] = self._chance.randint(1, 3)
            self._add(0, "declare_exchange", name=name, kind=kind, arguments=arguments)
        for name in self._exchanges:
            for _ in range(self._chance.randint(1, 3)):
                self._bind(name)

    def _declare(self, queue: str) -> None:
        arguments = self._arguments(queue) if queue in self._queues else {}
        said: dict[str, Any] = {"durable": True}
        is_classic = self._queues.get(queue) == "classic"
        if is_classic and self._may_vanish and self._maybe(0.3):
            said = {self._chance.choice(("exclusive", "auto_delete")): True}
        self._add(0, "declare", queue=queue, **said, arguments=arguments)

    def _bind(self, exchange: str) -> None:
        kind = self._exchanges[exchange]
        said: dict[str, Any] = {"key": self._chance.choice(BINDING_KEYS[kind])}
        if kind == "headers":
            said["arguments"] = self._chance.choice(MATCHES)
        if kind == "x-consistent-hash":
            # One place alone, however often it is bound.
            self._add(0, "bind", queue=next(iter(self._queues)), exchange=exchange, **said)
        elif kind != "x-recent-history" and self._maybe(0.25):
            to = self._chance.choice(tuple(self._exchanges))
            self._add(0, "bind_exchange", to=to, source=exchange, **said)
        else:
            self._add(self._channel(), "bind", queue=self._living(), exchange=exchange, **said)

    def _channel(self) -> int:
        return self._chance.randrange(CHANNELS)

    def _arguments(self, queue: str) -> dict[str, Any]:
        chance, kind = self._chance, self._queues[queue]
        said: dict[str, Any] = {"x-queue-type": kind}
        if self._maybe(0.3):
            said["x-message-ttl"] = chance.choice(self._lives_ms)
        if self._maybe(0.1):
            said["x-expires"] = LONG_MS
        if self._maybe(0.4) and not self._prioritises:
            said["x-max-length"] = chance.randint(0, 4)
        if kind == "classic" and self._maybe(0.15) and not self._prioritises:
            said["x-max-length-bytes"] = chance.choice((0, 10, 40))
        if self._maybe(0.2):
            said["x-single-active-consumer"] = True
            self._alone.add(queue)
        if self._prioritises and self._maybe(0.7):
            said["x-max-priority"] = chance.choice((1, 3, 9))
        if kind == "classic" and TX not in self._modes and self._maybe(0.4):
            said["x-overflow"] = chance.choice(
                ("drop-head", "reject-publish", "reject-publish-dlx")
            )
        elif self._refuses and kind == "quorum":
            said["x-overflow"] = "reject-publish"
        if kind == "quorum" and self._limits_deliveries:
            said["x-delivery-limit"] = chance.randint(0, 2)
        if self._maybe(0.7):
            said |= self._dead_letters("x-", queue)
            if kind == "quorum" and self._refuses and self._maybe(0.5):
                said["x-dead-letter-strategy"] = "at-least-once"
        return said

    def _dead_letters(self, x: str, queue: str) -> dict[str, Any]:
        """Where what dies in a queue goes to; the names of the arguments begin with `x`."""
        if self._buries:
            grave = queue.replace("q", "g")
            return {f"{x}dead-letter-exchange": "", f"{x}dead-letter-routing-key": grave}
        to = self._chance.choice(("", "", *self._exchanges, "x9"))
        said: dict[str, Any] = {f"{x}dead-letter-exchange": to}
        if to == "" or self._maybe(0.5) or x == "":
            key = self._living() if to == "" else self._chance.choice(KEYS)
            said[f"{x}dead-letter-routing-key"] = key
        return said

    # What is done

    def _draw_one(self) -> None:
        draws = {
            self._publish: 40,
            self._get: 12,
            self._consume: 12,
            self._cancel: 4,
            self._settle: 30,
            self._end_transaction: 8,
            self._purge_or_delete: 3,
            self._change_bindings: 4,
            self._change_policies: 3,
            self._close: 3,
            self._recover: 2,
            self._err: 3,
        }
        [draw] = self._chance.choices(tuple(draws), tuple(draws.values()))
        draw()

    def _publish(self) -> None:
        chance = self._chance
        body = f"m{len(self._operations)}" + "." * chance.choice((0, 0, 0, 12, 30))
        said: dict[str, Any] = {}
        if self._exchanges and self._buries and self._maybe(0.6):
            exchange, key = chance.choice(tuple(self._exchanges)), chance.choice(KEYS)
        else:
            exchange, key = "", chance.choice((*self._queues, *self._queues, "q9"))
        headers: dict[str, Any] = {}
        if self._maybe(0.4):
            headers |= {"h": chance.choice((1, 2)), "g": chance.choice("ab")}
        if self._maybe(0.15) and self._buries:
            headers["CC"] = [chance.choice((*KEYS, *self._queues))]
        if self._maybe(0.1) and self._buries:
            others = {*KEYS, *self._queues} - {key, *headers.get("CC", ())}
            headers["BCC"] = [chance.choice(sorted(others))]
        if headers:
            said["headers"] = headers
        if self._maybe(0.3):
            said["mandatory"] = True
        if self._maybe(0.15) and not self._prioritises:
            said["expiration"] = str(chance.choice(self._lives_ms))
        if self._prioritises and self._maybe(0.7):
            said["priority"] = chance.choice((0, 1, 2, 5, 10, 255))
        if self._maybe(0.6):
            said["delivery_mode"] = chance.choice((1, 2))
        if self._maybe(0.1):
            said |= {"message_id": "id", "timestamp": 7, "content_type": "text/plain"}
        if self._maybe(0.05):
            said["user_id"] = "guest"
        channel = 0 if self._refuses else self._channel()
        if self._modes[channel] == TX and channel in self._giving_back:
            return
        self._publishing.add(channel)
        self._add(channel, "publish", exchange=exchange, key=key, body=body, **said)

    def _get(self) -> None:
        self._add(self._channel(), "get", queue=self._any_queue(), no_ack=self._maybe(0.3))

    def _consume(self) -> None:
        if not self._consumes:
            return
        channel = self._channel()
        if self._limits_deliveries and channel in self._consumes_from:
            return
        queue = self._consumes_from.setdefault(channel, self._any_queue())
        said: dict[str, Any] = {"no_ack": True} if self._maybe(0.2) else {}
        is_quorum = self._queues.get(queue) == "quorum"
        if self._maybe(0.1):
            said["exclusive"] = True
        if self._maybe(0.2) and not (is_quorum and queue in self._alone):
            said["arguments"] = {"x-priority": self._chance.randint(-1, 2)}
        prefetch = self._chance.choice((0, 1, 1, 2, 3))
        if is_quorum and self._consumed[queue]:
            if queue in self._limited:
                return
            prefetch = 0
        if prefetch:
            self._limited.add(queue)
        self._consumed[queue] += 1
        self._tags += 1
        self._add(channel, "consume", queue=queue, tag=f"t{self._tags}", prefetch=prefetch, **said)

    def _cancel(self) -> None:
        if self._tags:
            tag = f"t{self._chance.randint(1, self._tags)}"
            made = next(op for op in self._operations if op.said.get("tag") == tag)
            self._add(made.channel, "cancel", tag=tag)

    def _settle(self) -> None:
        chance = self._chance
        verb = chance.choice(("ack", "ack", "nack", "reject"))
        said: dict[str, Any] = {"which": chance.choice((0, 0, 1, -1))}
        if verb != "reject" and self._maybe(0.3):
            said["multiple"] = True
        channel = self._channel()
        if verb != "ack":
            if self._modes[channel] == TX and channel in self._publishing:
                return
            said["requeue"] = self._maybe(0.5)
            if verb == "nack" and self._limits_deliveries:
                said["requeue"] = False
            self._giving_back.add(channel)
        self._add(channel, "settle", how=verb, **said)

    def _recover(self) -> None:
        channel = self._channel()
        if not self._limits_deliveries and self._modes[channel] != TX:
            self._add(channel, "recover")

    def _err(self) -> None:
        """Do what a channel or a connection is closed for."""
        if not self._may_vanish:
            return
        channel, queue = self._channel(), self._living()
        errors: tuple[tuple[str, dict[str, Any]], ...] = (
            ("ack", {"tag": 77}),
            ("nack", {"tag": 99, "multiple": True}),
            ("publish", {"exchange": "x9", "key": "a", "body": "lost"}),
            ("publish", {"exchange": "", "key": queue, "body": "forged", "user_id": "root"}),
            ("declare", {"queue": queue, "arguments": {"x-max-length": -1}}),
            ("declare", {"queue": queue, "passive": True}),
            ("declare", {"queue": queue, "arguments": {"x-expires": 7}}),
            ("bind", {"queue": queue, "exchange": "x9"}),
            ("bind", {"queue": "q9", "exchange": "amq.direct", "key": "a"}),
            ("delete", {"queue": queue, "if_empty": True}),
            ("delete", {"queue": queue, "if_unused": True}),
            ("commit", {}),
        )
        verb, said = self._chance.choice(errors)
        self._add(channel, verb, **said)

    def _end_transaction(self) -> None:
        transacting = [n for n, mode in enumerate(self._modes) if mode == TX]
        if transacting:
            verb = self._chance.choice(("commit", "commit", "roll_back"))
            self._add(self._chance.choice(transacting), verb)

    def _purge_or_delete(self) -> None:
        queue = self._any_queue()
        if self._refuses:
            return
        if self._maybe(0.6):
            self._add(self._channel(), "purge", queue=queue)
        elif TX not in self._modes:
            self._add(self._channel(), "delete", queue=queue)
            if self._maybe(0.5):
                self._declare(queue)

    def _change_bindings(self) -> None:
        bound = [op for op in self._operations if op.verb in ("bind", "bind_exchange")]
        if not (bound and self._exchanges):
            return
        if self._maybe(0.4):
            self._bind(self._chance.choice(tuple(self._exchanges)))
        elif self._maybe(0.8):
            chosen = self._chance.choice(bound)
            self._add(chosen.channel, f"un{chosen.verb}", **chosen.said)
        else:
            self._add(0, "delete_exchange", name=self._chance.choice(tuple(self._exchanges)))

    def _change_policies(self) -> None:
        if self._maybe(0.3):
            self._add(0, "clear_policy", name="p")
            return
        chance = self._chance
        definition: dict[str, Any] = {}
        is_classic = "quorum" not in self._queues.values()
        if self._maybe(0.5):
            definition["message-ttl"] = LONG_MS
        if self._maybe(0.5) and is_classic and not self._prioritises:
            definition["max-length"] = chance.randint(0, 3)
        if not definition:
            definition["expires"] = LONG_MS
        pattern = chance.choice(("q[01]", "q.*"))
        if self._maybe(0.4) and not self._refuses:
            queue = self._living()
            pattern = f"{queue}.*"
            definition |= self._dead_letters("", queue)
        said = {"pattern": pattern, "apply-to": "queues", "definition": definition}
        self._add(0, "set_policy", name="p", **said)

    def _close(self) -> None:
        if not self._refuses:
            self._add(self._channel(), self._chance.choice(("close", "close", "hang_up")))


def drawn(chance: Random, count: int = 30) -> Case:
    """A case in which so much is done."""
    return CaseGenerator(chance).drawn(count)
