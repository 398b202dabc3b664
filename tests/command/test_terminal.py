"""The command as a person meets it: at a terminal, with keys and an editor, and in a pipe."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.command.conftest import PASSWORD, MakeUser, User
from tests.command.terminal import WAIT_S, Terminal
from wsclient.command import opening
from wsclient.crypto import DEFAULT_KDF

COMMAND = [
    sys.executable,
    "-c",
    "import sys; from wsclient.command import main; sys.exit(main())",
]

OpenTerminal = Callable[..., Terminal]


def environment_of(user: User, **variables: str) -> dict[str, str]:
    """What a process finds at that user's device."""
    return {
        **os.environ,
        "WSCLIENT_HOME": str(user.home),
        "WSSERVER_URL": user.url,
        "PYTHON_KEYRING_BACKEND": "keyring.backends.null.Keyring",
        **variables,
    }


def open_terminal(user: User, *arguments: str, **variables: str) -> Terminal:
    """The command at a terminal."""
    return Terminal([*COMMAND, *arguments], environment_of(user, **variables))


def write_editor(user: User, script: str) -> str:
    """An editor that does to the file ``sys.argv[1]`` what the Python script says."""
    path = user.folder / "editor.py"
    path.write_text(f"import sys, pathlib\npath = pathlib.Path(sys.argv[1])\n{script}\n")
    return f"{sys.executable} {path}"


def test_a_password_that_is_typed_is_not_seen(joe: User) -> None:
    with open_terminal(joe, "login") as terminal:
        terminal.expect(f"Root password for {joe.email}: ")
        terminal.type(f"{PASSWORD}\r")
        terminal.expect("is logged in")

        assert terminal.wait() == 0
    assert PASSWORD not in terminal.written


