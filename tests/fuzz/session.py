"""Decisions as whole sessions: every method with plausible and implausible values, in batches, on
several connections; nothing comes of it but documented answers, and every limit holds."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from tests.fuzz import grammar
from tests.fuzz.choices import Choices
from tests.fuzz.inside import (
    LIMITS,
    OURS,
    Inside,
    Line,
    close_code_of,
    masked,
    read_frames,
    require,
)
from tests.fuzz.inside import run as run_inside
from tests.wire.harness import CLOSE, TEXT
from wsschema.codec import decode_result, parse_incoming
from wsschema.errors import JSON_RPC_ERRORS, PROTOCOL_ERRORS, InternalError
from wsschema.messages import METHODS, NOTIFICATIONS
from wsschema.openrpc import errors_of
from wsserver.channel import CALLS_IN_FLIGHT_MAX, Channel
from wsserver.store.memory import Memory

STEPS_MAX: Final = 30
LINES_MAX: Final = 4
LOGIN: Final = {"email": "joe@example.com", "password": "correct horse"}
OFTEN: Final = (
    *("wallet.push", "wallet.push", "wallet.push", "wallet.push", "wallet.get", "wallet.get"),
    *("wallet.ack", "wallet.history", "device.list", "session.resume", "account.verify"),
    *("account.register", "account.requestReset", "account.reset"),
)
"""What leads on; what ends a session comes among all methods."""

OPENING: Final = ("session.login", "session.resume")

DOCUMENTED: Final = {(kind.code, kind.reason) for kind in PROTOCOL_ERRORS} | {
    (kind.code, "") for kind in JSON_RPC_ERRORS if kind is not InternalError
}
OF_METHOD: Final = {
    name: {(kind.code, kind.reason) for kind in errors_of(method)}
    for name, method in METHODS.items()
}
OF_ENVELOPE: Final = {(-32700, ""), (-32600, ""), (-32601, ""), (429, "rate_limited")}


@dataclass
class Talker:
    """One connection, what it asked and what it was told."""

    line: Line
    known: grammar.Known
    asked: Counter[str] = field(default_factory=Counter)
    """Calls that may be answered yet, by their id as JSON."""
    methods: defaultdict[str, set[str | None]] = field(default_factory=lambda: defaultdict(set))
    """What was ever called under an id; None for what is no method."""
    unreadable: int = 0
    """Messages and calls that may be answered under null."""
    read_bytes: int = 0
    live: bool = False

    def send(self, payload: bytes, choices: Choices) -> None:
        self._note(payload)
        self.line.send(*choices.cut(masked(payload)) if choices.one_in(8) else (masked(payload),))

    def _note(self, payload: bytes) -> None:
        try:
            value = orjson.loads(payload)
        except orjson.JSONDecodeError:
            self.unreadable += 1
            return
        if isinstance(value, list) and not 1 <= len(value) <= LIMITS.batch:
            self.unreadable += 1
            return
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, dict) and type(item.get("id")) in (str, int, float):
                method = item.get("method")
                key = _key(item["id"])
                self.asked[key] += 1
                self.methods[key].add(method if type(method) is str and method in METHODS else None)
            else:
                self.unreadable += 1
                # One without an id opens the session too, and nobody is told.
                opens = isinstance(item, dict) and item.get("method") in OPENING
                self.live = self.live or opens

    def read(self) -> None:
        """Checks all that came since the last time."""
        new = self.line.written[self.read_bytes :]
        self.read_bytes = len(self.line.written)
        for opcode, payload in read_frames(new):
            require(opcode in (TEXT, CLOSE), "a session sends text", opcode)
            if opcode == CLOSE:
                code = close_code_of(new)
                require(code in OURS, "a documented close code", code)
                require(b"internal error" not in payload, "nothing of ours failed", payload)
                continue
            value = orjson.loads(payload)
            require(value != [], "no empty batch is answered", payload)
            for message in value if isinstance(value, list) else [value]:
                self._read_message(message)

    def _read_message(self, message: dict[str, Any]) -> None:
        require(message.get("jsonrpc") == "2.0", "it is JSON-RPC", message)
        if "method" in message:
            require(set(message) == {"jsonrpc", "method", "params"}, "a notification", message)
            require(message["method"] in NOTIFICATIONS, "a documented one", message)
            require(self.live or message["method"] == "server.closing", "none before login")
            parse_incoming(orjson.dumps(message))
            self.known.learn_all(message["params"])
            return
        require(len(message) == 3 and "id" in message, "an answer", message)
        methods = self._take_asked(message["id"])
        if "error" in message:
            self._read_error(message["error"], methods)
        else:
            self._read_result(message["result"], methods)

    def _take_asked(self, call_id: Any) -> set[str | None]:
        """The methods that this may be the answer to; one call of that id counts as answered."""
        if call_id is None:
            self.unreadable -= 1
            require(self.unreadable >= 0, "nothing is answered twice")
            return {None}
        key = _key(call_id)
        self.asked[key] -= 1
        require(self.asked[key] >= 0, "only what was asked is answered, once", call_id)
        return self.methods[key]

    def _read_error(self, error: dict[str, Any], methods: set[str | None]) -> None:
        code, data = error["code"], error.get("data", {})
        require(type(error["message"]) is str and len(error["message"]) < 1000, "a sentence", error)
        told = (code, data["reason"] if code > 0 else "")
        require(told in DOCUMENTED, "a documented error", error)
        if None not in methods:
            may = OF_ENVELOPE.union(*(OF_METHOD[str(method)] for method in methods))
            require(told in may, "one that the method may answer", error, methods)
        if data.get("wallet") is not None:
            self.known.learn_all(data["wallet"])

    def _read_result(self, result: Any, methods: set[str | None]) -> None:
        self.live = self.live or "expiresAt" in result
        self.known.learn_all(result)
        if len(methods) == 1 and None not in methods:
            params = METHODS[str(*methods)].params
            decode_result(params.__new__(params), result)


def run(data: bytes) -> None:
    """Decisions: who says what, and when, and what else happens."""
    run_inside(lambda: _converse(Choices(data)))


def _key(call_id: Any) -> str:
    return orjson.dumps(call_id).decode()


async def _converse(choices: Choices) -> None:
    inside = Inside(choices.pick(["open", "email", "allowlist"]), limited=choices.one_in(6))
    known = grammar.Known()
    known.learn("deviceId", "laptop")
    known.learn("password", "correct horse")
    known.learn("oldPassword", "correct horse")
    talkers = [await _connect(inside, known, choices)]
    everyone = talkers[:]
    for _ in range(STEPS_MAX):
        if not choices:
            break
        await _take_a_step(choices, inside, talkers, everyone, known)
        _check_limits(inside)
    await inside.settle(*(each.line for each in everyone))
    for talker in everyone:
        talker.line.choke(False)
    await inside.settle(*(each.line for each in everyone))
    for talker in everyone:
        talker.read()
    await _check_newcomer(inside)
    inside.close(*(each.line for each in everyone))
    await inside.settle()
    require(not list(inside.engine.hub), "nobody stays in the hub", list(inside.engine.hub))
    require(not inside.engine._members, "nobody stays mounted")


async def _connect(inside: Inside, known: grammar.Known, choices: Choices) -> Talker:
    talker = Talker(await inside.open(inside.public), known)
    if not choices.one_in(6):
        device = grammar.DEVICES[choices.below(len(grammar.DEVICES))]
        params: dict[str, Any] = LOGIN | {"deviceId": device}
        if choices.below(2):
            params |= {"deliver": "state", "presence": True, "since": choices.below(3)}
        method, token = "session.login", known.recall(choices, "token")
        if token is not None and choices.below(3) == 0:
            method, params = "session.resume", {"token": token, "since": 0, "presence": True}
        wire = {"jsonrpc": "2.0", "id": "login", "method": method, "params": params}
        talker.send(orjson.dumps(wire), Choices(b""))
        if not choices.one_in(6):
            await inside.settle(talker.line)
    return talker


async def _take_a_step(
    choices: Choices,
    inside: Inside,
    talkers: list[Talker],
    everyone: list[Talker],
    known: grammar.Known,
) -> None:
    talkers[:] = [talker for talker in talkers if not talker.line.over]
    kind = choices.below(24)
    if not talkers or (kind == 0 and len(talkers) < LINES_MAX):
        talkers.append(await _connect(inside, known, choices))
        everyone.append(talkers[-1])
        return
    talker = choices.pick(talkers)
    match kind:
        case 1:
            talker.line.choke(not talker.line.choked)
        case 2:
            talker.line.lose()
        case 3:
            await inside.settle(*(each.line for each in everyone))
            for each in everyone:
                each.read()
        case 4:
            inside.clock.now_s += choices.pick([1, 20, 60])
        case 5 if choices.one_in(8):
            inside.engine.drain(lambda: 700)
        case _:
            if inside.letters:
                known.learn("token", inside.letters.pop().token or "")
            methods = OFTEN if choices.below(6) else tuple(METHODS)
            talker.send(grammar.message(choices, known, methods), choices)


def _check_limits(inside: Inside) -> None:
    for channel in inside.engine._members:
        assert isinstance(channel, Channel), "there is no gateway"
        session = channel._session
        at_most = CALLS_IN_FLIGHT_MAX + LIMITS.batch
        require(session.in_flight <= at_most, "calls in flight are bounded", session.in_flight)
        slots = session._device_slots or ()
        require(len(slots) <= 2 * LIMITS.devices, "a slot a device", len(slots))
    memory: Memory = inside.store.memory
    for account in memory.accounts.values():
        require(len(account.devices) <= LIMITS.devices, "devices are bounded")
        require(len(account.versions) <= LIMITS.history_depth, "so is the history")
        kept = sorted(account.versions)
        require(kept == [*range(kept[0], kept[-1] + 1)] if kept else True, "and has no gap", kept)


async def _check_newcomer(inside: Inside) -> None:
    """Whoever comes next is served, unless the server is about to stop."""
    line = await inside.open(inside.public)
    line.send(masked(b'{"jsonrpc":"2.0","id":"honest","method":"server.ping"}'))
    await inside.settle(line)
    told = [payload for opcode, payload in read_frames(line.written) if opcode == TEXT]
    require(len(told) == 1 and b'"result":{}' in told[0], "a newcomer is served", line.written)
    line.lose()
