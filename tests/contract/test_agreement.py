"""SQL in batches answers whatever sequence of operations as the store in memory does one by one."""

from __future__ import annotations

import dataclasses
import functools
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, text

from tests.contract.backends import KDF, SEED, Clock, make_password
from wsschema.errors import Conflict, RpcError
from wsschema.messages import SealedWallet
from wsserver.operations import (
    AcknowledgeState,
    CreateAccount,
    EndSession,
    FindToken,
    LoadAccountCredentials,
    LoadCredentials,
    LoadDevices,
    LoadHistory,
    LoadKeyDerivation,
    LoadSession,
    LoadWallet,
    MarkSeen,
    OpenedSession,
    OpenSession,
    Operation,
    Pushed,
    PushState,
    RemoveAccount,
    RemoveDevice,
    ReplacePassword,
)
from wsserver.store.context import Context
from wsserver.store.databases import create_store_engine, open_database, parse_url
from wsserver.store.memory import Memory
from wsserver.store.schema import install
from wsserver.store.sql import run_operations

LIFETIME_MS = 50
DEPTH = 3

Perform = Callable[[list[Operation[Any]]], list[Any]]
Make = Callable[["Side"], Operation[Any]]
"""Makes the operation for one of the two stores, which gave out tokens of their own."""


@dataclasses.dataclass(slots=True)
class Side:
    """One of the two stores, and the tokens it gave out."""

    perform: Perform
    tokens: list[bytes] = dataclasses.field(default_factory=list)
    heads: dict[int, int] = dataclasses.field(default_factory=dict)
    """The sequence that each account has, as far as its pushes tell."""

    def token(self, index: int) -> bytes:
        return self.tokens[index % len(self.tokens)] if self.tokens else b"?" * 32

    def push(self, token: int, account: int, step: int, text: str) -> PushState:
        """A push of the head's sequence plus ``step``; 1 is taken to succeed."""
        head = self.heads.get(account, 0)
        if step == 1:
            self.heads[account] = head + 1
        return PushState(self.token(token), account, 7, max(1, head + step), text, "mac")

    def run(self, makers: list[Make]) -> list[Any]:
        operations = [make(self) for make in makers]
        answers = self.perform(operations)
        for operation, answer in zip(operations, answers, strict=True):
            if isinstance(operation, PushState) and isinstance(answer, Pushed | Conflict):
                latest = answer.state if isinstance(answer, Pushed) else answer.wallet
                self.heads[operation.account_id] = 0 if latest is None else latest.sequence
        self.tokens += [
            answer.token_hash for answer in answers if getattr(answer, "token", None) is not None
        ]
        return [simplify(answer) for answer in answers]


def simplify(answer: Any) -> Any:
    """The answer without what was drawn at random."""
    if isinstance(answer, Conflict):
        return (type(answer), answer.message, answer.wallet, answer.landed)
    if isinstance(answer, RpcError):
        return (type(answer), answer.message)
    if isinstance(answer, OpenedSession):
        return dataclasses.replace(answer, token=None, token_hash=b"", epoch="")
    return answer


accounts = st.sampled_from([1, 1, 1, 2, 3])
devices = st.sampled_from(["phone", "laptop", "tablet"])
passwords = st.sampled_from(["first", "first", "second"]).map(make_password)
tokens = st.sampled_from([0, 0, 0, 1, 1, 2, 2, 3, 4, 5])
sequences = st.integers(1, 9)
texts = st.sampled_from(["a", "a", "b", "é\0"])
sealed = st.builds(SealedWallet, sequences, texts, texts)

makers: st.SearchStrategy[Make] = st.one_of(
    st.builds(
        lambda email, password, verified: (
            lambda side: CreateAccount(f"{email}@example.com", password, SEED, KDF, verified)
        ),
        st.sampled_from("abc"),
        passwords,
        st.booleans(),
    ),
    st.builds(
        lambda account, password, upgraded, device, name, most, online: (
            lambda side: OpenSession(account, password, upgraded, device, name, most, online)
        ),
        accounts,
        passwords,
        st.none() | passwords,
        devices,
        st.sampled_from([None, "", "name"]),
        st.sampled_from([1, 2, 64]),
        st.frozensets(devices),
    ),
    *[
        st.builds(
            lambda token, account, step, text: lambda side: side.push(token, account, step, text),
            tokens,
            accounts,
            st.sampled_from([1, 1, 1, 1, 0, -1, -2, -3, 2]),
            texts,
        )
    ]
    * 5,  # Most of what a store does.
    st.builds(
        lambda token, account, sequence: (
            lambda side: AcknowledgeState(side.token(token), account, sequence)
        ),
        tokens,
        accounts,
        sequences,
    ),
    st.builds(
        lambda token, account, checked, new, wallet: (
            lambda side: ReplacePassword(
                side.token(token), account, checked, new, "cd" * 32, KDF, wallet
            )
        ),
        tokens,
        accounts,
        passwords,
        passwords,
        st.none() | sealed,
    ),
    st.builds(
        lambda account, checked, new, wallet: (
            lambda side: ReplacePassword(None, account, checked, new, "cd" * 32, KDF, wallet)
        ),
        accounts,
        passwords,
        passwords,
        st.none() | sealed,
    ),
    st.builds(
        lambda token, account, checked: (
            lambda side: RemoveAccount(side.token(token), account, checked)
        ),
        tokens,
        accounts,
        passwords,
    ),
    st.builds(
        lambda token, account: lambda side: EndSession(side.token(token), account), tokens, accounts
    ),
    st.builds(
        lambda token, account, device: (
            lambda side: RemoveDevice(side.token(token), account, device)
        ),
        tokens,
        accounts,
        devices,
    ),
    st.builds(
        lambda token, at_ms: lambda side: MarkSeen(side.token(token), at_ms),
        tokens,
        st.integers(0, 300),
    ),
)