def test_a_typo_in_a_password_is_no_end(
    make_user: MakeUser, email: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    laptop, phone = make_user("laptop"), make_user("phone")
    monkeypatch.setattr(opening, "MINIMUM_KDF", DEFAULT_KDF)  # as it is in another process
    laptop.register(email)

    with open_terminal(phone, "login", email) as terminal:
        terminal.expect("Root password")
        terminal.type("a tpyo\r")
        terminal.expect("The account has another root password. That one: ")
        terminal.type(f"{PASSWORD}\r")

        assert terminal.wait() == 0
    assert phone.run_json("status")["online"] is True


def test_a_new_password_is_typed_twice_the_same(joe: User) -> None:
    with open_terminal(joe, "passwd") as terminal:
        terminal.expect("Present root password: ")
        terminal.type(f"{PASSWORD}\r")
        terminal.expect("New root password: ")
        terminal.type("new one\r")
        terminal.expect("Once more: ")
        terminal.type("new oen\r")
        terminal.expect("not the same")
        terminal.expect("New root password: ")
        terminal.type("new one\r")
        terminal.expect("Once more: ")
        terminal.type("new one\r")
        terminal.expect("is changed")

        assert terminal.wait() == 0


def test_a_password_that_was_changed_elsewhere_is_asked_for_at_the_terminal(
    joe: User, joes_phone: User
) -> None:
    joe.push("one")
    joe.run("passwd", "--password-stdin", typed=f"{PASSWORD}\nnew one\n")

    with open_terminal(joes_phone, "pull") as terminal:
        terminal.expect("The account has another root password. That one: ")
        terminal.type("new one\r")
        terminal.expect("one")

        assert terminal.wait() == 0
    assert joes_phone.pull() == "one"


def test_a_prompt_ends_at_ctrl_c(joe: User) -> None:
    with open_terminal(joe, "login") as terminal:
        terminal.expect("Root password")

        assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.written


def test_a_prompt_ends_at_ctrl_d(joe: User) -> None:
    with open_terminal(joe, "login") as terminal:
        terminal.expect("Root password")
        terminal.type("\x04")

        assert terminal.wait() == 130
    assert "Traceback" not in terminal.written


def test_a_prompt_in_the_midst_of_a_sync_ends_at_ctrl_c(joe: User, joes_phone: User) -> None:
    joe.push("one")
    joe.run("passwd", "--password-stdin", typed=f"{PASSWORD}\nnew one\n")

    with open_terminal(joes_phone, "pull") as terminal:
        terminal.expect("That one: ")

        assert terminal.interrupt() == 130
    assert "Traceback" not in terminal.written


def test_a_question_that_is_not_answered_with_yes_does_nothing(joe: User) -> None:
    with open_terminal(joe, "delete") as terminal:
        terminal.expect("[y/N]")
        terminal.type("\r")

        assert terminal.wait() == 1
    with open_terminal(joe, "delete") as terminal:
        terminal.expect("[y/N]")

        assert terminal.interrupt() == 130
    joe.run("status")


def test_watching_tells_each_event_and_ends_at_ctrl_c(joe: User, joes_phone: User) -> None:
    with open_terminal(joe, "watch") as terminal:
        terminal.expect("synced")
        joes_phone.push("what nobody else may read")
        terminal.expect("changed by")

        assert terminal.interrupt() == 130
    assert "nobody else" not in terminal.written
    assert "Traceback" not in terminal.written


def test_each_event_is_a_document_in_a_line(joe: User, joes_phone: User) -> None:
    watching = subprocess.Popen(
        [*COMMAND, "watch", "--json", "--values"],
        env=environment_of(joe),
        stdout=subprocess.PIPE,
        text=True,
    )
    with watching:
        assert watching.stdout is not None
        events = map(json.loads, watching.stdout)
        next(event for event in events if event.get("status") == "synced")
        joes_phone.push("one")
        changed = next(event for event in events if event["event"] == "changed")
        watching.send_signal(signal.SIGINT)

        assert watching.wait(WAIT_S) == 130
    assert (changed["wallet"], changed["sequence"], changed["bytes"]) == ("one", 1, 3)


def test_a_profile_is_of_one_process_at_a_time(joe: User) -> None:
    with open_terminal(joe, "watch") as terminal:
        terminal.expect("synced")

        said = joe.run("pull", "--json", code=7)

        assert said.document["error"]["reason"] == "folder_in_use"
        assert str(terminal.process.pid) in said.stderr


def test_an_edited_wallet_is_pushed_and_the_file_is_gone(joe: User) -> None:
    joe.push('{"a":1}')
    editor = write_editor(
        joe,
        "print(path, oct(path.stat().st_mode), oct(path.parent.stat().st_mode))\n"
        "(path.parent / 'backup~').write_text(path.read_text())\n"
        "path.write_text(path.read_text().replace('1', '2'))",
    )

    with open_terminal(joe, "edit", EDITOR=editor) as terminal:
        assert terminal.wait() == 0

    path, mode, folder_mode = terminal.screen[0].split()
    assert (mode, folder_mode) == ("0o100600", "0o40700")
    assert not Path(path).parent.exists()
    assert json.loads(joe.pull()) == {"a": 2}


def test_a_file_that_was_left_as_it_was_pushes_nothing(joe: User) -> None:
    joe.push('{"a":1}')

    with open_terminal(joe, "edit", EDITOR="true") as terminal:
        assert terminal.wait() == 0

    assert "nothing is changed" in terminal.written
    assert joe.run_json("status")["sequence"] == 1
    assert joe.pull() == '{"a":1}'


def test_an_editor_that_fails_changes_nothing(joe: User) -> None:
    joe.push('{"a":1}')
    editor = write_editor(joe, "path.write_text('{}')\nsys.exit(3)")

    with open_terminal(joe, "edit", VISUAL=editor) as terminal:
        assert terminal.wait() == 1

    assert joe.pull() == '{"a":1}'


def test_json_that_was_broken_is_edited_again(joe: User) -> None:
    joe.push('{"a":1}')
    editor = write_editor(
        joe, "path.write_text('{\"a\":2}' if 'broken' in path.read_text() else '{broken')"
    )

    with open_terminal(joe, "edit", EDITOR=editor) as terminal:
        terminal.expect("Edit again?")
        terminal.type("y\r")
        assert terminal.wait() == 0

    assert json.loads(joe.pull()) == {"a": 2}


def test_what_another_device_changes_during_an_edit_is_merged(joe: User, joes_phone: User) -> None:
    joe.push('{"a":1,"b":1,"c":1}')
    joes_phone.run("pull", "wallet")
    editor = write_editor(
        joe,
        'print(\'ready\', flush=True)\ninput()\npath.write_text(\'{"a":2,"b":1,"c":2}\')',
    )

    with open_terminal(joe, "edit", EDITOR=editor) as terminal:
        terminal.expect("ready")
        joes_phone.push('{"a":1,"b":3,"c":3}')
        terminal.type("\r")
        assert terminal.wait() == 0

    assert json.loads(joe.pull()) == {"a": 2, "b": 3, "c": 2}


def test_a_ctrl_c_in_the_editor_is_the_editors(joe: User) -> None:
    joe.push('{"a":1}')
    editor = write_editor(
        joe,
        "try:\n    print('ready', flush=True)\n    input()\n"
        "except KeyboardInterrupt:\n    path.write_text('{\"a\":2}')",
    )

    with open_terminal(joe, "edit", EDITOR=editor) as terminal:
        terminal.expect("ready")
        assert terminal.interrupt() == 0

    assert json.loads(joe.pull()) == {"a": 2}


def run_shell(user: User, script: str) -> subprocess.CompletedProcess[str]:
    """Runs a script in which `wsclient` is the command."""
    define = f"wsclient() {{ {sys.executable} -c '{COMMAND[2]}' \"$@\"; }}"
    return subprocess.run(
        ["bash", "-c", f"{define}\n{script}"],
        env=environment_of(user),
        cwd=user.folder,
        capture_output=True,
        text=True,
        timeout=WAIT_S,
        check=True,
    )


def test_a_reader_that_goes_away_is_no_error(joe: User) -> None:
    joe.push("one")

    for call in ("pull", "history"):
        piped = run_shell(joe, f"wsclient {call} | true; echo ${{PIPESTATUS[0]}}")

        assert piped.stdout == "141\n"
        assert piped.stderr == ""


def test_a_pipe_of_a_pull_into_a_push_works(joe: User) -> None:
    joe.push("one")

    run_shell(joe, "wsclient pull | sed s/one/two/ | wsclient push -")

    assert joe.pull() == "two"


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="this system does not tell")
def test_a_file_that_the_shell_opened_is_known_again(joe: User, joes_phone: User) -> None:
    joe.push('{"a":1,"b":1}')
    run_shell(joe, "wsclient pull > copy.json")
    joes_phone.run("pull", "wallet")
    joes_phone.push('{"a":2,"b":1}')
    joe.write("copy.json", '{"a":1}')

    run_shell(joe, "wsclient push - < copy.json")

    assert json.loads(joe.pull()) == {"a": 2}


