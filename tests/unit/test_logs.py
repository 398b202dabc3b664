"""What a log line looks like, for people and for programs."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from typing import Any

import pytest

from wsserver import logbook, logs
from wsserver.failures import report_failure


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


def read_document(stream: io.StringIO) -> dict[str, Any]:
    (line,) = stream.getvalue().splitlines()
    document: dict[str, Any] = json.loads(line)
    return document


def fail_with(text: str) -> Exception:
    try:
        try:
            raise KeyError(text)
        except KeyError as error:
            raise ValueError(text) from error
    except ValueError as error:
        return error


def test_where_no_terminal_is_a_line_is_one_json_document(stream: io.StringIO) -> None:
    logs.set_up("info", stream=stream)
    logbook.DATABASE_RECOVERED.log(lane="writing lane")
    document = read_document(stream)
    assert document.pop("time").endswith("Z")
    assert document == {
        "level": "warning",
        "event": "database.recovered",
        "message": "writing lane: the database can be used again",
        "lane": "writing lane",
    }


def test_for_people_a_line_is_its_sentence_and_what_that_lacks(stream: io.StringIO) -> None:
    logs.set_up("debug", "console", stream=stream)
    logbook.SESSION_OPENED.log(account_id=7, device_id="laptop", peer="192.0.2.1")
    at, rest = stream.getvalue().split(" ", 1)
    assert at.endswith("Z")
    assert "account 7 is logged in from 192.0.2.1" in rest
    assert rest.endswith("device_id=laptop\n")
    assert "account_id=" not in rest
    assert "\x1b" not in rest


def test_on_a_terminal_it_is_for_people_and_coloured() -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    logs.set_up("info", stream=terminal)
    logbook.STOPPED.log()
    assert "stopped" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_client_names_cannot_break_out_of_its_line(
    stream: io.StringIO, form: logs.LogFormat
) -> None:
    logs.set_up("debug", form, stream=stream)
    logbook.SESSION_OPENED.log(account_id=7, device_id="a\nb\x1b[2J\u202e", peer="192.0.2.1")
    assert stream.getvalue().count("\n") == 1
    assert "\x1b" not in stream.getvalue()
    if form == "console":
        assert "\u202e" not in stream.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_failure_has_its_class_its_place_and_its_id_and_not_its_text(
    stream: io.StringIO, form: logs.LogFormat
) -> None:
    logs.set_up("debug", form, stream=stream)
    answer = report_failure("something failed", fail_with("a secret"))
    shown = stream.getvalue()
    assert answer.error_id in shown
    assert "a secret" not in shown
    assert "ValueError" in shown
    assert "fail_with" in shown
    if form == "json":
        document = read_document(stream)
        assert document["event"] == "failure"
        assert document["error_id"] == answer.error_id
        assert document["traceback"].startswith("Traceback of ValueError")


@pytest.mark.parametrize("form", ["json", "console"])
def test_what_a_library_logs_goes_the_same_way(stream: io.StringIO, form: logs.LogFormat) -> None:
    logs.set_up("debug", form, stream=stream)
    library = logging.getLogger("some.library")
    library.info("what a library does, in detail: %s", "a secret")
    library.error("it went %s", "wrong", exc_info=fail_with("a secret"))
    shown = stream.getvalue()
    assert "it went wrong" in shown
    assert "a secret" not in shown
    assert "Traceback of KeyError" in shown
    if form == "json":
        assert read_document(stream)["event"] == "some.library"


def test_lines_below_the_level_are_not_written(stream: io.StringIO) -> None:
    logs.set_up("warning", stream=stream)
    logbook.STOPPED.log()
    assert stream.getvalue() == ""
    logbook.set_level("info")
    logbook.STOPPED.log()
    assert read_document(stream)["event"] == "server.stopped"


class Stuck(io.StringIO):
    """A pipe that nobody reads, until somebody does."""

    def __init__(self) -> None:
        super().__init__()
        self.reads = threading.Event()
        self.tried = threading.Event()

    def write(self, text: str) -> int:
        self.tried.set()
        assert self.reads.wait(30)
        return super().write(text)


def test_a_log_that_nobody_reads_stops_nobody_and_says_what_was_dropped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logs, "LINES_WAITING_MAX", 3)
    pipe = Stuck()
    logs.set_up("info", "json", stream=pipe, in_background=True)
    (handler,) = [each for each in logging.getLogger().handlers if type(each) is logs.Background]
    logbook.STOPPED.log()
    assert pipe.tried.wait(30)
    for number in range(10):
        logbook.MAIL_DELIVERED.log(mail=number, tries=1)
    pipe.reads.set()
    while '"mail": 2' not in pipe.getvalue():
        time.sleep(0.01)
    logbook.STOPPED.log()
    handler.close()
    documents = [json.loads(line) for line in pipe.getvalue().splitlines()]
    assert [each.get("mail") for each in documents] == [None, 0, 1, 2, None, None]
    assert [each.get("count") for each in documents if each["event"] == "log.dropped"] == [7]


def test_a_line_that_is_not_written_yet_is_written_at_the_end(stream: io.StringIO) -> None:
    logs.set_up("info", "json", stream=stream, in_background=True)
    (handler,) = [each for each in logging.getLogger().handlers if type(each) is logs.Background]
    for _ in range(100):
        logbook.STOPPED.log()
    handler.close()
    assert stream.getvalue().count("\n") == 100
