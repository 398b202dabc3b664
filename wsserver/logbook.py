"""The logbook: every line that the server can write, by name. All of them are on the page.

A line goes through the standard library's logger ``wsserver``, with its entry and its fields on the
record; what becomes of it there is `wsserver.logs`'s. `docs/reference/logs.md` is made of this.
"""

from __future__ import annotations

import logging
import string
from dataclasses import dataclass
from logging import DEBUG, ERROR, INFO, WARNING
from typing import Any, Final

logger: Final = logging.getLogger("wsserver")

FIELDS: Final = {
    "account_id": "the account's number, as `wsserver account list` shows it; none: not logged in",
    "address": "what is listened on",
    "bus": "what carries messages between nodes",
    "bytes_received": "bytes that came, frames and all, TLS aside",
    "bytes_sent": "bytes that were sent, likewise",
    "certificate": "the file with the certificate chain",
    "close_code": "what the connection was closed with; 1006: it broke off",
    "close_reason": "the server's reason; that of a peer is its own affair, and is left out",
    "connections": "connections that are open",
    "count": "how many",
    "database": "the database's URL, without its password",
    "device_id": "the device, as `wsserver account show` names it",
    "duration_s": "seconds from the upgrade to the end",
    "error_id": "what the error's answer has in `data.errorId`, so that one finds the other",
    "failure": "what went wrong: a class, a code, and such text as holds no values",
    "host": "the host that is listened on",
    "lane": "the store's lane, or the thread, that it happened in",
    "log_level": "the level of the log from now on",
    "mail": "which mail, counted from the start",
    "messages": "messages that the peer sent",
    "method": "the method of the call",
    "name": "the variable's name",
    "outcome": "the reason or the code of the error",
    "pause_s": "seconds until the next try",
    "peer": "the peer's IP address",
    "process": "the id of a process",
    "queues": "what waits, by queue",
    "reason": "why",
    "revision": "the schema's revision now",
    "revision_before": "the schema's revision before",
    "sessions": "connections that are logged in",
    "timeout_s": "seconds that it had",
    "tries": "how often it was tried",
    "verification": "the verification mode",
    "version": "the server's version",
    "what": "what was being done",
    "worker": "the worker's number",
}
"""What each field means, wherever it is."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One kind of line: its name, its level, and its sentence with fields in it.

    ``about``: when it is written, and what to do then. ``also``: fields that the sentence lacks.
    """

    name: str
    level: int
    text: str
    about: str
    also: tuple[str, ...] = ()

    @property
    def fields(self) -> tuple[str, ...]:
        """The names of all its fields."""
        named = (field for _, field, _, _ in string.Formatter().parse(self.text) if field)
        return (*named, *self.also)

    def log(self, *, error: BaseException | None = None, **fields: Any) -> None:
        """Write a line. Of ``error`` it has the class and the place, and never the text."""
        if logger.isEnabledFor(self.level):
            logger.log(
                self.level,
                self.text.format_map(fields),
                exc_info=None if error is None else hide_text(error),
                extra={"entry": self, "fields": fields},
            )


class Hidden(Exception):
    """Stands for an error in the log, with its class for a text: its own may have tokens in it."""


def hide_text(error: BaseException) -> Hidden:
    """What tells the error's class and its place, and nothing else of it."""
    return Hidden(type(error).__name__).with_traceback(error.__traceback__)


def set_level(level: str) -> None:
    """Log what is of this level (``info``) or above, from now on."""
    logger.setLevel(level.upper())


# From the start to the end.

