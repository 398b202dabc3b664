"""The pages that a mail's link opens: ``GET /verify?token=`` and ``GET /reset?token=``. Pure.

A GET changes nothing, for mail scanners open links too: the verify page has a button that calls
``account.verify`` over the WebSocket, the reset page shows the code that the app asks for (keys are
derived in the app, never here). A page loads nothing but itself.
"""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from wsschema.limits import PATH, SUBPROTOCOL

TOKEN_HEX_DIGITS: Final = 64


@dataclass(frozen=True, slots=True)
class Page:
    """An HTTP response's parts. ``body`` may hold a token, so ``repr`` hides it."""

    status: int
    body: bytes = field(repr=False)
    headers: Mapping[str, str]


def verify_page(token: str | None) -> Page:
    """The page that confirms an address, of the link's ``token`` (None where it has none)."""
    if not _is_token(token):
        return _incomplete_page()
    return _render("Confirm your email address", _VERIFY.format(token=token), _VERIFY_SCRIPT)


def reset_page(token: str | None) -> Page:
    """The page that tells what a reset costs and shows its code, of the link's ``token``."""
    if not _is_token(token):
        return _incomplete_page()
    return _render("Reset your account", _RESET.format(token=token), _RESET_SCRIPT)


def _incomplete_page() -> Page:
    return _render("This link is incomplete", _INCOMPLETE, "", status=400)


def _is_token(token: str | None) -> bool:
    return token is not None and re.fullmatch(rf"[0-9a-f]{{{TOKEN_HEX_DIGITS}}}", token) is not None


def _render(title: str, content: str, script: str, *, status: int = 200) -> Page:
    body = _LAYOUT.format(
        title=html.escape(title),
        style=_STYLE,
        content=content,
        script=f"<script>{script}</script>\n" if script else "",
    )
    return Page(status, body.encode(), _make_headers(script))


def _make_headers(script: str) -> dict[str, str]:
    # 'self' covers the WebSocket of the page's own host (CSP 3, section 6.7.2.8), in Chrome and
    # Firefox since 2018, in Safari since 2022.
    rules = {
        "default-src": "'none'",
        "script-src": _hash(script) if script else "'none'",
        "style-src": _hash(_STYLE),
        "img-src": "data:",
        "connect-src": "'self'" if script else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
        "frame-ancestors": "'none'",
    }
    return {
        "Content-Type": "text/html; charset=utf-8",
        "Content-Security-Policy": "; ".join(f"{name} {value}" for name, value in rules.items()),
        "Referrer-Policy": "no-referrer",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
    }


def _hash(source: str) -> str:
    digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
    return f"'sha256-{digest}'"


_LAYOUT: Final = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="robots" content="noindex">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{content}
</main>
{script}</body>
</html>
"""

_STYLE: Final = """
:root {
  color-scheme: light dark;
  --ground: #f4f5f7; --sheet: #fff; --ink: #1c2026; --line: #c9ced6; --accent: #0b57c4;
  --on-accent: #fff; --good: #12692f; --bad: #ab1c1c;
}
@media (prefers-color-scheme: dark) {
  :root {
    --ground: #14171b; --sheet: #1e2228; --ink: #e6e9ee; --line: #474e59; --accent: #8ab8ff;
    --on-accent: #0c1a30; --good: #7fd69a; --bad: #ff9d95;
  }
}
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body {
  margin: 0; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1.0625rem/1.55 system-ui, sans-serif;
}
main {
  max-width: 34rem; margin: 4vh auto; padding: 1.25rem 1.5rem 1.5rem; background: var(--sheet);
  border: 1px solid var(--line); border-radius: .75rem;
}
h1 { margin: 0 0 1rem; font-size: 1.5rem; line-height: 1.25; }
button {
  min-height: 3rem; padding: .5rem 1.25rem; border: 0; border-radius: .5rem; font: inherit;
  font-weight: 600; color: var(--on-accent); background: var(--accent); cursor: pointer;
}
button:disabled { opacity: .6; cursor: progress; }
button:focus-visible { outline: 3px solid var(--accent); outline-offset: 3px; }
code {
  display: block; padding: .75rem 1rem; border: 1px solid var(--line); border-radius: .5rem;
  font: 1rem/1.6 ui-monospace, monospace; overflow-wrap: anywhere; user-select: all;
}
[role=status] { margin: 1rem 0 0; }
[role=status]:empty { display: none; }
.good { color: var(--good); font-weight: 600; }
.bad { color: var(--bad); font-weight: 600; }
"""

_VERIFY: Final = """\
<div id="question">
<p>Press the button to confirm that this is your address. Your account can be used from then on.</p>
<p>If you have not registered yourself, close this page: you would confirm the account of whoever
registered.</p>
</div>
<button id="confirm" type="button" data-token="{token}" hidden>Confirm my address</button>
<p id="outcome" role="status"></p>
<noscript><p class="bad">Confirming needs JavaScript, and it is switched off here. Allow it for
this page, or open the link in another browser; the link has not been used up.</p></noscript>"""

# The page may live under a path prefix of a proxy: the WebSocket is its neighbour.
_CONNECT: Final = f"""
  const url = new URL({PATH[1:]!r}, location.href);
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  const socket = new WebSocket(url, {SUBPROTOCOL!r});"""

_VERIFY_SCRIPT: Final = (
    """
