"""One worker: a server on sockets that its supervisor opened, which it tells how it is."""

from __future__ import annotations

import logging
import socket
import sys
from collections.abc import Sequence
from typing import Any

import click
import orjson

from wsserver.config import Settings
from wsserver.options import EXIT_FAILURE, config_option, load_or_exit, setting_options
from wsserver.server import Server
from wsserver.starting import START_FAILURES, explain, run_in_loop
from wsserver.systemd import Sockets, adopt_socket
from wsserver.workers.control import Question, SupervisorLine


@click.command()
@click.option("--number", type=int, required=True)
@click.option("--control", type=int, required=True)
@click.option("--socket", "sockets", multiple=True)
@click.option("--beat-interval", type=float, required=True)
@config_option
@setting_options()
def main(
    number: int, control: int, sockets: Sequence[str], beat_interval: float, **flags: Any
) -> None:
    """Serve as one of many; not to be called by hand."""
    connection = socket.socket(fileno=control)
    connection.set_inheritable(False)
    line = SupervisorLine(connection, beat_interval_s=beat_interval)
    settings = share(load_or_exit(flags))
    _number_log_lines(number)
    server = Server(settings, sockets=_adopt(sockets), overseer=line)
    try:
        run_in_loop(serve(server, line))
    except START_FAILURES as error:
        line.tell_failed(explain(error, settings))
        sys.exit(EXIT_FAILURE)


async def serve(server: Server, line: SupervisorLine) -> None:
    """Serve until the supervisor says otherwise, or is gone."""

    async def find_figures() -> str:
        return (await server.expose_figures()).decode()

    async def find_snapshot() -> str:
        return orjson.dumps(await server.take_snapshot()).decode()

    await line.open(
        {
            Question.FIGURES: find_figures,
            Question.PROBE: server.probe,
            Question.SNAPSHOT: find_snapshot,
        },
        server.ask_to_stop,
    )
    await server.run(lambda: None)
    await line.close(await find_figures())


def share(settings: Settings) -> Settings:
    """The settings of one of the workers: the admin port is the supervisor's, the cores shared."""
    changes: dict[str, Any] = {"admin_port": 0}
    if "password_workers" not in settings.model_fields_set:
        changes["password_workers"] = max(1, settings.password_workers // settings.workers)
    return settings.model_copy(update=changes)


def _adopt(described: Sequence[str]) -> Sockets:
    sockets: dict[str, list[socket.socket]] = {}
    for name, _, descriptor in (text.partition("=") for text in described):
        sockets.setdefault(name, []).append(adopt_socket(name, int(descriptor)))
    return sockets


def _number_log_lines(number: int) -> None:
    make_record = logging.getLogRecordFactory()

    def make_numbered(*arguments: Any, **options: Any) -> logging.LogRecord:
        record = make_record(*arguments, **options)
        record.msg = f"worker {number}: {record.msg}"
        return record

    logging.setLogRecordFactory(make_numbered)


if __name__ == "__main__":
    main()
