"""Structured logs: one line an event, `name key=value …` or one JSON object.

Whatever clients send may stand in a value, so values that hold spaces, quotes or control characters
are quoted as JSON strings: no client writes a second line, or an escape sequence, into our log.
No line holds a password: a field that is named like one is masked.  A value that is long is cut, so
that no client fills our disk: an identifier of MQTT may have 64 KiB, and needs no login.

Lines that may come all the time go through a `LimitedLog`: each is written once in ten minutes,
however often it comes.

    log = LimitedLog(logger, clock)
    log.warn("retained_limit_reached", vhost=vhost)
"""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from json.encoder import encode_basestring
from typing import TextIO

from fluffle.broker.base.clock import Clock

MASKED_FIELDS = frozenset({"password", "secret", "cluster_secret", "token"})
MASK = "***"
VALUE_LENGTH_MAX = 1_024
"""Characters, or octets, of a value that are shown; of tracebacks all are."""
FIELDS_ATTRIBUTE = "fluffle_fields"
LOGGED_BY = "fluffle"
"""The logger of all that is ours; the process may be another's."""
PLAIN_VALUE = re.compile(r"[!#-<>-~]+")
"""Values of ASCII that need no quotes: most of them."""
PARTING = re.compile('[ "=]')
"""Characters that only values in quotes may have."""


LEVEL_NAMES: Mapping[int, str] = {
    level: logging.getLevelName(level)
    for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR, logging.CRITICAL)
}
"""Names of the levels that events have."""

WITHOUT_SOURCE: Mapping[str, object] = {
    **dict.fromkeys(("exc_info", "exc_text", "funcName", "stack_info", "taskName")),
    **dict.fromkeys(("filename", "module", "pathname", "processName", "threadName"), ""),
    **dict.fromkeys(("lineno", "process", "relativeCreated", "thread"), 0),
    "args": (),
}
"""Attributes of a record that formatters of others may ask for, and no line of ours shows."""


class EventRecord(logging.LogRecord):
    """Log record of an event.

    It does not say which line of the source has logged it, nor in which thread: to find that out
    takes as long as all the rest (benchmarks/mqtt, connect).
    """

    def __init__(
        self, logger_name: str, level: int, name: str, fields: Mapping[str, object]
    ) -> None:
        self.__dict__.update(WITHOUT_SOURCE)
        self.name, self.msg = logger_name, name
        self.levelno, self.levelname = level, LEVEL_NAMES[level]
        self.created = time.time()
        self.msecs = self.created % 1 * 1000
        setattr(self, FIELDS_ATTRIBUTE, fields)


class LineHandler(logging.StreamHandler[TextIO]):
    """Handler that writes each record at once."""

    def handle(self, record: logging.LogRecord) -> bool:
        """Write a record, without the five functions of `Handler` that do so together: they take as
        long as to write (benchmarks/mqtt, connect)."""
        formatter = self.formatter
        if self.filters or self.lock is None or formatter is None:
            return bool(super().handle(record))
        with self.lock:
            try:
                stream = self.stream
                stream.write(f"{formatter.format(record)}\n")
                stream.flush()
            except Exception:  # noqa: BLE001 - as all handlers do: a line that is lost ends nothing
                self.handleError(record)
        return True


def event(logger: logging.Logger, level: int, name: str, /, **fields: object) -> None:
    """Log that something happened.  `name` is some_words; fields that are None are left out."""
    if logger.isEnabledFor(level):
        logger.handle(EventRecord(logger.name, level, name, fields))


def reason_of(error: Exception) -> str:
    """Return what is wrong, in the words of OpenSSL or of the system, on which a reader can act."""
    openssl_reason = getattr(error, "reason", None)
    if openssl_reason:
        return str(openssl_reason).replace("_", " ").lower()
    system_reason = getattr(error, "strerror", None)
    return system_reason or str(error) or type(error).__name__


def configure(format_name: str, level_name: str, stream: TextIO) -> None:
    """Let all loggers write to `stream`, in the format `text` or `json`, from that level on.

    The process is ours alone: what no line shows, records do not find out.
    """
    logging._srcfile = None  # as "Optimization" of its manual has it
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = LineHandler(stream)
    handler.setFormatter(LineFormatter(FORMATS[format_name]))
    logging.getLogger().handlers[:] = [handler]
    set_level(level_of(level_name))


def level_of(name: str) -> int:
    """Return the level of logging for the name that an option has for it."""
    return logging.getLevelNamesMapping()[name.upper()]


def set_level(level: int) -> None:
    """Make lines from that level on, for all handlers, even if one of them has asked for more."""
    root = logging.getLogger()
    root.setLevel(level)
    for handler in (*line_handlers(root), *line_handlers(logging.getLogger(LOGGED_BY))):
        handler.setLevel(level)
    adapt_level()


