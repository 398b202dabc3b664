"""The operator's commands on a database as a whole: epochs, backups, drills, take-overs."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click
from sqlalchemy import URL

from wsserver import drilling
from wsserver.command_parts import (
    EPILOG,
    database_command,
    find_url,
    open_named,
    show_progress,
    telling_failure,
)
from wsserver.lbry.importing import take_over_file
from wsserver.options import fail, load_or_exit, print_json, print_table, setting_options
from wsserver.store import backup_folder, backups, copying, operator
from wsserver.store.databases import parse_url, refusing_beside_servers

EXIT_BUSY: Final = 3
EXIT_STUCK: Final = 4
LINE_INTERVAL_S: Final = 5.0


@click.group(epilog=EPILOG)
def epoch() -> None:
    """Tell clients that a database's data have begun a new life."""


@database_command(epoch, "renew")
@click.option("--keep-tokens", is_flag=True, help="Leave devices logged in, revoked ones too.")
def renew_epochs(keep_tokens: bool, as_json: bool, **flags: Any) -> None:
    """Give every account a new epoch.

    For a database that was restored from a backup with other tools. Clients take a sequence that
    went back for an attack, and stop; under a new epoch they merge with what is stored, and go on.
    All devices are logged out, for one that was revoked since the backup was made would be back;
    --keep-tokens leaves them in.

    The server must be stopped meanwhile. It is done for all accounts, or, when it fails, for none.

    \b
    wsserver epoch renew
    """
    renewed = 0
    # The guard is let go last: a server that starts must find the new epochs committed.
    with contextlib.ExitStack() as after_commit, open_named(flags) as connection:
        after_commit.enter_context(refusing_beside_servers(connection))
        with click.progressbar(
            length=operator.count_accounts(connection),
            label="renewing epochs",
            file=sys.stderr,
            hidden=not sys.stderr.isatty(),
        ) as bar:
            for done in operator.renew_epochs(connection, keep_tokens=keep_tokens):
                bar.update(done)
                renewed += done
    if as_json:
        print_json({"accounts": renewed, "tokensKept": keep_tokens})
    else:
        ended = "devices stay logged in" if keep_tokens else "all devices are logged out"
        click.echo(f"accounts with a new epoch: {renewed:,}; {ended}")


@database_command(None, "backup")
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--overwrite", is_flag=True, help="Replace FILE where it is there already.")
@click.option(
    "--to",
    "folder",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Make it in this folder, named by the time in UTC.",
)
@click.option(
    "--keep",
    metavar="N",
    type=click.IntRange(min=1),
    help="With --to: then remove all but the newest N; unless given, all stay.",
)
def back_up(
    file: Path | None,
    overwrite: bool,
    folder: Path | None,
    keep: int | None,
    as_json: bool,
    **flags: Any,
) -> None:
    """Copy the database to FILE, or into a folder, served from or not.

    The copy is whole and as of one moment: every push that was answered before the command began is
    in it. FILE is there once it is complete, checked and on the disk, and for nobody but its owner
    to read. Take it elsewhere, and put it back with `wsserver restore`.

    With --to and --keep it is for cron: older ones go once the new one is checked and on the disk,
    and only those that such a run made, of this installation. Exit codes then, besides: 3 another
    run is at it in this folder, 4 the backup is made, but an older one can't be removed.

    \b
    wsserver backup /var/backups/wallet-sync-$(date +%F).db
    wsserver backup --to /var/backups/wallet-sync --keep 48
    """
    if (file is None) == (folder is None):
        raise click.UsageError("give either FILE or --to DIR")
    if folder is None and keep is not None:
        raise click.UsageError("--keep goes with --to DIR")
    if folder is not None and overwrite:
        raise click.UsageError("--overwrite goes with FILE")
    url = find_url(flags)
    if folder is not None:
        _back_up_into(url, folder, keep=keep, as_json=as_json)
        return
    assert file is not None
    with show_progress("copying") as progress, telling_failure():
        made = backups.back_up(url, file, overwrite=overwrite, progress=progress)
    if as_json:
        print_json(_backup_json(made))
    else:
        click.echo(_describe_backup(made))


