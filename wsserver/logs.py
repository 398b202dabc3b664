"""Where log lines go, and how they look there: for people on a terminal, JSON elsewhere.

Lines of other libraries go the same way. None of them shows the text of an exception.
"""

from __future__ import annotations

import logging
import queue
import sys
import threading
import traceback
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import structlog

from wsserver import logbook

LogFormat = Literal["auto", "console", "json"]
LINES_WAITING_MAX: Final = 10_000
"""Lines that wait to be written, at less than a KiB each; more are dropped, and counted."""
CLOSING_TIMEOUT_S: Final = 2.0
"""How long an exit waits for lines to be written."""


def set_up(
    level: str,
    form: LogFormat = "auto",
    *,
    stream: TextIO | None = None,
    in_background: bool = False,
) -> None:
    """Have the whole process log, to standard error unless given. ``in_background``: by a thread.

    Once a process: a thread is in none that it forks.
    """
    stream = sys.stderr if stream is None else stream
    handler: logging.Handler = logging.StreamHandler(stream)
    for_people = stream.isatty() if form == "auto" else form == "console"
    handler.setFormatter(make_formatter(for_people, colours=stream.isatty()))
    root = logging.getLogger()
    root.addHandler(Background(handler) if in_background else handler)
    # What others tell below a warning is for who works on them, and may be anything.
    root.setLevel(logging.WARNING)
    logbook.set_level(level)


def make_formatter(for_people: bool, *, colours: bool = False) -> logging.Formatter:
    """Writes a record as a sentence for people, or as one JSON document."""
    renderer: structlog.typing.Processor
    if for_people:
        renderer = structlog.dev.ConsoleRenderer(
            colors=colours,
            pad_event_to=0,
            sort_keys=False,
            timestamp_key="time",
            event_key="message",
            # Its own choice shows what is in local variables.
            exception_formatter=structlog.dev.plain_traceback,
        )
    else:
        renderer = structlog.processors.JSONRenderer(ensure_ascii=False, default=str)
    return structlog.stdlib.ProcessorFormatter(
        processors=[_describe_for_people if for_people else _describe, renderer]
    )


def _describe(
    logger: Any, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """All that a record tells, by name."""
    record: logging.LogRecord = event["_record"]
    entry: logbook.Entry | None = getattr(record, "entry", None)
    described = {
        "time": _show_time(record.created),
        "level": record.levelname.lower(),
        "event": record.name if entry is None else entry.name,
        "message": event["event"],
        **getattr(record, "fields", {}),
    }
    # The formatter has taken it off the record: others would show the exception's text.
    if event.get("exc_info"):
        described["traceback"] = _show_place(event["exc_info"][1])
    return described


def _describe_for_people(
    logger: Any, method: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """The sentence, what it does not tell, and no character that a terminal would obey."""
    record: logging.LogRecord = event["_record"]
    entry: logbook.Entry | None = getattr(record, "entry", None)
    described = _describe(logger, method, event)
    place = described.pop("traceback", None)
    del described["event"]
    if entry is not None:
        for name in {*entry.fields} - {*entry.also}:
            del described[name]
    shown = {
        name: _escape(value) if isinstance(value, str) else value
        for name, value in described.items()
        if value not in (None, "")
    }
    return shown if place is None else {**shown, "exception": place}


def _show_time(time_s: float) -> str:
    return datetime.fromtimestamp(time_s, UTC).isoformat(timespec="milliseconds")[:-6] + "Z"


def _show_place(error: BaseException) -> str:
    """The class of an error and where it came from, and of those behind it."""
    lines: list[str] = []
    seen: BaseException | None = error
    while seen is not None:
        kind = str(seen) if type(seen) is logbook.Hidden else type(seen).__name__
        lines.insert(
            0,
            f"Traceback of {kind}, most recent call last:\n"
            + "".join(traceback.format_tb(seen.__traceback__)).rstrip(),
        )
        seen = seen.__cause__ or (None if seen.__suppress_context__ else seen.__context__)
    return "\n".join(lines)


def _escape(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


class Background(logging.Handler):
    """Hands records to a thread that writes them: a pipe that nobody reads stops nobody."""

    def __init__(self, target: logging.Handler) -> None:
        super().__init__()
        self._target = target
        self._queue: queue.SimpleQueue[logging.LogRecord | None] = queue.SimpleQueue()
        self._dropped = 0
        self._thread = threading.Thread(target=self._work, name="log", daemon=True)
        self._thread.start()

    def emit(self, record: logging.LogRecord) -> None:
        """Take it, or leave it out where too many wait."""
        if self._queue.qsize() >= LINES_WAITING_MAX:
            self._dropped += 1
            return
        self._queue.put(record)
        if self._dropped:
            count, self._dropped = self._dropped, 0
            logbook.LINES_DROPPED.log(count=count)

    def close(self) -> None:
        """Write what waits, as far as that takes no longer than an exit may."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(CLOSING_TIMEOUT_S)
        super().close()

    def _work(self) -> None:
        while (record := self._queue.get()) is not None:
            self._target.handle(record)
