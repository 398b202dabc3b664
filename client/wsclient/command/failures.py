"""How a command ends that does not end well: its exit code, a reason, a sentence, an advice."""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass

from wsclient.errors import (
    AccountDisabled,
    AccountExists,
    AnswerLost,
    BadCredentials,
    CannotConnect,
    CannotMerge,
    ConflictError,
    FolderInUse,
    LocalStateDamaged,
    NotVerified,
    ServiceUnavailable,
    SessionEnded,
    StateRefused,
    TooManyRequests,
    Unauthorized,
    WalletSyncError,
    WeakKdf,
    WrongPassword,
)


class ExitCode(enum.IntEnum):
    """What a command ends with; ``meaning`` is what the reference says of it."""

    meaning: str

    def __new__(cls, code: int, meaning: str) -> ExitCode:
        """A code that knows its meaning."""
        member = int.__new__(cls, code)
        member._value_ = code
        member.meaning = meaning
        return member

    DONE = 0, "done"
    FAILED = 1, "failed; a sentence on stderr says why"
    MISUSED = 2, "misused: a wrong option or argument, or no such profile"
    CANNOT_CONNECT = 3, "the server cannot be reached, or gave no answer in time"
    NOT_LOGGED_IN = 4, "the password or the token is not taken, or nobody is logged in"
    CONFLICT = 5, "both sides changed the same, and a person has to put them together"
    SERVER_LIED = 6, "the server showed what cannot be; nothing was taken from it"
    IN_USE = 7, "another process has the profile open"
    INTERRUPTED = 130, "ended by Ctrl-C"
    BROKEN_PIPE = 141, "whoever read the output has gone"


@dataclass(frozen=True, slots=True)
class Failure:
    """What is told of a failure; ``reason`` is for programs, lower_snake and stable."""

    exit_code: ExitCode
    reason: str
    text: str
    advice: str | None = None


class CommandFailed(WalletSyncError):
    """A command cannot be done, for a reason of the command's own."""

    def __init__(
        self,
        reason: str,
        text: str,
        advice: str | None = None,
        exit_code: ExitCode = ExitCode.FAILED,
    ) -> None:
        self.failure = Failure(exit_code, reason, text, advice)
        super().__init__(text)


def describe_failure(error: BaseException) -> Failure | None:
    """What to tell of an error; None for one that nobody foresaw, which is a fault of ours."""
    match error:
        case CommandFailed():
            return error.failure
        case WalletSyncError() | TimeoutError():
            exit_code, advice = _judge(error)
            return Failure(exit_code, _snake(type(error).__name__), str(error), advice)
        case OSError():
            where = f"{error.filename}: " if error.filename is not None else ""
            text = f"{where}{error.strerror or error}"
            return Failure(ExitCode.FAILED, "os_error", text)
    return None


def _judge(error: Exception) -> tuple[ExitCode, str | None]:
    match error:
        case CannotConnect():
            return ExitCode.CANNOT_CONNECT, "wsclient doctor finds out why"
        case TimeoutError() | AnswerLost() | ServiceUnavailable():
            return ExitCode.CANNOT_CONNECT, "try again; wsclient doctor finds out what is wrong"
        case BadCredentials():
            return ExitCode.NOT_LOGGED_IN, "check the address, the root password and the server"
        case NotVerified():
            return ExitCode.NOT_LOGGED_IN, "follow the link in the mail, then: wsclient login"
        case WrongPassword():
            return ExitCode.NOT_LOGGED_IN, "check the root password"
        case SessionEnded() | Unauthorized():
            return ExitCode.NOT_LOGGED_IN, "wsclient login"
        case AccountDisabled():
            return ExitCode.NOT_LOGGED_IN, "ask the operator of the server"
        case StateRefused():
            return ExitCode.SERVER_LIED, (
                "what is here was kept as it is. If you know why the server went back, "
                "wsclient recover believes it"
            )
        case WeakKdf():
            return ExitCode.SERVER_LIED, "do not enter the root password; ask the operator"
        case FolderInUse():
            return ExitCode.IN_USE, "end that process, or take another --profile"
        case AccountExists():
            return ExitCode.FAILED, "wsclient login, if it is yours"
        case CannotMerge():
            return ExitCode.CONFLICT, "wsclient login --merge auto merges what is no JSON, too"
        case ConflictError():
            return ExitCode.CONFLICT, "wsclient pull, put both together, and push again"
        case TooManyRequests():
            return ExitCode.FAILED, f"try again in {error.retry_after_ms / 1000:.0f} s"
        case LocalStateDamaged():
            return ExitCode.FAILED, "wsclient logout --forget, then wsclient login, begins anew"
    return ExitCode.FAILED, None


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()