'use strict';
const ANSWER_TIMEOUT_MS = 20000;
const question = document.getElementById('question');
const button = document.getElementById('confirm');
const outcome = document.getElementById('outcome');

function callVerify(token) {
  return new Promise((resolve, reject) => {"""
    + _CONNECT.replace("\n", "\n  ")
    + """
    const timer = setTimeout(() => socket.close(), ANSWER_TIMEOUT_MS);
    socket.onopen = () => socket.send(JSON.stringify(
      {jsonrpc: '2.0', id: 1, method: 'account.verify', params: {token: token}}));
    socket.onmessage = (event) => {
      const message = JSON.parse(event.data);
      if (message.id !== 1) return;
      resolve(message.error || null);
      socket.close();
    };
    socket.onclose = () => { clearTimeout(timer); reject(new Error('no answer')); };
  });
}

function explain(error) {
  const data = error.data || {};
  if (data.reason === 'bad_verification_token') {
    return ['This link was used already, or it has expired, or a newer mail was sent since. Go '
      + 'back to the app and try to log in. If it says that your address is not confirmed yet, '
      + 'have it send a new mail.', false];
  }
  if (error.code === 429 || error.code === 503) {
    const seconds = Math.max(1, Math.ceil((data.retryAfterMs || 1000) / 1000));
    return ['The server is busy. Wait for ' + seconds + (seconds === 1 ? ' second' : ' seconds')
      + ', then press the button again.', true];
  }
  const id = data.errorId ? ' (error ' + data.errorId + ')' : '';
  return ['The server could not confirm the address: ' + error.message + id + '.', true];
}

function show(text, kind, again) {
  outcome.textContent = text;
  outcome.className = kind;
  button.disabled = false;
  button.hidden = !again;
  question.hidden = !again;
}

button.hidden = false;
button.addEventListener('click', async () => {
  button.disabled = true;
  outcome.className = '';
  outcome.textContent = 'Confirming\\u2026';
  try {
    const error = await callVerify(button.dataset.token);
    if (error === null) {
      show('Your address is confirmed. Go back to the app and log in.', 'good', false);
    } else {
      const [text, again] = explain(error);
      show(text, 'bad', again);
    }
  } catch {
    show('The server did not answer. Check your connection, then press the button again.',
      'bad', true);
  }
});
"""
)

_RESET: Final = """\
<p><strong>A reset deletes the wallet that is stored on the server, and its history.</strong> It is
locked with the password that you have forgotten, so nobody can open it any more.</p>
<p>A device that still holds a copy of the wallet can send it to the server again: log in there
with the new password, after the reset.</p>
<p>The reset is made in the app, for only the app may learn your password. Start it there, and give
the app this code when it asks for it:</p>
<p><code id="code">{token}</code></p>
<button id="copy" type="button" hidden>Copy the code</button>
<p id="outcome" role="status"></p>
<p>The code works once, and for one hour after the mail was asked for. Give it to nobody. Nothing is
deleted until the app has used it; if you remember the password, just close this page.</p>"""

_RESET_SCRIPT: Final = """
'use strict';
const code = document.getElementById('code');
const button = document.getElementById('copy');
const outcome = document.getElementById('outcome');

button.hidden = false;
button.addEventListener('click', async () => {
  // Selected first, so that it can be copied by hand where the browser refuses the page to.
  getSelection().selectAllChildren(code);
  try {
    await navigator.clipboard.writeText(code.textContent);
    outcome.className = 'good';
    outcome.textContent = 'The code is copied.';
  } catch {
    outcome.className = '';
    outcome.textContent = 'The code is selected: copy it with the menu or the keyboard.';
  }
});
"""

_INCOMPLETE: Final = """\
<p>Open the link from the mail again, and see to it that all of it is taken along: some mail
programs break a long link in two. If that does not help, have the app send a new mail.</p>"""
