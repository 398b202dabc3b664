"""The command ``wsserver status``: how a running server is, in a terminal."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import urllib.error
import urllib.request
from typing import Any, Final

import click
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from wsserver.options import EXIT_FAILURE, config_option, fail, load_or_exit, setting_options
from wsserver.status.drawing import draw_status

TIMEOUT_S: Final = 10.0
"""How long the server may take to answer."""
REDRAW_INTERVAL_S: Final = 1.0


class NoAnswer(Exception):
    """The server does not tell how it is; the text says why."""


@click.command("status")
@config_option
@setting_options("admin_host", "admin_port", "log_level")
@click.option("--url", metavar="URL", help="Admin port of another server: http://HOST:PORT")
@click.option("--watch", is_flag=True, help="Go on, once a second, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def status(url: str | None, watch: bool, as_json: bool, **flags: Any) -> None:
    """Show how the running server is: figures of the last five minutes, with plots.

    They come from its admin port: that of the settings, or of --url. Exits with 1 where the server
    is not ready or does not answer.

    \b
    wsserver status
    wsserver status --watch
    wsserver status --json | jq .points[-1].pushes
    """
    if watch and as_json:
        raise click.UsageError("--watch and --json exclude each other")
    settings = load_or_exit(flags)
    if url is None and not settings.admin_port:
        fail("the admin port is off (WSSERVER_ADMIN_PORT is 0); --url names another")
    url = url or _find_url(settings.admin_host, settings.admin_port)
    if not url.startswith(("http://", "https://")):
        raise click.BadParameter("it looks like http://127.0.0.1:8091", param_hint="--url")
    if watch:
        ready = _watch(url)
    else:
        try:
            found = fetch_status(url)
        except NoAnswer as error:
            fail(str(error))
        ready = found["ready"]
        if as_json:
            click.echo(json.dumps(found))
        else:
            Console(highlight=False).print(draw_status(found))
    sys.exit(0 if ready else EXIT_FAILURE)


def fetch_status(url: str) -> dict[str, Any]:
    """What ``/status.json`` of that admin port says; raises NoAnswer."""
    # No proxy of the environment's: the admin port is near.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    address = f"{url.rstrip('/')}/status.json"
    try:
        with opener.open(address, timeout=TIMEOUT_S) as answer:
            found: dict[str, Any] = json.load(answer)
            return found
    except urllib.error.HTTPError as error:
        with error:
            raise NoAnswer(f"{address} answers {error.code}: no wallet-sync server?") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise NoAnswer(f"no answer from {address}: {reason}") from None


def _watch(url: str) -> bool:
    """Draw until Ctrl-C; gives whether the server was ready at the end."""
    ready = False
    shown: RenderableType = Text(f"asking {url} …")
    console = Console(highlight=False)
    with (
        contextlib.suppress(KeyboardInterrupt),
        Live(shown, console=console, screen=console.is_terminal, auto_refresh=False) as live,
    ):
        while True:
            try:
                found = fetch_status(url)
            except NoAnswer as error:
                ready = False
                live.update(Group(Text(str(error), style="bold red"), shown), refresh=True)
            else:
                ready, shown = found["ready"], draw_status(found)
                live.update(shown, refresh=True)
            time.sleep(REDRAW_INTERVAL_S)
    return ready


def _find_url(host: str, port: int) -> str:
    """Where a server with these settings is reached on its own machine."""
    own = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104
    return f"http://[{own}]:{port}" if ":" in own else f"http://{own}:{port}"
