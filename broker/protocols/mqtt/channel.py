"""Channel of an MQTT client: what it publishes and what it is given, over one connection.

MQTT has no channels: to the core it is the one channel of the client, and is not listed.  It has a
consumer a queue of its session.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from fluffle.broker.base.empty_dict import EMPTY_DICT
from fluffle.broker.base.errors import (
    AccessRefused,
    BrokerError,
    NotFound,
    QueueCrashed,
    QueueDeleted,
)
from fluffle.broker.base.queue_names import subscription_queue
from fluffle.broker.core.client import WITHOUT_CHANNELS, Client
from fluffle.broker.core.confirms import Confirms
from fluffle.broker.core.consumer import (
    ConsumerTerms,
    Subscription,
    consumer_started,
    end_consumers,
    forget_consumer,
    requeue_timed_out,
    start_consumer,
)
from fluffle.broker.core.publisher import Publisher
from fluffle.broker.core.session import Session
from fluffle.broker.core.settlement import Settlements, Unacked
from fluffle.broker.protocols.mqtt.delivery_terms import DeliveryTerms
from fluffle.broker.protocols.mqtt.incoming_publishes import IncomingPublishes
from fluffle.broker.protocols.mqtt.outgoing_publishes import OutgoingPublishes, PublishWriter
from fluffle.broker.protocols.mqtt.packet_keeper import PacketKeeper, PacketRequests
from fluffle.broker.protocols.mqtt.prepared_runs import PublishTerms
from fluffle.broker.protocols.mqtt.publish_runs import LastRun
from fluffle.broker.protocols.mqtt.reasons import code_of
from fluffle.broker.protocols.mqtt.retained_messages import RetainedSender
from fluffle.broker.protocols.mqtt.shared_queues import SharedQueues
from fluffle.broker.queues.expiry_times import NEVER_MS
from fluffle.broker.queues.queue_api import Outcome, SharedCredit
from fluffle.protocol.mqtt.codes import ReasonCode
from fluffle.protocol.wire import FieldTable

if TYPE_CHECKING:
    from fluffle.broker.config.config import MqttConfig
    from fluffle.broker.core.input_queue import ReadControl
    from fluffle.broker.core.observer import ChannelObserver
    from fluffle.broker.core.output_buffer import OutputBuffer
    from fluffle.broker.core.services import Services
    from fluffle.broker.definitions.retained import RetainedStore
    from fluffle.broker.protocols.mqtt.conversion import MessageConverter
    from fluffle.broker.protocols.mqtt.session_state import (
        SessionKey,
        SessionState,
        TopicSubscription,
    )
    from fluffle.broker.protocols.mqtt.sys_topics import SysTopics
    from fluffle.broker.queues.queue_api import (
        Consumer,
        OverdueDeliveries,
        QueueHandle,
        TimedOutDeliveries,
    )

NO_TIMEOUT: FieldTable = {"x-consumer-timeout": ("l", NEVER_MS)}
"""A client may hold what it has for as long as it lives, which its keep alive shows."""

AWAY_RETRY_S = 5.0
"""After that long a queue is asked for again whose node was away, or did not have it."""

TAGS = ("mqtt-qos0", "mqtt")
"""Consumer tags by the QoS of their queue.  RabbitMQ calls both `mqtt`.  The consumer of a queue
that is shared has the name of the queue."""


class ChannelConnection(Client, Protocol):
    """Connection of an MQTT client, as its channel knows it."""

    output: OutputBuffer
    read_control: ReadControl

    def end(self, code: ReasonCode, text: str) -> None:
        """End the connection for what no packet of its client has done; it gets the reason."""

    def disconnect(self, code: ReasonCode, text: str) -> None:
        """End the connection for an error of its client, which gets the reason."""

    def give_up(self, error: Exception) -> None:
        """End it for an error of the broker's own that concerns it alone."""

    def subscribe_again(self, subscription: TopicSubscription) -> None:
        """Make a subscription anew whose queue has been deleted; if that cannot be, end it."""


class ChannelServer(Protocol):
    """Server of a node, as far as channels of its clients need it."""

    config: MqttConfig
    converter: MessageConverter
    last_run: LastRun
    packet_requests: PacketRequests
    retained: RetainedStore | None
    services: Services
    sys: SysTopics
    shared_subscriptions: int
    """How many of connected clients are shared."""

    def is_own(self, key: SessionKey) -> bool:
        """True if a session that lasts is this node's."""


