"""The local store on a real disk: what opens it, what it refuses, and who may have it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.client.simulated_disk import SimulatedDisk
from wsclient import crypto
from wsclient.errors import FolderInUse, LocalStateDamaged, WrongPassword
from wsclient.files import Disk
from wsclient.storage import LocalStore
from wsschema.messages import Kdf

KDF = Kdf.scrypt(2**14)
KILLS = 15
REAL_STRETCH = crypto.stretch

VERSION_1 = """
7b2276223a312c22736c6f7473223a5b7b2273616c74223a226232386365663764396233353133653864653265373535
323931656432663866222c226b6466223a7b226e223a31363338342c2272223a382c2270223a312c226e616d65223a22
736372797074227d2c2277726170706564223a2230353130346134333038633037346532333730303131326234633338
303236666232386239643931616466313439646432656233383935626163623230633138653865383964316230366361
3362366563383131643037313739646363353831366263623761353234303734373434366162356264396665227d2c7b
2273616c74223a226262666439303966656632306132346261666138303531663665333262336630222c226b6466223a
7b226e223a31363338342c2272223a382c2270223a312c226e616d65223a22736372797074227d2c2277726170706564
223a22316530396261306435653034323835626138643831326635383436653739666434633438653230313239373736
343737316330373438623736373439663032376364666361346139386635313862346232656633323030323264643931
633361653632373835383730326236326338333231666266353162227d5d7d0aa54f3f9ebb491c6fbcae8cf7aaffbbec
2190d75fdcb98de67a27935e011bfcd9f3fcbe6140
"""


@pytest.fixture(scope="module", autouse=True)
def quick_scrypt() -> Iterator[None]:
    """Most tests open often; those of scrypt itself ask for `real_scrypt`."""

    def stretch(root_password: str, salt: bytes, kdf: Kdf, length_bytes: int) -> bytes:
        secret = f"{root_password}:{kdf}".encode()
        return hashlib.blake2b(salt + secret, digest_size=length_bytes).digest()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crypto, "stretch", stretch)
        yield


@pytest.fixture
def real_scrypt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crypto, "stretch", REAL_STRETCH)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "wallets" / "joe"


@contextmanager
def opened(
    folder: Path, root_password: str | None = "secret", **arguments: Any
) -> Iterator[LocalStore]:
    store = LocalStore.open(folder, root_password=root_password, kdf=KDF, **arguments)
    try:
        yield store
    finally:
        store.close()


def opens(folder: Path, root_password: str) -> bool:
    try:
        with opened(folder, root_password):
            return True
    except WrongPassword:
        return False


# What is kept


def test_a_new_folder_has_no_payload(folder: Path) -> None:
    for _ in range(2):
        with opened(folder) as store:
            assert store.load() is None


@pytest.mark.parametrize(
    "payload", [b"", b"\n", b"wallet", random.Random(1).randbytes(20_000_000)], ids=len
)
def test_what_was_saved_is_loaded(folder: Path, payload: bytes) -> None:
    with opened(folder) as store:
        store.save(b"before")
        store.save(payload)
        assert store.load() == payload
    with opened(folder) as store:
        assert store.load() == payload


def test_folders_and_files_are_for_their_owner_alone(folder: Path) -> None:
    with opened(folder) as store:
        store.save(b"wallet")

    modes = {
        path.name: stat.S_IMODE(path.stat().st_mode)
        for path in [folder.parent, folder, *folder.iterdir()]
    }
    assert modes == {"wallets": 0o700, "joe": 0o700, "wallet.sealed": 0o600, "lock": 0o600}


def test_no_two_saves_seal_under_the_same_nonce(folder: Path) -> None:
    sealed = set()
    with opened(folder) as store:
        for _ in range(20):
            store.save(b"the same")
            sealed.add((folder / "wallet.sealed").read_bytes().partition(b"\n")[2][:12])
    assert len(sealed) == 20


def test_a_leftover_of_a_crash_is_removed(folder: Path) -> None:
    with opened(folder) as store:
        store.save(b"wallet")
    leftover = folder / "wallet.sealed.new"
    leftover.write_bytes(b"half a fi")

    with opened(folder) as store:
        assert not leftover.exists()
        assert store.load() == b"wallet"


def test_no_secret_is_shown_or_stored_as_it_is(folder: Path) -> None:
    with opened(folder, "hunter2") as store:
        store.save(b"coins: 3")
        key = store.local_key
        with pytest.raises(FolderInUse) as in_use:
            LocalStore.open(folder, root_password="hunter2", local_key=key)
    with pytest.raises(WrongPassword) as refused:
        LocalStore.open(folder, root_password="hunter3")

    shown = repr([store, in_use.value, refused.value]).encode()
    stored = b"".join(path.read_bytes() for path in folder.iterdir())
    for secret in (b"hunter", b"coins", key, key.hex().encode()):
        assert secret not in shown + stored


# What opens it


def test_a_root_password_opens_it_and_another_does_not(folder: Path) -> None:
    with opened(folder, "secret") as store:
        store.save(b"wallet")

    with pytest.raises(
        WrongPassword, match=f"the root password does not open the folder {re.escape(str(folder))}"
    ):
        LocalStore.open(folder, root_password="Secret")

    with opened(folder, "secret") as store:
        assert store.load() == b"wallet"


def test_the_local_key_opens_it_with_no_scrypt(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(folder) as store:
        store.save(b"wallet")
        key = store.local_key

    monkeypatch.setattr(crypto, "stretch", None)
    with opened(folder, None, local_key=key) as store:
        assert store.load() == b"wallet"
        assert store.local_key == key
    with opened(folder, "whatever", local_key=key) as store:
        assert store.load() == b"wallet"


def test_another_local_key_does_not_open_it(folder: Path) -> None:
    with opened(folder):
        pass

    with pytest.raises(
        WrongPassword, match=r"the local key does not open .*; the root password may"
    ):
        LocalStore.open(folder, local_key=bytes(32))

    with opened(folder, "secret", local_key=bytes(32)) as store:
        assert store.local_key != bytes(32)


def test_a_new_folder_takes_the_local_key_that_it_is_given(folder: Path) -> None:
    key = random.Random(1).randbytes(32)
    with opened(folder, None, local_key=key) as store:
        store.save(b"wallet")
    assert not opens(folder, "secret")

    with opened(folder, None, local_key=key) as store:
        store.add_password("secret")

    with opened(folder, "secret") as store:
        assert (store.load(), store.local_key) == (b"wallet", key)


def test_every_folder_has_a_key_of_its_own(tmp_path: Path) -> None:
    with opened(tmp_path / "1") as first, opened(tmp_path / "2") as second:
        assert first.local_key != second.local_key


def test_one_way_of_writing_a_password_is_as_good_as_another(
    folder: Path, real_scrypt: None
) -> None:
    composed, decomposed = "Pa\u00dfwort \u00e9", "Pa\u00dfwort e\u0301"
    assert unicodedata.normalize("NFC", decomposed) == composed
    with opened(folder, composed):
        pass
    assert opens(folder, decomposed)
    assert not opens(folder, "Passwort \u00e9")


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "either the root password or the local key is needed"),
        ({"local_key": b"short"}, "the local key is 5 bytes; it must be 32"),
        ({"root_password": "secret", "kdf": Kdf.scrypt(2)}, "of the key derivation, n is 2"),
        ({"root_password": "secret", "kdf": Kdf.scrypt(2**30)}, "of the key derivation, n is"),
    ],
)
def test_arguments_that_make_no_store_touch_no_disk(
    folder: Path, arguments: dict[str, Any], text: str
) -> None:
    with pytest.raises(ValueError, match=text):
        LocalStore.open(folder, **arguments)
    assert not folder.parent.exists()


# Its passwords


def test_an_added_password_opens_it_as_well(folder: Path) -> None:
    with opened(folder, "old") as store:
        store.save(b"wallet")
        key = store.local_key
        store.add_password("new")
        store.save(b"wallet 2")

    for password in ("old", "new"):
        with opened(folder, password) as store:
            assert (store.load(), store.local_key) == (b"wallet 2", key)


def test_a_third_password_ends_the_oldest(folder: Path) -> None:
    with opened(folder, "1") as store:
        store.add_password("2")
        store.add_password("3")
    assert [opens(folder, password) for password in "123"] == [False, True, True]


def test_a_password_added_twice_ends_no_other(folder: Path) -> None:
    with opened(folder, "old") as store:
        for _ in range(3):
            store.add_password("new")
    assert opens(folder, "old")
    assert opens(folder, "new")
    with opened(folder, "old") as store:
        store.add_password("old")
        store.add_password("newest")
    assert [opens(folder, password) for password in ("old", "new", "newest")] == [True, False, True]


def test_a_password_kept_alone_ends_the_others(folder: Path) -> None:
    with opened(folder, "old") as store:
        store.save(b"wallet")
        store.keep_only_password("new")
    assert not opens(folder, "old")
    with opened(folder, "new") as store:
        assert store.load() == b"wallet"


def test_a_password_that_is_set_anew_takes_todays_key_derivation(folder: Path) -> None:
    with opened(folder, "secret"):
        pass
    stronger = Kdf.scrypt(2**15)

    store = LocalStore.open(folder, root_password="secret", kdf=stronger)
    store.save(b"wallet")
    assert {slot["kdf"]["n"] for slot in read_header(folder)["slots"]} == {KDF.n}
    store.keep_only_password("secret")
    store.close()

    assert {slot["kdf"]["n"] for slot in read_header(folder)["slots"]} == {stronger.n}
    assert opens(folder, "secret")


# What is on the disk may be anything


def read_header(folder: Path) -> dict[str, Any]:
    header: dict[str, Any] = json.loads((folder / "wallet.sealed").read_bytes().partition(b"\n")[0])
    return header


def sealed_file(*passwords: str) -> tuple[bytes, bytes]:
    """A sealed file that holds ``wallet``, and its local key."""
    disk, folder = SimulatedDisk(Path("/")), Path("/wallet")
    store = LocalStore.open(folder, root_password=passwords[0], kdf=KDF, files=disk)
    store.save(b"wallet")
    for password in passwords[1:]:
        store.add_password(password)
    return disk.read(folder / "wallet.sealed"), store.local_key


def open_content(content: bytes, **arguments: Any) -> bytes | None:
    disk, folder = SimulatedDisk(Path("/")), Path("/wallet")
    disk.make_folder(folder)
    descriptor = disk.create(folder / "wallet.sealed")
    disk.write(descriptor, content)
    try:
        return LocalStore.open(folder, files=disk, **arguments).load()
    finally:
        assert disk.read(folder / "wallet.sealed") == content, "what can't be read is left as it is"


def is_refused(content: bytes, **arguments: Any) -> bool:
    try:
        assert open_content(content, **arguments) == b"wallet"
    except (LocalStateDamaged, WrongPassword):
        return True
    return False


@given(st.data())
def test_a_flipped_bit_anywhere_is_refused(data: st.DataObject) -> None:
    content, key = sealed_file("old", "new")
    position = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[position // 8] ^= 1 << position % 8

    assert is_refused(bytes(flipped), root_password="old")
    assert is_refused(bytes(flipped), root_password="new")
    assert is_refused(bytes(flipped), local_key=key)


@given(st.data())
def test_a_file_that_was_cut_short_is_refused(data: st.DataObject) -> None:
    content, key = sealed_file("secret")
    length = data.draw(st.integers(0, len(content) - 1))

    assert is_refused(content[:length], root_password="secret")
    assert is_refused(content[:length], local_key=key)


@given(st.binary() | st.builds(lambda head, tail: head + b"\n" + tail, st.binary(), st.binary()))
def test_a_file_of_anything_is_refused(content: bytes) -> None:
    with pytest.raises(LocalStateDamaged):
        open_content(content, root_password="secret")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(
    st.sampled_from(
        [
            ("v",),
            ("slots",),
            ("slots", 0),
            ("slots", 0, "salt"),
            ("slots", 0, "kdf"),
            ("slots", 0, "kdf", "n"),
            ("slots", 0, "kdf", "name"),
            ("slots", 0, "wrapped"),
        ]
    ),
    JSON,
)
def test_a_header_with_any_value_anywhere_is_refused(
    path: tuple[str | int, ...], value: Any
) -> None:
    content, key = sealed_file("secret")
    header, _, sealed = content.partition(b"\n")
    fields = json.loads(header)
    inner = fields
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    content = json.dumps(fields).encode() + b"\n" + sealed

    assert is_refused(content, root_password="secret")
    assert is_refused(content, local_key=key)


def with_header(content: bytes, **members: Any) -> bytes:
    header, _, sealed = content.partition(b"\n")
    return json.dumps(json.loads(header) | members).encode() + b"\n" + sealed


@pytest.mark.parametrize(
    "kdf",
    [
        {"n": 2**40}, {"n": 2**21}, {"n": 2**13}, {"n": 1}, {"n": 0}, {"n": -(2**14)},
        {"n": 2**14 + 1}, {"n": 16384.0}, {"n": "16384"}, {"n": True}, {"n": None},
        {"r": 2**20}, {"r": 0}, {"p": 5}, {"p": 0}, {"p": 2**30},
        {"name": "none"}, {"name": ["scrypt"]},
    ],
    ids=str,
)  # fmt: skip
def test_no_memory_and_no_time_is_spent_on_an_absurd_key_derivation(
    kdf: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    content, _ = sealed_file("secret")
    (slot,) = json.loads(content.partition(b"\n")[0])["slots"]
    content = with_header(content, slots=[slot | {"kdf": slot["kdf"] | kdf}])

    monkeypatch.setattr(crypto, "stretch", None)
    with pytest.raises(LocalStateDamaged):
        open_content(content, root_password="secret")


def test_a_wrong_password_costs_no_more_than_two_scrypts(monkeypatch: pytest.MonkeyPatch) -> None:
    content, _ = sealed_file("old", "new")
    slots = json.loads(content.partition(b"\n")[0])["slots"]
    assert len(slots) == 2

    monkeypatch.setattr(crypto, "stretch", None)
    with pytest.raises(LocalStateDamaged):
        open_content(with_header(content, slots=[*slots, slots[0]]), root_password="old")


def test_a_header_without_bottom_is_refused() -> None:
    content, _ = sealed_file("secret")
    with pytest.raises(LocalStateDamaged):
        open_content(b"[" * 100_000 + content, root_password="secret")


def test_a_slot_of_another_file_does_not_open_this_one() -> None:
    content, key = sealed_file("mine")
    other, _ = sealed_file("theirs")
    slots = [json.loads(file.partition(b"\n")[0])["slots"][0] for file in (content, other)]
    mixed = with_header(content, slots=slots)

    for arguments in ({"root_password": "mine"}, {"root_password": "theirs"}):
        with pytest.raises(LocalStateDamaged, match="it was changed or cut short"):
            open_content(mixed, **arguments)
    with pytest.raises(WrongPassword):
        open_content(mixed, local_key=key)


def test_a_header_that_was_rewritten_with_the_same_meaning_is_refused() -> None:
    content, _ = sealed_file("secret")
    header, _, sealed = content.partition(b"\n")
    assert is_refused(header + b" \n" + sealed, root_password="secret")


def test_a_newer_file_says_so(folder: Path) -> None:
    with opened(folder):
        pass
    path = folder / "wallet.sealed"
    newer = b'{"v":2,"keys":[]}' + path.read_bytes()[path.read_bytes().index(b"\n") :]
    path.write_bytes(newer)

    with pytest.raises(LocalStateDamaged) as refused:
        LocalStore.open(folder, root_password="secret")

    assert str(refused.value) == (
        f"the local state {path} is of version 2, and this software knows 1; update it"
    )
    assert path.read_bytes() == newer


def test_a_file_of_version_1_opens_for_ever(real_scrypt: None) -> None:
    content = bytes.fromhex(VERSION_1)
    for password in ("correct horse", "battery staple"):
        assert open_content(content, root_password=password) == b"a wallet"


# What the disk may do


def test_a_disk_that_takes_no_more_is_told_and_what_was_saved_stays(folder: Path) -> None:
    with opened(folder) as store:
        store.save(b"small")
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        try:
            with pytest.raises(OSError, match="too large"):
                store.save(bytes(1_000_000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert {path.name for path in folder.iterdir()} == {"wallet.sealed", "lock"}
        assert store.load() == b"small"
        store.save(bytes(1_000_000))
    with opened(folder) as store:
        assert store.load() == bytes(1_000_000)


@pytest.fixture
def owned() -> Iterator[Path]:
    """A folder of somebody whom modes keep out: the superuser goes by another name meanwhile."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield Path(folder)
            os.chmod(folder, 0o700)
    finally:
        os.seteuid(user)