def test_the_prompt_awaits_completes_and_remembers_and_tells_above_what_is_typed(
    joe: User, joes_phone: User
) -> None:
    joe.push("one")
    with open_terminal(joe, "repl") as terminal:
        terminal.expect("* synced")
        terminal.expect(">>>")
        terminal.type("20 + ")
        terminal.expect("+")
        joes_phone.run("pull", "wallet")
        joes_phone.push("two")
        terminal.expect("* changed by")
        terminal.expect(">>>")
        terminal.type("22\r")
        terminal.expect("42")
        terminal.expect(">>>")
        terminal.type("await wallet.change(b'three')\r")
        terminal.expect("* pushed as sequence 3")
        terminal.expect(">>>")
        terminal.type("wallet.chan\t")
        terminal.expect("change")
        terminal.type("\x15password = 1; print('do' 'ne')\r")
        terminal.expect("done")
        terminal.expect(">>>")
        terminal.type("\x04")

        assert terminal.wait() == 0
    lines = terminal.screen
    [told] = [number for number, line in enumerate(lines) if line.startswith("* changed by")]
    [typed] = [number for number, line in enumerate(lines) if line.strip() == ">>> 20 + 22"]
    assert told < typed
    assert joes_phone.pull() == "three"
    history = joe.home / "default/repl-history"
    assert "20 + 22" in history.read_text()
    assert "password" not in history.read_text()
    assert history.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_gets_what_makes_it_complete(joe: User, shell: str) -> None:
    assert "_WSCLIENT_COMPLETE" in joe.run("completion", shell).stdout


def test_commands_options_and_profiles_are_completed(joe: User) -> None:
    def complete(*words: str) -> list[str]:
        completed = subprocess.run(
            COMMAND,
            env=environment_of(
                joe,
                _WSCLIENT_COMPLETE="bash_complete",
                COMP_WORDS=" ".join(("wsclient", *words)),
                COMP_CWORD=str(len(words)),
            ),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=True,
        )
        return completed.stdout.split()

    assert complete("hist") == ["plain,history"]
    assert complete("push", "--pref") == ["plain,--prefer"]
    assert complete("push", "--profile", "d") == ["plain,default"]


def test_the_live_view_shows_the_wallet_and_leaves_the_terminal_as_it_was(joe: User) -> None:
    joe.push('{"entries": ["what is in it"]}')

    with open_terminal(joe, "live") as terminal:
        terminal.expect("entries")
        terminal.type("q")

        assert terminal.wait() == 0
    assert terminal.written.rindex("\x1b[?1049l") > terminal.written.index("\x1b[?1049h")


@pytest.mark.parametrize("name", ["repl", "live"])
def test_what_needs_a_terminal_says_so(joe: User, name: str) -> None:
    said = joe.run(name, "--json", code=2)

    assert "terminal" in said.document["error"]["message"]