STARTING = Entry("server.starting", INFO, "wallet-sync {version} starts", "First of all.")
LISTENING = Entry("server.listening", INFO, "listening on {address}", "The port takes clients.")
ADMIN_LISTENING = Entry(
    "server.admin_listening", INFO, "health and figures on {address}", "The admin port is open."
)
GATEWAY_LISTENING = Entry(
    "server.gateway_listening",
    INFO,
    "lbryio's HTTP interface on {address}",
    "The gateway's port is open.",
)
SERVING = Entry(
    "server.serving",
    INFO,
    "registration: {verification}; database: {database}",
    "The start is over.",
)
OPEN_HERE = Entry(
    "registration.open_here",
    INFO,
    "registration is open to everyone who can reach this machine's loopback address",
    "In mode `open`, where only this machine reaches the port.",
)
OPEN_TO_ALL = Entry(
    "registration.open",
    WARNING,
    "registration is OPEN to everyone who can reach {host}: this mode is for development",
    "In mode `open`, where others reach the port. Use another mode.",
)
NOBODY_MAY_REGISTER = Entry(
    "registration.closed",
    WARNING,
    "nobody can register but by `wsserver allowlist add`: WSSERVER_ALLOWLIST is empty",
    "In mode `allowlist` without addresses in the settings.",
)
UNKNOWN_VARIABLE = Entry(
    "settings.unknown_variable",
    WARNING,
    "{reason}",
    "At the start, for a variable that begins with `WSSERVER_` and is no setting.",
    also=("name",),
)
SCHEMA_MIGRATED = Entry(
    "database.migrated",
    INFO,
    "database schema: {revision_before} -> {revision}",
    "At the first start, and at the first one of a newer version.",
)
LEVEL_CHANGED = Entry(
    "log.level",
    INFO,
    "log level: {log_level}",
    "On SIGUSR1: the configured level, or debug.",
)
LINES_DROPPED = Entry(
    "log.dropped",
    WARNING,
    "{count} lines of the log were dropped: they came faster than they could be written",
    "Whoever reads the log is too slow, or has stopped for a while.",
)
FIGURES = Entry(
    "server.figures",
    INFO,
    "{connections} connections, {sessions} sessions",
    "On SIGUSR2.",
    also=("queues",),
)
CERTIFICATE_RENEWED = Entry(
    "certificate.renewed",
    INFO,
    "new connections get the certificate that is in {certificate}",
    "On SIGHUP.",
)
CERTIFICATE_REFUSED = Entry(
    "certificate.refused",
    ERROR,
    "the certificate stays the old one, for the new can't be used: {reason}",
    "On SIGHUP. Mend the file, and send the signal again.",
)
DRAINING = Entry(
    "server.draining", INFO, "draining: {connections} connections", "A signal has ended it."
)
STOPPED = Entry("server.stopped", INFO, "stopped", "Last of all.")
KILLED = Entry(
    "server.killed",
    WARNING,
    "second signal: exiting at once",
    "A second signal came while it drained. What was acknowledged is durable.",
)

# Connections.

CONNECTION_OPENED = Entry(
    "connection.opened", DEBUG, "{peer} is connected", "A WebSocket has opened."
)
SESSION_OPENED = Entry(
    "session.opened",
    DEBUG,
    "account {account_id} is logged in from {peer}",
    "A login or a resume has succeeded.",
    also=("device_id",),
)
CALL_REFUSED = Entry(
    "call.refused",
    DEBUG,
    "{method} of {peer} is refused: {outcome}",
    "A call was answered with an error.",
    also=("account_id", "device_id"),
)
CONNECTION_ENDED = Entry(
    "connection.ended",
    INFO,
    "{peer} is gone after {duration_s:g} s, closed with {close_code}",
    "One a WebSocket, at its end.",
    also=(
        "close_reason",
        "account_id",
        "device_id",
        "messages",
        "bytes_received",
        "bytes_sent",
    ),
)
GATEWAY_SOCKET_ENDED = Entry(
    "gateway.socket_ended",
    INFO,
    "{peer} is gone from the gateway after {duration_s:g} s, closed with {close_code}",
    "One a WebSocket of the gateway, at its end. 1005: closed without a code, or broken off.",
    also=("close_reason", "account_id", "device_id"),
)
CONNECTIONS_LEFT_OUT = Entry(
    "connection.left_out",
    INFO,
    "{count} more connections ended, of which there is no line",
    "In a storm: at most 20 connections a second get a line, after a rest 200.",
)
NEWCOMERS_DROPPED = Entry(
    "connection.refused",
    WARNING,
    "dropped {count} newcomers: too many, or too fast by address",
    "Once a minute at most. See `WSSERVER_CONNECT_RATE`; behind a proxy, "
    "`WSSERVER_TRUSTED_PROXIES`.",
)
CANNOT_ACCEPT = Entry(
    "connection.not_accepted",
    WARNING,
    "can't accept connections: {failure}",
    "Most often the limit of descriptors. It is tried again each second.",
)

# Failures of our own.

FAILURE = Entry(
    "failure",
    ERROR,
    "{what} (error id {error_id})",
    "A fault in the server: please report it, with its traceback. The call was answered -32603, or "
    "its connection was closed with 1011; nobody else's was touched.",
)
FAILURE_OUTSIDE = Entry(
    "failure.unanswered",
    ERROR,
    "{what}",
    "The same where no call waits for an answer.",
)

# The store.

DATABASE_FAILED = Entry(
    "database.failed",
    ERROR,
    "{lane}: {count} operations failed: {failure}; {what} until the database recovers"
    " (error id {error_id})",
    "Locked, full, read-only, damaged or gone. One line a kind of fault, until it is over.",
)
DATABASE_RECOVERED = Entry(
    "database.recovered", WARNING, "{lane}: the database can be used again", "The fault is over."
)
DATABASE_ANOTHERS = Entry(
    "database.anothers",
    ERROR,
    "answering 503: {reason}",
    "The database was lost, and is back, but another server that allows no other has it now.",
)
LANE_FAILED = Entry(
    "database.lane_failed",
    ERROR,
    "{lane}: a batch of {count} went wrong",
    "A fault in the server: please report it, with its traceback.",
)
LANE_NOT_CLOSED = Entry(
    "database.not_closed",
    ERROR,
    "{lane}: closing its connection failed: {failure}",
    "A new connection is made in its place.",
)
LANE_LEFT = Entry(
    "database.left_waiting",
    WARNING,
    "{lane}: not done within {timeout_s:g} s; left to itself",
    "At the stop: somebody else locks the database. What it still had to do is not acknowledged.",
)
LOG_NOT_COPIED = Entry(
    "database.log_not_copied",
    WARNING,
    "the write-ahead log was not copied: {failure}",
    "The next commit tries again.",
)
NOTICES_UNREAD = Entry(
    "notices.unread",
    ERROR,
    "notices of the operator can't be read: {failure}",
    "What the operator's commands did reaches open sessions once they can.",
)

