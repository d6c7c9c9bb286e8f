"""Log publisher: publishes log lines as messages, as RabbitMQ's amq.rabbitmq.log has them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from fluffle.broker.base.clock import CallLater
from fluffle.broker.base.logs import (
    FIELDS_ATTRIBUTE,
    FORMATS,
    LOGGED_BY,
    LineFormatter,
    adapt_level,
)
from fluffle.broker.events.event_publisher import LOG_EXCHANGE, header
from fluffle.broker.transfer.republish import publish_own, while_it_has_room
from fluffle.broker.vhosts.vhost import VirtualHost
from fluffle.protocol.properties import Properties

LINES_MAX = 256
PAUSE_S = 0.1
"""So many lines are told in so long, and others dropped: should what comes of telling a line be
logged, and told again, it never becomes more."""

CONTENT_TYPES: Mapping[str, str] = {"text": "text/plain", "json": "application/json"}


class LogPublisher(logging.Handler):
    """Publisher of the log lines of one node.

    Takes records in any thread, and tells them in the loop, a bit later.
    """

    def __init__(
        self,
        node: str,
        format_name: str,
        home: Callable[[], VirtualHost | None],
        call_soon: Callable[[Callable[[], None]], object],
        call_later: CallLater,
    ) -> None:
        """`home` is where its exchange is.  `call_soon` may be called in any thread."""
        super().__init__()
        self._node, self._home = header(node), home
        self._content_type = CONTENT_TYPES[format_name]
        self.setFormatter(LineFormatter(FORMATS[format_name]))
        self._call_soon, self._call_later = call_soon, call_later
        self._waiting: list[logging.LogRecord] = []
        self._dropped_count = 0
        """Number of lines dropped since the last publish."""
        self._publishing_thread: int | None = None
        """The thread that is telling some: what it logs meanwhile is about these."""
        self._has_ended = False

    def emit(self, record: logging.LogRecord) -> None:
        """Queue a line of the log for publishing; the caller holds the handler's lock."""
        if self._has_ended or self._publishing_thread == threading.get_ident():
            return
        if len(self._waiting) >= LINES_MAX:
            self._dropped_count += 1
            return
        self._waiting.append(record)
        if len(self._waiting) == 1:
            self._call_soon(self._wait)

    def begin(self, level: int) -> None:
        """From now on, those of this level and above."""
        self.setLevel(level)
        logging.getLogger(LOGGED_BY).addHandler(self)
        adapt_level()

    def end(self) -> None:
        """No more; what waits is dropped."""
        logging.getLogger(LOGGED_BY).removeHandler(self)
        adapt_level()
        with locked(self):
            self._has_ended = True
            self._waiting.clear()

    def _wait(self) -> None:
        self._call_later(PAUSE_S, self._publish)

    def _publish(self) -> None:
        """Publish the waiting lines, if anything is bound."""
        with locked(self):
            records, self._waiting = self._waiting, []
            dropped_count, self._dropped_count = self._dropped_count, 0
        home = self._home()
        exchange = home.topology.find(LOG_EXCHANGE.name) if home is not None else None
        if home is None or exchange is None or not (records and len(exchange.matcher)):
            return
        if dropped_count:
            records.append(dropped(dropped_count))
        self._publishing_thread = threading.get_ident()
        try:
            messages = map(self._message, records)
            publish_own(home, LOG_EXCHANGE.name, messages, while_it_has_room)
        finally:
            self._publishing_thread = None

    def _message(self, record: logging.LogRecord) -> tuple[str, Properties, bytes]:
        properties = Properties(
            content_type=self._content_type,
            headers={"node": self._node},
            timestamp=int(record.created),
        )
        line = f"{self.format(record)}\n"
        return record.levelname.lower(), properties, line.encode(errors="surrogateescape")


@contextmanager
def locked(handler: logging.Handler) -> Iterator[None]:
    """Hold the handler's lock, so that no other thread gives it a record."""
    handler.acquire()
    try:
        yield
    finally:
        handler.release()


def dropped(count: int) -> logging.LogRecord:
    """Says in the place of so many lines that they are missing."""
    record = logging.LogRecord(LOGGED_BY, logging.WARNING, __file__, 0, "lines_dropped", None, None)
    setattr(record, FIELDS_ATTRIBUTE, {"count": count})
    return record
