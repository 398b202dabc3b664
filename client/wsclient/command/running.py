"""How a command is run: what all of them take, and how each ends."""

from __future__ import annotations

import asyncio
import functools
import io
import os
import sys
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final

import click

from wsclient.command import passwords
from wsclient.command.console import Console
from wsclient.command.failures import CommandFailed, ExitCode, Failure, describe_failure
from wsclient.command.profiles import DEFAULT_PROFILE, Profile, list_profiles

TIMEOUT_S: Final = 30

Function = Callable[..., Coroutine[Any, Any, ExitCode | None]]
Work = Callable[[], Coroutine[Any, Any, ExitCode | None]]


class OrderedGroup(click.Group):
    """A group whose commands are listed as they were written down."""

    def list_commands(self, context: click.Context) -> list[str]:
        """Their names."""
        return list(self.commands)


@click.group(cls=OrderedGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="wallet-sync")
def wsclient() -> None:
    """Keeps an end-to-end encrypted wallet the same on all of your devices.

    \b
    wsclient register joe@example.com --server wss://sync.example.com/v1
    wsclient push wallet.json
    wsclient watch
    """


@dataclass(frozen=True, slots=True)
class Invocation:
    """What a command was called with, whatever it is."""

    console: Console
    profile_name: str
    timeout_s: float

    def load_profile(self) -> Profile:
        """The profile that the command is about."""
        return Profile.load(self.profile_name)


def command(name: str, *members: str) -> Callable[[Function], click.Command]:
    """The command of that name, from a function of an `Invocation` and its own parameters.

    ``members`` are those of the document that it prints with --json; one with a ``?`` may be
    missing.
    """
    epilog = f"--json prints {{{', '.join(members)}}}." if members else None

    def decorate(function: Function) -> click.Command:
        @functools.wraps(function)
        def run_command(
            profile_name: str, as_json: bool, timeout_s: float, **parameters: Any
        ) -> ExitCode:
            console = Console(as_json=as_json)
            invocation = Invocation(console, profile_name, timeout_s)
            return _run_to_its_end(console, functools.partial(function, invocation, **parameters))

        made = wsclient.command(name, epilog=epilog)(run_command)
        made.params.extend(COMMON_OPTIONS)  # behind its own
        return made

    return decorate


def _complete_profile(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[str]:
    return [name for name in list_profiles() if name.startswith(incomplete)]


COMMON_OPTIONS: Final = (
    click.Option(
        ["--profile", "profile_name"],
        metavar="NAME",
        envvar="WSCLIENT_PROFILE",
        default=DEFAULT_PROFILE,
        show_default=True,
        show_envvar=True,
        shell_complete=_complete_profile,
        help="Which account this is about.",
    ),
    click.Option(
        ["--timeout", "timeout_s"],
        metavar="SECONDS",
        type=click.FloatRange(min=0, min_open=True),
        default=TIMEOUT_S,
        show_default=True,
        help="How long to wait for the server.",
    ),
    click.Option(["--json", "as_json"], is_flag=True, help="Print JSON, for programs."),
)


yes_option = click.option("--yes", is_flag=True, help="Don't ask.")


def confirm(question: str) -> None:
    """Returns when the person at the terminal says yes; ends the command otherwise."""
    if not passwords.can_ask():
        raise click.UsageError("there is no terminal at which to ask; --yes says yes")
    with passwords.interruptible():
        agreed = click.confirm(question, err=True)
    if not agreed:
        raise CommandFailed("declined", "nothing is done")


def run(arguments: Sequence[str]) -> int:
    """Runs the command that the arguments name, and gives its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # better a mark that is lost than a command
    try:
        code = wsclient.main([*arguments], prog_name="wsclient", standalone_mode=False)
    except click.Abort:
        return ExitCode.INTERRUPTED
    except click.ClickException as error:
        if "--json" in arguments:
            failure = Failure(ExitCode.MISUSED, "misused", error.format_message())
            Console(as_json=True).fail(failure)
        else:
            error.show()
        return ExitCode.MISUSED
    return code if isinstance(code, int) else ExitCode.DONE


def _run_to_its_end(console: Console, work: Work) -> ExitCode:
    try:
        code = _run(console, work)
        sys.stdout.flush()
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # What is still in the buffer would fail once more, when the interpreter ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.BROKEN_PIPE
    return code


def _run(console: Console, work: Work) -> ExitCode:
    try:
        return asyncio.run(work()) or ExitCode.DONE
    except BrokenPipeError:
        raise
    except Exception as error:
        failure = describe_failure(error)
        if failure is None:
            raise
        console.fail(failure)
        return failure.exit_code