# The bus between nodes.

BUS_CUT = Entry(
    "bus.cut",
    WARNING,
    "the bus on {bus} is cut off: {failure}",
    "Nothing is lost: until it is back, the database is asked what other nodes did.",
)
BUS_BACK = Entry("bus.back", WARNING, "the bus on {bus} is there again", "The cut is over.")
BUS_FAILED = Entry(
    "bus.failed",
    WARNING,
    "the bus on NATS did not do what it was asked: {failure}",
    "It is tried again, and the database is asked what may have been missed.",
)
BUS_DEAF = Entry(
    "bus.deaf",
    WARNING,
    "the bus is cut off: the database is asked every {pause_s:g} s what other nodes did",
    "The node's own messages do not come back to it. Devices hear of pushes later, and miss none.",
)
BUS_HEARS = Entry(
    "bus.hears", WARNING, "the bus carries messages again", "What was missed is asked for once."
)
MOVED_UNREAD = Entry(
    "bus.moved_unread",
    ERROR,
    "what moved can't be read: {failure}",
    "A fault in the server: please report it. It is tried again with the next heartbeat.",
)

# The workers of one machine.

WORKER_SERVES = Entry(
    "worker.serves", INFO, "worker {worker} serves (process {process})", "It is ready."
)
WORKER_ENDED = Entry(
    "worker.ended",
    ERROR,
    "worker {worker} {reason}; a new one follows",
    "It died; its devices connect to the others. Lines of its own may tell why.",
)
WORKER_FAILED = Entry(
    "worker.failed", ERROR, "{reason}", "A worker could not start. It is tried again, ever later."
)
WORKER_NOT_REPLACED = Entry(
    "worker.not_replaced",
    ERROR,
    "{reason}; those that serve go on",
    "On SIGHUP: the first of the new ones could not start. Mend the cause, and send it again.",
)
WORKER_LATE = Entry(
    "worker.late",
    WARNING,
    "worker {worker} did not end in time, and was killed",
    "It had longer than the drain timeout. What was acknowledged is durable.",
)
WORKER_HANGS = Entry(
    "worker.hangs",
    ERROR,
    "worker {worker} hangs, and is killed",
    "It has not said for long that it is well; a new one follows.",
)
WORKERS_REPLACING = Entry(
    "worker.replacing", INFO, "every worker is about to be replaced", "On SIGHUP."
)
WORKERS_REPLACED = Entry(
    "worker.replaced", INFO, "every worker is new", "The rolling restart is over."
)
WORKERS_DRAINING = Entry(
    "worker.draining", INFO, "draining {count} workers", "A signal has ended the service."
)

# Mail.

MAILS_OVERFLOW = Entry(
    "mail.overflow",
    WARNING,
    "mail {mail} and those that follow are dropped: {reason}",
    "The queue is full, for the relay takes none, or too few; or the server stops.",
)
MAILS_UNSENT = Entry(
    "mail.unsent",
    WARNING,
    "{count} mails were not sent within {timeout_s:g} s",
    "At the stop. Users ask for another mail.",
)
MAIL_REFUSED = Entry(
    "mail.refused",
    WARNING,
    "mail {mail} is dropped: {failure}",
    "The relay will never take it.",
)
MAIL_ABANDONED = Entry(
    "mail.abandoned",
    WARNING,
    "mail {mail} is dropped, the server stops: {failure}",
    "Its last try, at the stop, has failed.",
)
MAIL_EXPIRED = Entry(
    "mail.expired",
    WARNING,
    "mail {mail} is given up, try {tries}: {failure}",
    "The relay has not taken it for too long.",
)
MAIL_DEFERRED = Entry(
    "mail.deferred",
    WARNING,
    "mail {mail} waits for {pause_s:.0f} s, try {tries}: {failure}",
    "The relay does not take it now.",
)
MAIL_DELIVERED = Entry(
    "mail.delivered", INFO, "mail {mail} is delivered, try {tries}", "The relay has taken it."
)

ENTRIES: Final = tuple(value for value in [*globals().values()] if isinstance(value, Entry))
"""All of them, in this order."""