BEGINNING: list[Make] = [
    *[
        lambda side, email=email: CreateAccount(email, make_password(), SEED, KDF, True)
        for email in ("a@example.com", "b@example.com")
    ],
    *[
        lambda side, account=account, device=device: OpenSession(
            account, make_password(), None, device, None, 64, frozenset()
        )
        for account, device in ((1, "phone"), (1, "laptop"), (2, "phone"))
    ],
]
"""Most examples would do nothing if they had to log in first."""


def everything_readable(tokens_given: int) -> list[Make]:
    """Reads of all that a store can be asked for."""

    def of_token(kind: Callable[[bytes], Operation[Any]], index: int) -> Make:
        return lambda side: kind(side.token(index))

    makers = [
        of_token(kind, index) for kind in (LoadSession, FindToken) for index in range(tokens_given)
    ]
    makers += [
        of_token(functools.partial(LoadWallet, account_id, None), index)
        for account_id in (1, 2)
        for index in range(tokens_given)
    ]
    fixed: list[Operation[Any]] = []
    for email in "abc":
        fixed += [
            LoadCredentials(f"{email}@example.com"),
            LoadKeyDerivation(f"{email}@example.com"),
        ]
    for account_id in range(1, 4):
        fixed += [
            LoadDevices(account_id),
            LoadAccountCredentials(account_id),
            LoadHistory(account_id, 100, None),
            *[LoadWallet(account_id, sequence) for sequence in (None, *range(1, 10))],
        ]
    return makers + [lambda side, it=operation: it for operation in fixed]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database, migrated once."""
    path = tmp_path_factory.mktemp("agreement") / "template.db"
    with open_database(parse_url(f"sqlite:///{path}")) as connection:
        install(connection, history_depth=DEPTH, now_ms=0)
    return path


def run_batch(connection: Connection, context: Context) -> Perform:
    def perform(operations: list[Operation[Any]]) -> list[Any]:
        with connection.begin():
            return run_operations(connection, context, operations)

    return perform


@given(batches=st.lists(st.lists(makers, min_size=1, max_size=12), min_size=1, max_size=6))
@settings(deadline=None, max_examples=40)
def test_both_stores_answer_alike(template: Path, batches: list[list[Make]]) -> None:
    clock = Clock(now_ms=0)
    context = Context(now_ms=clock, history_depth=DEPTH, token_lifetime_ms=LIFETIME_MS)
    memory = Memory(context)
    with tempfile.TemporaryDirectory() as folder:
        path = shutil.copy(template, folder)
        engine = create_store_engine(parse_url(f"sqlite:///{path}"))
        with engine.connect() as connection:
            connection.connection.execute("PRAGMA synchronous=OFF")
            left = Side(run_batch(connection, context))
            right = Side(lambda operations: [memory.perform(each) for each in operations])
            for batch in [BEGINNING, *batches]:
                clock.now_ms += 10

                assert left.run(batch) == right.run(batch)

            reading = everything_readable(len(left.tokens))
            assert left.run(reading) == right.run(reading)
            assert is_sound(connection)


def is_sound(connection: Connection) -> bool:
    """Whether every row is in the place that its content demands."""
    misplaced = "SELECT count(*) FROM versions WHERE slot <> sequence % :depth"
    holed = """
        SELECT count(*) FROM (
            SELECT max(sequence) - min(sequence) + 1 AS kept, count(*) AS there
            FROM versions GROUP BY account_id
        ) WHERE kept <> there OR kept > :depth
    """
    with connection.begin():
        found = [
            connection.execute(text(query), {"depth": DEPTH}).scalar_one()
            for query in (misplaced, holed)
        ]
        dangling = connection.execute(text("PRAGMA foreign_key_check")).all()
    return found == [0, 0] and not dangling
