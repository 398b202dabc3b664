"""Writes docs/reference/logs.md from the logbook itself, or checks that it is true."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

from tools.written_page import write_or_check
from wsserver.logbook import ENTRIES, FIELDS

PAGE = Path(__file__).parent.parent / "docs/reference/logs.md"

HEAD = """# The log of the server

The server logs to standard error: sentences on a terminal, elsewhere a JSON document a line, for
journald and what collects logs (`WSSERVER_LOG_FORMAT` decides for itself). A document has `time`
(RFC 3339, UTC), `level`, `event`, `message` (the sentence) and the fields of its event; where there
is an error, `traceback`. A program goes by `event` and the fields; sentences may change.

`WSSERVER_LOG_LEVEL` says what is logged. SIGUSR1 switches to `debug` and back while the server
runs, SIGUSR2 writes `server.figures`:

```sh
systemctl kill --signal=USR1 wsserver
journalctl -u wsserver -o cat | jq 'select(.event == "connection.ended" and .account_id == 7)'
```

A failure of the server's own has an `error_id`, and so has the answer that its client gets
(`data.errorId` of -32603 and of 503): whoever reports one finds the other.

No password, token, email address, wallet or name of a device is ever in it, nor the text of an
exception: of that it has the class and the place. Addresses of peers are in it.

Lines never slow the server down: a push writes none, and a thread of their own writes them out. If
nobody takes them, 10,000 wait, and of more it is said how many were dropped.

What other libraries log, warnings and worse, goes the same way; there `event` is the name of the
library's logger.

This page is written by `tools/logs_page.py`.

## Events

| `event` | level | sentence, and other fields | when, and what to do |
|---|---|---|---|
"""


def render() -> str:
    """The page."""
    rows = []
    for entry in ENTRIES:
        also = f"<br>also {', '.join(f'`{name}`' for name in entry.also)}" if entry.also else ""
        level = logging.getLevelName(entry.level).lower()
        text = entry.text.replace("`", "")
        rows.append(f"| `{entry.name}` | {level} | `{text}`{also} | {entry.about} |\n")
    fields = [f"| `{name}` | {meaning} |\n" for name, meaning in FIELDS.items()]
    return f"{HEAD}{''.join(rows)}\n## Fields\n\n| field | what |\n|---|---|\n{''.join(fields)}"


if __name__ == "__main__":
    sys.exit(write_or_check(PAGE, render))