def _back_up_into(url: URL, folder: Path, *, keep: int | None, as_json: bool) -> None:
    with show_progress("copying") as progress, telling_failure():
        try:
            turn = backup_folder.back_up_into(url, folder, keep=keep, progress=progress)
        except backup_folder.FolderBusy as error:
            fail(str(error), code=EXIT_BUSY)
    if as_json:
        print_json(
            {
                **_backup_json(turn.backup),
                "removed": [*map(str, turn.removed)],
                "stuck": [*map(str, turn.stuck)],
                "kept": turn.kept,
            }
        )
    else:
        click.echo(_describe_backup(turn.backup))
        for path in turn.removed:
            click.echo(f"removed: {path}")
    if turn.stuck:
        left = ", ".join(map(str, turn.stuck))
        fail(f"the backup is made, but these can't be removed: {left}", code=EXIT_STUCK)


def _describe_backup(made: backups.Backup) -> str:
    return f"{made.file}: {made.size_bytes:,} bytes, accounts: {made.rows['accounts']:,}"


def _backup_json(made: backups.Backup) -> dict[str, Any]:
    return {"file": str(made.file), "bytes": made.size_bytes, "rows": dict(made.rows)}


@database_command(None, "restore")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--keep-tokens", is_flag=True, help="Leave devices logged in, revoked ones too.")
@click.option("--replace", is_flag=True, help="Also where the database has accounts.")
def restore(file: Path, keep_tokens: bool, replace: bool, as_json: bool, **flags: Any) -> None:
    """Put a backup in the place of the data there are.

    FILE is what `wsserver backup` made. Every account gets a new epoch, which tells its devices
    that the data went back: they merge what they have with what is stored, and push, so that what
    was pushed since the backup comes back from them. All devices are logged out, for one that was
    revoked since would be back; --keep-tokens leaves them in.

    The server must be stopped meanwhile. It is done whole, or, when it fails, not at all.

    \b
    wsserver restore /var/backups/wallet-sync-2026-11-25.db
    """
    url = find_url(flags)
    with show_progress("restoring") as progress, telling_failure():
        count = backups.restore(
            url, file, keep_tokens=keep_tokens, replace=replace, progress=progress
        )
    if as_json:
        print_json({"accounts": count, "tokensKept": keep_tokens})
    else:
        ended = "devices stay logged in" if keep_tokens else "all devices are logged out"
        click.echo(f"accounts restored: {count:,}; {ended}")