def test_a_folder_that_may_not_be_written_is_told(owned: Path) -> None:
    owned.chmod(0o500)
    for folder in (owned, owned / "wallet"):
        with pytest.raises(PermissionError):
            LocalStore.open(folder, root_password="secret")


def test_a_folder_that_may_no_longer_be_written_can_be_read(owned: Path) -> None:
    with opened(owned) as store:
        store.save(b"wallet")
    owned.chmod(0o500)
    with opened(owned) as store:
        with pytest.raises(PermissionError):
            store.save(b"wallet 2")
        assert store.load() == b"wallet"
        owned.chmod(0o700)
        store.save(b"wallet 2")
        assert store.load() == b"wallet 2"


def test_a_folder_above_that_may_not_be_listed_is_no_hindrance(owned: Path) -> None:
    owned.chmod(0o300)
    with opened(owned / "wallet") as store:
        store.save(b"wallet")
        assert store.load() == b"wallet"


def test_a_folder_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "wallet"):
        with pytest.raises(OSError, match="file"):
            LocalStore.open(folder, root_password="secret")


def test_a_write_that_takes_only_a_part_goes_on(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:100]))
    with opened(folder) as store:
        store.save(bytes(10_000))
        assert store.load() == bytes(10_000)


def test_a_folder_that_can_not_be_synced_is_told_unless_there_is_no_such_thing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fsync = os.fsync
    number = errno.EIO

    def fsync_files(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    with opened(folder) as store:
        monkeypatch.setattr(os, "fsync", fsync_files)
        with pytest.raises(OSError, match="Input/output error"):
            store.save(b"wallet")
        number = errno.EINVAL
        store.save(b"wallet")


# Who may have it


def test_a_second_opening_is_refused_and_told_who_has_the_first(folder: Path) -> None:
    with opened(folder) as store:
        with pytest.raises(
            FolderInUse, match=f"{folder} is in use by process {os.getpid()}"
        ) as refused:
            LocalStore.open(folder, root_password="secret")
        assert refused.value.pid == os.getpid()
        store.save(b"the first goes on")
    assert opens(folder, "secret")


def test_two_names_of_one_folder_are_one_lock_and_one_file(folder: Path, tmp_path: Path) -> None:
    link, dangling = tmp_path / "link", tmp_path / "dangling"
    link.symlink_to(folder, target_is_directory=True)
    dangling.symlink_to(link, target_is_directory=True)
    with opened(link) as store:  # The folder is made where the link points.
        with pytest.raises(FolderInUse, match=re.escape(str(folder))):
            LocalStore.open(folder, root_password="secret")
        with pytest.raises(FolderInUse, match=re.escape(str(folder))):
            LocalStore.open(dangling, root_password="secret")
        store.save(b"wallet")
    with opened(folder) as store:
        assert store.load() == b"wallet"


def test_whoever_could_not_open_it_holds_no_lock(folder: Path) -> None:
    with opened(folder):
        pass
    for _ in range(2):
        with pytest.raises(WrongPassword):
            LocalStore.open(folder, root_password="wrong")
    assert opens(folder, "secret")


def test_a_lock_whose_holder_is_not_known_is_told(folder: Path) -> None:
    with opened(folder):
        (folder / "lock").write_bytes(b"joe")
        with pytest.raises(FolderInUse, match="in use by another process") as refused:
            LocalStore.open(folder, root_password="secret")
        assert refused.value.pid is None


def test_a_closed_store_writes_no_more(folder: Path) -> None:
    store = LocalStore.open(folder, root_password="secret", kdf=KDF)
    store.close()
    store.close()
    assert (folder / "lock").read_bytes() == b"", "no number is left to mislead"
    with opened(folder) as other:
        other.save(b"the other's")
        for act in (
            store.load,
            lambda: store.save(b""),
            lambda: store.add_password("new"),
            lambda: store.keep_only_password("new"),
        ):
            with pytest.raises(ValueError, match="closed"):
                act()
        assert other.load() == b"the other's"


class HeldUpDisk(Disk):
    """Holds up every rename until it is told to go on."""

    def __init__(self) -> None:
        self.renaming, self.go_on = threading.Event(), threading.Event()

    def rename(self, path: Path, onto: Path) -> None:
        self.renaming.set()
        assert self.go_on.wait(10)
        super().rename(path, onto)


@contextmanager
def saving(folder: Path) -> Iterator[tuple[LocalStore, HeldUpDisk]]:
    """A store of which one thread is in the midst of a save of ``first``."""
    with opened(folder):
        pass
    disk = HeldUpDisk()
    with opened(folder, files=disk) as store:
        thread = threading.Thread(target=store.save, args=(b"first",))
        thread.start()
        assert disk.renaming.wait(10)
        yield store, disk
        thread.join(10)


def test_threads_take_turns(folder: Path) -> None:
    with saving(folder) as (store, disk):
        second = threading.Thread(target=store.save, args=(b"second",))
        second.start()
        second.join(0.05)
        assert second.is_alive()
        disk.go_on.set()
        second.join(10)
        assert store.load() == b"second"


def test_closing_waits_for_a_save_under_way(folder: Path) -> None:
    with saving(folder) as (store, disk):
        closing = threading.Thread(target=store.close)
        closing.start()
        closing.join(0.05)
        assert closing.is_alive()
        with pytest.raises(FolderInUse):
            LocalStore.open(folder, root_password="secret")
        disk.go_on.set()
        closing.join(10)
    with opened(folder) as store:
        assert store.load() == b"first"


# Other processes

HOLD = """
import sys
from wsclient.storage import LocalStore
store = LocalStore.open(sys.argv[1], local_key=bytes(32))
print("held", flush=True)
sys.stdin.read()
"""

FORK = """
import os, sys, threading, warnings
from wsclient.errors import FolderInUse
from wsclient.files import Disk
from wsclient.storage import LocalStore

class HeldUpDisk(Disk):
    def rename(self, path, onto):
        renaming.set()
        go_on.wait()
        super().rename(path, onto)

renaming, go_on = threading.Event(), threading.Event()
go_on.set()
store = LocalStore.open(sys.argv[1], local_key=bytes(32), files=HeldUpDisk())
renaming.clear()
go_on.clear()
saver = threading.Thread(target=store.save, args=(b"the parent's",))
saver.start()
renaming.wait()
parent = os.getpid()
# Newer Pythons warn of a fork beside threads; to be forked in a save is what this is about.
warnings.simplefilter("ignore", DeprecationWarning)
if os.fork() == 0:
    for act in (
        store.load,
        lambda: store.save(b"the child's"),
        lambda: LocalStore.open(sys.argv[1], local_key=bytes(32)),
    ):
        try:
            act()
        except FolderInUse as error:
            assert error.pid == parent
        else:
            os._exit(1)
        store.close()
    os.write(1, b"forked\\n")
    sys.stdin.read()
    os._exit(0)
go_on.set()
saver.join()
sys.stdin.read()
"""

SAVE = """
import itertools, os, sys
from wsclient.storage import LocalStore
store = LocalStore.open(sys.argv[1], local_key=bytes(32))
number = int((store.load() or b"0").split(b",")[0])
while True:
    number += 1
    store.save(b"%d," % number * (number % 7 * 30_000 + 1))
    os.write(1, b"%d\\n" % number)
"""


@contextmanager
def running(script: str, folder: Path) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-W", "error", "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_another_process_is_kept_off_until_the_holder_dies(folder: Path) -> None:
    with running(HOLD, folder) as holder:
        assert read_line(holder) == "held"
        with pytest.raises(FolderInUse, match=f"in use by process {holder.pid}:"):
            LocalStore.open(folder, local_key=bytes(32))
        holder.kill()
        holder.wait()
        with opened(folder, None, local_key=bytes(32)) as store:
            assert store.load() is None


def test_a_forked_child_has_neither_the_store_nor_its_lock(folder: Path) -> None:
    with running(FORK, folder) as parent:
        assert read_line(parent) == "forked"
        with pytest.raises(FolderInUse, match=f"in use by process {parent.pid}:"):
            LocalStore.open(folder, local_key=bytes(32))
        parent.kill()
        os.waitid(os.P_PID, parent.pid, os.WEXITED | os.WNOWAIT)
        # The child lives on: it waits for the end of what we write.
        with opened(folder, None, local_key=bytes(32)) as store:
            assert store.load() in (b"the parent's", None)


def test_a_process_killed_at_any_moment_of_a_save_loses_nothing(folder: Path) -> None:
    chance = random.Random(1)
    for _ in range(KILLS):
        with running(SAVE, folder) as saver:
            acknowledged = int(read_line(saver))
            started = time.monotonic()
            saves = chance.randrange(1, 10)
            for _ in range(saves):
                acknowledged = int(read_line(saver))
            one_save_s = (time.monotonic() - started) / saves
            time.sleep(chance.random() * one_save_s)
            saver.kill()
            assert saver.wait() == -signal.SIGKILL
            assert saver.stdout is not None
            for line in saver.stdout:
                acknowledged = int(line)
        with opened(folder, None, local_key=bytes(32)) as store:
            payload = store.load()
        assert payload is not None
        number = int(payload.split(b",")[0])
        assert acknowledged <= number <= acknowledged + 1
        assert payload == b"%d," % number * (number % 7 * 30_000 + 1)