def adapt_level() -> None:
    """Have logged what is at or above the level of a handler, and nothing else."""
    ours = logging.getLogger(LOGGED_BY)
    levels = [handler.level for handler in line_handlers(ours)]
    ours.setLevel(logging.NOTSET)
    if levels and min(levels) < ours.getEffectiveLevel():
        ours.setLevel(min(levels))


def line_handlers(logger: logging.Logger) -> Iterator[logging.Handler]:
    """Return the handlers that make lines of ours; others are not ours."""
    return (each for each in logger.handlers if isinstance(each.formatter, LineFormatter))


class LineFormatter(logging.Formatter):
    """Makes one line of any record, also of those that are not events and of tracebacks."""

    def __init__(self, line: Callable[[Mapping[str, object]], str]) -> None:
        super().__init__()
        self._line = line
        self._second, self._second_text = -1, ""
        """Second of the record before, and its text: many records come in one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return a line without its end."""
        values: dict[str, object] = {
            "time": self._time_text(record.created),
            "level": record.levelname.lower(),
            "event": record.getMessage() if record.args else str(record.msg),
        }
        for key, value in getattr(record, FIELDS_ATTRIBUTE, {}).items():
            if value is None:
                continue
            if isinstance(value, str | bytes) and len(value) > VALUE_LENGTH_MAX:
                value = _cut(value)
            values[key] = MASK if key in MASKED_FIELDS else value
        if record.exc_info:
            values["traceback"] = self.formatException(record.exc_info)
        return self._line(values)

    def _time_text(self, created_s: float) -> str:
        second = int(created_s)
        if second != self._second:
            self._second = second
            self._second_text = datetime.fromtimestamp(second, UTC).isoformat()[:-6]
        return f"{self._second_text}.{int((created_s - second) * 1000):03d}Z"


def text_line(values: Mapping[str, object]) -> str:
    """`2026-01-31T12:00:00.000Z info ready node=a amqp=127.0.0.1:5672`."""
    time, level, name, *fields = values.items()
    event_name = str(name[1])
    words = [
        str(time[1]),
        str(level[1]),
        event_name if event_name.isprintable() else json.dumps(event_name),
    ]
    for key, value in fields:
        text = value if isinstance(value, str) else _as_text(value)
        words.append(f"{key}={text if PLAIN_VALUE.fullmatch(text) else _quoted(text)}")
    return " ".join(words)


def json_line(values: Mapping[str, object]) -> str:
    """Format a JSON object in ASCII; values without a JSON type become strings."""
    return json.dumps(values, default=_as_text)


FORMATS: Mapping[str, Callable[[Mapping[str, object]], str]] = {
    "text": text_line,
    "json": json_line,
}


def _cut(value: str | bytes) -> str:
    """Return the beginning of a long value, and how long it is."""
    return f"{_as_text(value[:VALUE_LENGTH_MAX])}... ({len(value)} in all)"


def _as_text(value: object) -> str:
    return value.decode(errors="backslashreplace") if isinstance(value, bytes) else str(value)


def _quoted(text: str) -> str:
    """Return a value that is not plain as a line has it: in quotes, if it needs any."""
    if not text.isprintable():
        return json.dumps(text)
    return text if text and not PARTING.search(text) else encode_basestring(text)


REPEATED_AFTER_MS = 600_000
"""Time after which what goes on is logged again."""
REPEATED_MAX = 1000
"""Most lines remembered as logged; beyond, all are forgotten."""


class LimitedLog:
    """Log of lines; those with the same name and the same fields are the same."""

    __slots__ = ("_clock", "_logged_ms", "_logger")

    def __init__(self, logger: logging.Logger, clock: Clock) -> None:
        self._logger = logger
        self._clock = clock
        self._logged_ms: dict[tuple[object, ...], int] = {}
        """Times of the lines logged."""

    def warn(self, name: str, /, **fields: str | int) -> None:
        """Log a warning, unless the same was logged not long ago."""
        self._log(logging.WARNING, name, fields)

    def inform(self, name: str, /, **fields: str | int) -> None:
        """Log information, unless the same was logged not long ago."""
        self._log(logging.INFO, name, fields)

    def _log(self, level: int, name: str, fields: dict[str, str | int]) -> None:
        now_ms, key = self._clock.now_ms(), (name, *fields.values())
        logged_ms = self._logged_ms.get(key)
        if logged_ms is not None and now_ms - logged_ms < REPEATED_AFTER_MS:
            return
        if len(self._logged_ms) >= REPEATED_MAX:
            self._logged_ms.clear()
        self._logged_ms[key] = now_ms
        event(self._logger, level, name, **fields)
