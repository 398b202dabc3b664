"""What ``wsserver serve --workers N`` becomes: the supervisor."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Mapping
from typing import Any

import click

from wsserver import logbook
from wsserver.config import Settings
from wsserver.options import config_option, describe_flags, fail, load_or_exit, setting_options
from wsserver.systemd import Sockets, SocketsWrong, Systemd, take_sockets
from wsserver.transport import bind
from wsserver.workers.process import WorkerFailed
from wsserver.workers.supervisor import Patience, Supervisor

DRAIN_GRACE_S = 5.0
"""How much longer than its drain timeout a worker may take to end."""


@click.command()
@config_option
@setting_options()
def main(**flags: Any) -> None:
    """Supervise workers; not to be called by hand."""
    settings = load_or_exit(flags)
    try:
        asyncio.run(supervise(settings, flags))
    except (SocketsWrong, WorkerFailed) as error:
        fail(str(error))
    except OSError as error:
        fail(
            f"can't listen on {settings.host} port {settings.port} (admin port "
            f"{settings.admin_port}): {error.strerror or error}"
        )


async def supervise(settings: Settings, flags: Mapping[str, Any]) -> None:
    """Have the workers serve until a signal."""
    patience = Patience(drain_s=settings.drain_timeout_s + DRAIN_GRACE_S)
    supervisor = Supervisor(
        settings.workers,
        command=[
            *(sys.executable, "-P", "-m", "wsserver.workers.worker"),
            *(f"--beat-interval={patience.beat_interval_s}", *describe_flags(flags)),
        ],
        sockets=await open_sockets(settings),
        systemd=Systemd(),
        patience=patience,
    )

    def tell_started() -> None:
        scheme = "ws" if settings.tls_cert is None else "wss"
        shown = f"[{settings.host}]" if ":" in settings.host else settings.host
        logbook.LISTENING.log(address=f"{scheme}://{shown}:{supervisor.port}/v1")
        if supervisor.admin_port:
            logbook.ADMIN_LISTENING.log(address=f"port {supervisor.admin_port}")

    await supervisor.run(tell_started)


async def open_sockets(settings: Settings) -> Sockets:
    """All ports: those that were handed over, and the others opened. Raises OSError."""
    sockets = dict(take_sockets())
    wanted = {
        "wsserver": (settings.host, settings.port, True),
        "admin": (settings.admin_host, settings.admin_port, settings.admin_port != 0),
        "lbry": (settings.host, settings.lbry_port, settings.lbry_port != 0),
    }
    for name, (host, port, is_wanted) in wanted.items():
        if is_wanted and name not in sockets:
            sockets[name] = await bind(host, port)
    return sockets


if __name__ == "__main__":
    main()