class Channel:
    """State of the one channel of a client: a `SubscriptionChannel` and a `ClientChannel`."""

    __slots__ = (
        "_incoming",
        "_notes_packets",
        "_outgoing",
        "_retained",
        "_server",
        "_settlements",
        "connection",
        "converter",
        "delivery_terms",
        "is_open",
        "observer",
        "output",
        "prefetch",
        "publish_terms",
        "session",
        "shared_credit",
        "state",
        "subscriptions",
        "turn",
        "writers",
    )
    number = WITHOUT_CHANNELS
    transaction = None
    loses_consumers = True

    def __init__(
        self,
        connection: ChannelConnection,
        session: Session,
        state: SessionState,
        server: ChannelServer,
        *,
        publish_terms: PublishTerms,
        delivery_terms: DeliveryTerms,
        window: int,
    ) -> None:
        """`window`: how many messages of QoS 1 and 2 the client may be sent and not have
        finished."""
        self.connection = connection
        self.session = session
        self.state = state
        self.converter = server.converter
        self._server = server
        self.output = connection.output
        self.is_open = True
        self.prefetch = window
        self.shared_credit = SharedCredit()
        """Window of the client for messages of QoS 1 and 2; a limit only where queues are shared,
        for else the one consumer has it."""
        self._settlements: Settlements | None = None
        """None until the client is given messages that it answers."""
        self.subscriptions: dict[str, Subscription] = {}
        """Consumers of the session's queues, by consumer tag."""
        self.writers: dict[str, PublishWriter] = {}
        """Writers of these consumers."""
        self.publish_terms, self.delivery_terms = publish_terms, delivery_terms
        self._incoming: IncomingPublishes | None = None
        """None until the client publishes."""
        self._outgoing: OutgoingPublishes | None = None
        """None until the client is to be given messages."""
        self._notes_packets = state.is_lasting
        self.turn = server.services.runtime.turn
        self._retained: RetainedSender | None = None
        """None until something that is retained may have to be sent."""
        self.observer: ChannelObserver | None = None

    def open(self) -> None:
        """Have observers see it."""
        self.observer = self.session.open_channel(self)

    @property
    def settlements(self) -> Settlements:
        """Settlement of what the client is given."""
        if self._settlements is None:
            self._settlements = Settlements(self.session)
            self._settlements.observer = self.observer
        return self._settlements

    @property
    def incoming(self) -> IncomingPublishes:
        """Messages that the client publishes."""
        if self._incoming is None:
            self._incoming = IncomingPublishes(
                self.session,
                self.state,
                self.output,
                self.converter,
                terms=self.publish_terms,
                retained=self._server.retained,
                packets=self.packets,
                read_control=self.connection.read_control,
            )
            for publisher in self._incoming.publishers:
                publisher.observer = self.observer
        return self._incoming

    @property
    def outgoing(self) -> OutgoingPublishes:
        """Messages that the client is sent."""
        if self._outgoing is None:
            self._outgoing = OutgoingPublishes(self, self.state, self.delivery_terms)
        return self._outgoing

    @property
    def packets(self) -> PacketKeeper | None:
        """Keeper of its packets of QoS 2, if the session has outlived connections from the start
        of this one on."""
        if not self._notes_packets:
            return None
        requests, state = self._server.packet_requests, self.state
        return PacketKeeper(requests, state.key, self, state.number)

    @property
    def retained(self) -> RetainedSender:
        """Retained messages that the client is sent."""
        if self._retained is None:
            server = self._server
            self._retained = RetainedSender(self, server.sys, server.services.retained.now_ms)
        return self._retained

    @property
    def groups(self) -> SharedQueues:
        """Queues that the client shares."""
        return SharedQueues(self, self._server, self.connection)

    @property
    def publisher(self) -> Publisher:
        """The publisher under whose name tracers see it."""
        return self.incoming.traced

    @property
    def unacked(self) -> Unacked:
        return self.settlements.unacked

    @property
    def confirms(self) -> Confirms | None:
        return None if self._incoming is None else self._incoming.publishers[1].mode.confirms

    def credit_of(self, queue: QueueHandle) -> SharedCredit:
        """All consumers have the window of the client together, but for the queue of QoS 0, which
        needs none."""
        return SharedCredit() if queue.name == self.queue_name(0) else self.shared_credit

    # Queues of the session

    def queue_name(self, qos: int) -> str:
        """The name of the queue of subscriptions of a QoS."""
        return subscription_queue(self.state.client_id, qos)

    @property
    def mailbox_consumer(self) -> Consumer:
        """The consumer of the queue of QoS 0, which has begun."""
        return self.subscriptions[TAGS[0]].consumer

    @property
    def window_consumer(self) -> Consumer | None:
        """The consumer of the queue of QoS 1 and 2, if it has begun."""
        subscription = self.subscriptions.get(TAGS[1])
        return None if subscription is None else subscription.consumer

    def consume(self, qos: int) -> None:
        """Have the client given what is in a queue of its session, if that is there."""
        self.consume_from(self.queue_name(qos), TAGS[min(qos, 1)], min(qos, 1))

    def consume_from(
        self, queue_name: str, tag: str, queue_qos: int, *, full_filter: str = ""
    ) -> None:
        """Consume from a queue, if it is there.  If the client may not, its connection ends.

        `full_filter`: of the subscription that is shared, where the queue is.
        """
        queue = self.session.vhost.queues.get(queue_name)
        if queue is None or tag in self.subscriptions or not self.is_open:
            return
        counts = self.session.deliveries_from(queue)
        writer = PublishWriter(
            *(self, self.outgoing, self.converter, counts),
            queue_qos=queue_qos,
            last_run=self._server.last_run,
            shared_filter=full_filter,
        )
        subscription = Subscription(self, tag, self.output, writer)
        terms = ConsumerTerms(tag, no_ack=True, direct=writer)
        if queue_qos:
            epoch = 0 if full_filter else self.state.number
            terms = ConsumerTerms(tag, prefetch=self.prefetch, arguments=NO_TIMEOUT, epoch=epoch)
        started = partial(consumer_started, self, tag, EMPTY_DICT)
        try:
            attached = start_consumer(self, queue, subscription, terms)
        except BrokerError as error:
            self._consume_refused(tag, error)
            return
        self.writers[tag] = writer
        if tag == TAGS[1]:
            self.outgoing.consumes(subscription.consumer)
        if attached is None:
            started()
        else:
            attached.then(lambda _answer: started(), partial(self._consume_refused, tag))

    def _consume_refused(self, tag: str, error: BrokerError) -> None:
        """End the connection if a queue of the session is another's alone, or has damage.

        Its queue of QoS 0 is at one node.  While that is away, or does not have the queue yet, its
        messages are lost, which QoS 0 permits, and the client has the others.
        """
        if not self.is_open:
            return
        is_missing = isinstance(error, NotFound) and not isinstance(error, QueueCrashed)
        if tag == TAGS[0] and is_missing:
            forget_consumer(self, tag)
            self.writers.pop(tag, None)
            # If it was deleted there is another one already, or the session is over.
            after_s = 0.0 if isinstance(error, QueueDeleted) else AWAY_RETRY_S
            self._server.services.runtime.clients_call_later(after_s, self._consume_again)
        else:
            self.connection.end(code_of(error), error.explanation)

    def _consume_again(self) -> None:
        """Consume from the queue of QoS 0, whose node was away, or which is another by now."""
        if self.is_open and self.queue_name(0) not in self.session.vhost.queues:
            self.consumer_lost(TAGS[0])
        else:
            self.consume(0)

    def subscriptions_changed(self) -> None:
        """Forget how messages are sent, which subscriptions say."""
        for writer in self.writers.values():
            writer.forget()

    def vouch(self) -> None:
        """Hold the output from here on until all that was done or defined so far is safe."""
        commits = self.session.commits
        settled = 0 if self._settlements is None else self._settlements.ticket
        ticket = max(settled, commits.defined)
        if ticket > commits.durable:
            self.output.hold(ticket)
            commits.wait(self.output, ticket)

    # Called by the core

    def requeue_timed_out(self, late: OverdueDeliveries) -> TimedOutDeliveries:
        """Put back messages that the client has held for too long."""
        return requeue_timed_out(late)

    def consumer_lost(self, tag: str) -> None:
        """A queue of the session has been deleted, and with it the session, or it may not be read
        any more.  One that is shared is made anew."""
        vhost = self.session.vhost
        queues = vhost.queues
        if tag not in TAGS and tag not in queues:
            self.groups.lost(tag)
            return
        name = self.queue_name(TAGS.index(tag)) if tag in TAGS else tag
        is_deleted = name not in queues
        is_own = self._server.is_own(self.state.key)  # not if a node elsewhere has it anew
        if is_deleted and is_own:
            self.state.expiry_s = 0
        code = ReasonCode.ADMINISTRATIVE_ACTION
        text = "has been deleted" if is_deleted else "has ended its consumer"
        if not (is_deleted or self._may_read(name)):
            code, text = ReasonCode.NOT_AUTHORIZED, "may not be read any more"
        self.connection.end(code, f"queue '{name}' in vhost '{vhost.name}' {text}")

    def _may_read(self, queue: str) -> bool:
        try:
            self.session.rights.check("read", "queue", queue)
        except AccessRefused:
            return False
        return True

    def refuse(self, error: BrokerError) -> None:
        """End the connection for something that its client did not ask for."""
        if self.is_open:
            self.connection.end(ReasonCode.ADMINISTRATIVE_ACTION, error.explanation)

    def give_up(self, error: Exception) -> None:
        self.connection.give_up(error)

    def close(self) -> None:
        """Stop all consumers, and give back what is unacknowledged, to be sent again under the
        same identifiers if the session lasts."""
        self.is_open = False
        self._server.sys.forget(self)
        consumer_count = len(self.subscriptions)
        if consumer_count:
            end_consumers(self)
        if self.state.subscriptions:
            self.groups.end()
        if self._outgoing is not None:
            self._outgoing.end()
            self._outgoing.noted.end()
        if self._settlements is not None or self.observer is not None:
            steps = self.settlements.settle_all(Outcome.LOST)
            for _ in steps:
                self.session.background_tasks.finish(steps)
                break
        if self._incoming is not None:
            self._incoming.end()
        self.session.end_channel(self, consumer_count)
        self.writers.clear()
        self._incoming = self._outgoing = self._retained = None  # no cycle is left to the collector
