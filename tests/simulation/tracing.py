"""What happened in a run, line by line: for whoever reads a failure."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

import orjson

from tests.simulation.audit import Audit
from tests.simulation.devices import App
from tests.simulation.links import Link
from tests.simulation.nodes import Node
from tests.simulation.plans import Plan
from tests.simulation.sessions import Session
from tests.simulation.world import World
from wsserver.operations import MarkSeen

_TOLD = ("sequence", "since", "epoch", "deviceId", "landed", "reason", "retryAfterMs", "online")


def trace(plan: Plan) -> tuple[list[str], Exception | None]:
    """Run the plan; gives what happened, and what it failed with."""
    lines: list[str] = []
    failure: Exception | None = None
    with contextlib.ExitStack() as patches:
        world = World(plan)

        def note(who: str, text: str) -> None:
            lines.append(f"{world.timeline.now_ms / 1000:9.3f}  {who:8} {text}")

        for kind, name, tell in _told(world, note):
            patches.enter_context(_told_before(kind, name, tell))
        try:
            world.run()
        except Exception as error:  # whatever it is, it is what is looked for
            failure = error
            lines.append(f"{world.timeline.now_ms / 1000:9.3f}  {type(error).__name__}: {error}")
    return lines, failure


@contextlib.contextmanager
def _told_before(kind: type[Any], name: str, tell: Callable[..., None]) -> Iterator[None]:
    original = getattr(kind, name)

    def told(self: Any, *args: Any, **named: Any) -> Any:
        tell(self, *args)
        return original(self, *args, **named)

    with mock.patch.object(kind, name, told):
        yield


def _told(
    world: World, note: Callable[[str, str], None]
) -> Iterator[tuple[type[Any], str, Callable[..., None]]]:
    def name_of(session: Any) -> str:
        return str(session._holder.device.name)

    def commit(_: Audit, operation: Any, answer: Any) -> None:
        if not isinstance(operation, MarkSeen):
            what = getattr(operation, "sequence", getattr(operation, "device_id", ""))
            note("store", f"{type(operation).__name__} {what} -> {_outline(answer)}")

    yield World, "_take", lambda _, step: note("*", f"{step.kind} {tuple(step)[2:]}")
    yield World, "_heal", lambda _: note("*", "all is well from here on")
    yield Audit, "note_committed", commit
    yield Node, "die", lambda node: note(f"node {world.nodes.index(node)}", "dies")
    yield App, "start", lambda app: note(app.device.name, f"starts, {_local(app)}")
    yield App, "end", lambda app: note(app.device.name, f"ends, {_local(app)}")
    yield App, "ended", lambda app, _, error: note(app.device.name, repr(error))
    yield App, "_written", lambda app, *_: note(app.device.name, f"saved, {_local(app)}")
    yield Link, "send_up", lambda link, payload: note(name_of(link.client), f"-> {_brief(payload)}")
    yield Session, "_take_in", lambda it, payload: note(name_of(it), f"<- {_brief(payload)}")
    yield Session, "lose", lambda it, _, code: note(name_of(it), f"<- closed {code}")
    yield Session, "connected", lambda it, _: note(name_of(it), "connected")


def _outline(answer: Any) -> str:
    kind = type(answer).__name__
    return f"{kind}, fresh={answer.fresh}" if hasattr(answer, "fresh") else kind


def _local(app: App) -> str:
    state = app.core.state
    base = None if state.base is None else state.base.sequence
    pushed = None if state.pushed is None else state.pushed.version.sequence
    return f"value {(state.value or b'').decode()!r} base {base} pushed {pushed}"


def _brief(payload: bytes) -> str:
    message = orjson.loads(payload)
    members: dict[str, Any] = {}
    for part in (message.get("params"), message.get("result"), message.get("error")):
        members.update(part or {})
    data = members.pop("data", None) or {}
    members.update(data)
    wallet = members.get("wallet")
    told = [f"{name}={members[name]}" for name in _TOLD if name in members]
    if isinstance(wallet, dict):
        told.append(f"wallet={wallet['sequence']}")
    method = message.get("method", "")
    return f"{message.get('id', '')} {method} {' '.join(told)}".strip()