@click.command(epilog="Exit codes: 0 passed, 1 failed (a sentence says why), 2 misused.")
@click.argument("backup", type=click.Path(path_type=Path))
@click.option(
    "--scratch",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="Where the restored copy is meanwhile, three times the backup; else the system's place "
    "for temporary files.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def drill(backup: Path, scratch: Path | None, as_json: bool) -> None:
    """Find out whether a backup can be restored, and how long that takes.

    BACKUP is a file, or a folder, whose newest backup is taken. It is restored into a scratch
    folder, and a server is started on that, for this machine only, on free ports. It must come to
    be ready, and answer with the wallets that are in the backup. Then all of it is removed. What is
    served from meanwhile is not touched.

    \b
    wsserver drill /var/backups/wallet-sync
    wsserver drill /var/backups/wallet-sync-2026-11-25.db --json
    """
    with telling_failure():
        report = drilling.drill(backup, scratch=scratch)
    if as_json:
        print_json(
            {
                "file": str(report.file),
                "rows": dict(report.rows),
                "walletsRead": report.wallets_read,
                "seconds": {name: round(spent_s, 3) for name, spent_s in report.spent_s.items()},
                "totalSeconds": round(report.total_s, 3),
            }
        )
        return
    rows = report.rows
    click.echo(f"backup    {report.file}")
    told = {
        "restored": ", ".join(f"{name}: {rows[name]:,}" for name in drilling.TOLD_TABLES),
        "ready": "a server on it commits, and says so",
        "wallets": f"read through that server, as in the backup: {report.wallets_read:,}",
    }
    for name, text in told.items():
        click.echo(f"{name:10}{text} ({report.spent_s[name]:.1f} s)")
    click.echo(f"PASSED in {report.total_s:.1f} s")


@click.command(
    "copy", epilog="Exit codes: 0 done, 1 failed (a sentence says why), 2 misused, as by Ctrl-C."
)
@click.argument("source_url")
@click.argument("target_url")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def copy(source_url: str, target_url: str, as_json: bool) -> None:
    """Move an installation to another database, from SQLite to PostgreSQL or back.

    All of it: accounts, devices with their tokens, wallets with their history, the allowlist. So
    devices notice nothing: they reconnect to the server on the target with the tokens they have.
    SOURCE_URL stays as it is; don't serve from it any more, or the two part.

    Servers must be stopped meanwhile, on both. The target has to be empty. What is written is read
    back and compared by checksum. Run the same command again after it was cut short, by whatever:
    it goes on, and until it is done no server starts on the target. Where a URL needs a password,
    PGPASSWORD or ~/.pgpass keeps it out of the list of processes.

    \b
    wsserver copy sqlite:////var/lib/wallet-sync/wallet-sync.db postgresql://wallets@db/wallets
    """
    began_s = time.monotonic()
    with telling_failure():
        source, target = parse_url(source_url), parse_url(target_url)
        with _show_copying() as progress:
            tables = copying.copy(source, target, progress=progress)
    spent_s = time.monotonic() - began_s
    if as_json:
        print_json(
            {
                "tables": {
                    one.name: {"rows": one.rows, "written": one.written, "checksum": one.checksum}
                    for one in tables
                },
                "seconds": round(spent_s, 3),
            }
        )
        return
    print_table(
        ("TABLE", "ROWS", "WRITTEN", "CHECKSUM"),
        [(one.name, f"{one.rows:,}", f"{one.written:,}", one.checksum[:16]) for one in tables],
    )
    click.echo(f"copied in {spent_s:.1f} s; the checksums of both sides are the same")


@contextlib.contextmanager
def _show_copying() -> Iterator[copying.Progress]:
    """A bar on a terminal; elsewhere a line for each table, and one every few seconds."""
    if sys.stderr.isatty():
        with show_progress("copying") as tell:
            yield lambda table, done, total: tell(done, total)
        return
    told: tuple[str, float] = ("", 0.0)

    def tell_line(table: str, done: int, total: int) -> None:
        nonlocal told
        if table != told[0] or time.monotonic() > told[1] + LINE_INTERVAL_S:
            told = table, time.monotonic()
            click.echo(f"{table}: {done:,} of {total:,} rows", err=True)

    yield tell_line


@click.group("import", epilog=EPILOG)
def take_over() -> None:
    """Take over what another server kept."""


@database_command(take_over, "lbry")
@setting_options("history_depth")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option("--dry-run", is_flag=True, help="Say what would be taken over, and change nothing.")
def import_lbry(file: Path, dry_run: bool, as_json: bool, **flags: Any) -> None:
    """Take over accounts from the SQLite FILE of lbryio's wallet-sync-server.

    Users log in with the passwords that they had, and find their wallets; devices have to log in
    anew. Stop that server first: what it takes later is not here. This one may run meanwhile.

    What is here already stays as it is, so that the command may be run again, after it was cut
    short too. The database is made where there is none. --history-depth is for that case; give it
    if you give it to serve.

    \b
    wsserver import lbry sql.db --dry-run
    wsserver import lbry sql.db
    """
    settings = load_or_exit(flags)
    with show_progress("importing") as progress, telling_failure():
        report = take_over_file(
            parse_url(settings.database_url),
            file,
            history_depth=settings.history_depth,
            dry_run=dry_run,
            progress=progress,
        )
    if as_json:
        print_json(
            {
                "dryRun": dry_run,
                "accounts": report.accounts,
                "wallets": report.wallets,
                "registrations": report.registrations,
                "thereAlready": report.there,
                "unverified": report.unverified,
                "leftOut": [{"email": it.email, "reason": it.reason} for it in report.left_out],
                "fileChanged": report.source_changed,
            }
        )
        return
    done = "would be taken over" if dry_run else "taken over"
    click.echo(f"accounts {done}: {report.accounts:,}, {report.wallets:,} of them with a wallet")
    click.echo(f"registrations that wait to be verified: {report.registrations:,}")
    click.echo(f"there already: {report.there:,}")
    click.echo(f"left out: {len(report.left_out):,}")
    for each in report.left_out:
        click.echo(f"  {each.email}: {each.reason}")
    for email in report.unverified:
        click.echo(f"{email} was never verified, but has a wallet: wsserver account verify {email}")
    if report.source_changed:
        click.echo(
            f"{file} was written to meanwhile: is that server running? What it takes from now on "
            "is not here",
            err=True,
        )
