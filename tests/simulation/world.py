"""A run: devices, nodes and a database, what happens to them, and what must hold in the end."""

from __future__ import annotations

import base64
import functools
import hashlib
import logging
from collections.abc import Callable
from random import Random

from tests.simulation import marks
from tests.simulation.audit import Audit, Violation
from tests.simulation.bus import Bus
from tests.simulation.database import Database
from tests.simulation.devices import Device
from tests.simulation.links import KEEPALIVE_MS, Link
from tests.simulation.nodes import Node, hash_of
from tests.simulation.plans import AFTER_A_PUSH, DEVICES, IN_A_PASSWORD_CHANGE, NODES, Plan, Step
from tests.simulation.sessions import Session
from tests.simulation.timeline import Timeline
from wsclient.crypto import Keys
from wsschema.limits import Limits
from wsschema.messages import (
    AnnouncedLimits,
    GetHistory,
    GetWallet,
    Kdf,
    ListDevices,
    Logout,
    Ping,
    RevokeDevice,
    ServerInfo,
)
from wsserver.gate import Gate, GateLimits
from wsserver.operations import CreateAccount
from wsserver.session import ServerFacts
from wsserver.throttle import Rate

# A failure is told by what it breaks; its line in the log would be told to nobody.
logging.getLogger("wsserver").addHandler(logging.NullHandler())

EMAIL = "joe@example.com"
KDF = Kdf.scrypt(2**14)
EVENTS_MIN = 200
EVENTS_MAX = 50_000
"""More than any run takes that comes to rest."""
RESTS_MAX = 8
"""How often devices that have stopped are brought back in the end, before that counts as failed."""
DRAIN_MS = 2000.0
LIMITS = Limits(devices=5)
FAST_MS = 300.0
LAST_MS = 3000.0


class World:
    """One run of a plan."""

    alive = True

    def __init__(self, plan: Plan) -> None:
        setting = plan.setting
        self.plan = plan
        self.email = EMAIL
        self.timeline = Timeline()
        self.audit = Audit(setting.history_depth, LIMITS.devices)
        self.database = Database(self.timeline, self.audit, setting.history_depth, setting.store_ms)
        self._seed = plan.seed
        self._randoms = 0
        self._random = self.new_random()
        self.bus = Bus(
            self.timeline,
            self.database,
            self.new_random(),
            loses=setting.bus_loses,
            doubles=setting.bus_doubles,
        )
        self._passwords: dict[str, str] = {}
        """Every root password that there was, by the seed of its keys."""
        self._create_account()
        self._backup = self.database.back_up()
        self.nodes = [self._start_node() for _ in range(NODES)]
        self.bus.nodes = self.nodes
        self.devices = [self._make_device(number) for number in range(DEVICES)]

    def new_random(self) -> Random:
        """A source of chance of one's own, so that others' draws don't change one's luck."""
        self._randoms += 1
        return Random(self._seed * 4096 + self._randoms)

    # How it begins.

    def _create_account(self) -> None:
        root_password, seed = self.make_password()
        keys = self.derive_keys(root_password, seed, KDF)
        password = hash_of(keys.password)
        self.database.memory.perform(CreateAccount(EMAIL, password, seed, KDF, verified=True))

    def _start_node(self) -> Node:
        facts = make_facts(self.plan, self.timeline)
        return Node(facts, self.timeline, self.database, self.bus, self.new_random())

    def _make_device(self, number: int) -> Device:
        setting = self.plan.setting
        random = self.new_random()
        device = Device(
            self,
            f"d{number}",
            random,
            deliver="state" if random.random() < 0.7 else "sequence",
            presence=random.random() < 0.7,
            receipt=random.random() < 0.7,
            debounce_ms=setting.debounce_ms,
            merge_ms=setting.merge_ms,
            save_ms=setting.save_ms,
        )
        self.timeline.after(random.random() * 500, self, device.start)
        return device

    # What devices have around them.

    def connect(self, device: Device, session: Session) -> None:
        setting = self.plan.setting
        if device.random.random() < 0.3 or not self.nodes[device.node].alive:
            device.node = int(device.random.random() * NODES)
        if setting.one_node and self.nodes[0].alive:
            device.node = 0
        delay_ms = setting.latency_ms * device.random.random()
        self.timeline.after(delay_ms, self, self._accept, device, session)

    def _accept(self, device: Device, session: Session) -> None:
        setting, node = self.plan.setting, self.nodes[device.node]
        if not node.alive:
            session.refused()
            return
        link = Link(
            self.timeline,
            node,
            session,
            self.new_random(),
            latency_ms=setting.latency_ms,
            window=setting.window,
        )
        node.accept(link)
        if not link.closing:
            session.connected(link)

    def derive_keys(self, root_password: str, client_salt_seed: str, kdf: Kdf) -> Keys:
        return derive_keys(root_password, client_salt_seed, kdf)

    def make_password(self) -> tuple[str, str]:
        number = len(self._passwords) + 1
        seed, root_password = f"{number:064x}", f"password {number}"
        self._passwords[seed] = root_password
        return root_password, seed

    def tell_password(self) -> str:
        (account,) = self.database.memory.accounts.values()
        return self._passwords[account.derivation.client_salt_seed]

    # The run.

    def run(self) -> None:
        """From the first step to rest, and on from there; raises Violation."""
        for step in self.plan.steps:
            self.timeline.at(step.at_ms, self, self._take, step)
        ends_ms = max((step.at_ms for step in self.plan.steps), default=0)
        # Until then what was done last has time to go wrong, too.
        self.timeline.at(ends_ms + LAST_MS * self._random.random(), self, self._heal)
        self._come_to_rest()
        # Whatever has happened, it goes on.
        while True:
            for device in self.devices:
                assert device.app is not None, "at rest everybody is there"
                device.app.change()
            self._come_to_rest()
            if self.timeline.events >= EVENTS_MIN:
                break

    def _come_to_rest(self) -> None:
        self._go_on()
        for _ in range(RESTS_MAX):
            stopped = [one for one in self.devices if one.app is None or one.app.stopped]
            if not stopped:
                break
            for device in stopped:
                device.stop()
                device.start()
            self._go_on()
        self.check_rest()

    def _go_on(self) -> None:
        step = self.timeline.step
        while step():
            if self.timeline.events > EVENTS_MAX:
                raise Violation("rest", f"no rest after {EVENTS_MAX:,} events")

    def _take(self, step: Step) -> None:
        STEPS[step.kind](self, step)

    def _heal(self) -> None:
        """Nothing goes wrong from here on."""
        self.bus.loses = self.bus.doubles = 0.0
        self.database.fails_until_ms = self.database.slow_until_ms = 0.0
        self.database.trap = None
        for number, node in enumerate(self.nodes):
            if not node.alive:
                self.nodes[number] = self._start_node()
        for device in self.devices:
            device.trap = None
            self._read(device, True)
            device.start()

    def check_rest(self) -> None:
        """Nothing happens any more: everybody has everything."""
        (account,) = self.database.memory.accounts.values()
        head = account.head
        wallet = None if head is None else self.audit.made[head.hmac]
        for device in self.devices:
            app = device.app
            if app is None or app.stopped is not None:
                stopped = None if app is None else app.stopped
                raise Violation("rest", f"{device.name} has stopped: {stopped!r}")
            if not app.online or app.session is None or not app.session.live:
                raise Violation("rest", f"{device.name} is not connected")
            if len(app.session):
                raise Violation("rest", f"{device.name} waits for an answer")
            if app.core.state.value != wallet or app.core.sequence != account.sequence:
                raise Violation(
                    "converge",
                    f"{device.name} has {app.core.sequence}, the server {account.sequence}",
                )
            missing = device.made.difference(marks.read(wallet))
            if missing:
                raise Violation("lost", f"the wallet lacks {sorted(missing)} of {device.name}")
            applied = account.devices[device.name].record.applied_sequence
            if applied != account.sequence:
                raise Violation("converge", f"{device.name} is said to have applied {applied}")
        self._check_hubs(account.account_id)

    def _check_hubs(self, account_id: int) -> None:
        for node in self.nodes:
            online = node.hub.find_online(account_id)
            for device in self.devices:
                assert device.app is not None
                assert device.app.session is not None
                link = device.app.session.link
                here = link is not None and link.process is node
                if here != (device.name in online):
                    raise Violation("presence", f"{device.name} is online at a node: {not here}")
                if not here:
                    continue
                for name, was_online in device.app.session.online.items():
                    if was_online != (name in online):
                        raise Violation("presence", f"{device.name} was told wrongly of {name}")

    # What happens.

    def _now_or_later(self, step: Step, happen: Callable[[], None]) -> None:
        device = self.devices[step.who]
        if not step.choice & AFTER_A_PUSH:
            happen()
            return
        device.trap = happen
        device.trap_waits_for_change = bool(step.choice & IN_A_PASSWORD_CHANGE)
        if device.trap_waits_for_change and device.app is not None:
            device.app.change_password()

    def _link(self, device: Device) -> Link | None:
        session = None if device.app is None else device.app.session
        return None if session is None else session.link

    def _read(self, device: Device, reading: bool) -> None:
        link = self._link(device)
        if link is not None:
            link.read(reading)

    def _edit(self, step: Step) -> None:
        app = self.devices[step.who].app
        if app is not None:
            app.change()

    def _cut(self, step: Step) -> None:
        """``choice``: which directions, and who finds out at once."""
        device = self.devices[step.who]
        up, down = ((True, True), (False, True), (False, True), (True, False))[step.choice % 4]
        late_ms = min(step.ms, KEEPALIVE_MS)

        def cut() -> None:
            link = self._link(device)
            if link is not None:
                link.cut(
                    up=up,
                    down=down,
                    server_ms=late_ms if step.choice & 4 else FAST_MS * self._random.random(),
                    client_ms=late_ms if step.choice & 8 else FAST_MS * self._random.random(),
                )

        self._now_or_later(step, cut)

    def _slow_reader(self, step: Step) -> None:
        device = self.devices[step.who]
        self._read(device, False)
        self.timeline.after(step.ms, self, self._read, device, True)

    def _crash_app(self, step: Step) -> None:
        """``choice``: whether the other end hears of it, and what was sent before."""
        device = self.devices[step.who]

        def crash() -> None:
            link = self._link(device)
            if link is not None:
                late_ms = KEEPALIVE_MS if step.choice & 1 else FAST_MS * self._random.random()
                link.cut(up=bool(step.choice & 2), down=True, server_ms=late_ms, client_ms=0)
            device.stop()
            self.timeline.after(step.ms, self, device.start)

        self._now_or_later(step, crash)

    def _close_app(self, step: Step) -> None:
        device = self.devices[step.who]
        device.stop()
        self.timeline.after(step.ms, self, device.start)

    def _lose_disk(self, step: Step) -> None:
        device = self.devices[step.who]
        device.lose_disk()
        self.timeline.after(step.ms, self, device.start)

    def _crash_node(self, step: Step) -> None:
        """``choice``: which one, or the one that commits next; and whether its clients hear."""
        loudly = bool(step.choice & 4)
        if step.choice & AFTER_A_PUSH:
            self.database.trap = lambda process: self._end_node(
                [node is process for node in self.nodes].index(True), step.ms, loudly=loudly
            )
        else:
            self._end_node(step.choice % NODES, step.ms, loudly=loudly)

    def _end_node(self, number: int, ms: float, *, loudly: bool) -> None:
        node = self.nodes[number]
        if not node.alive:
            return
        node.die()
        for link in node.links:
            link.lose_node(FAST_MS * self._random.random() if loudly else KEEPALIVE_MS)
        for other in self.nodes:
            if other.alive:
                # It may have died between a commit and telling of it.
                self.bus.tell_of_gap(other)
        self.timeline.after(ms, self, self._restart_node, number)

    def _restart_node(self, number: int) -> None:
        if not self.nodes[number].alive:
            self.nodes[number] = self._start_node()

    def _drain_node(self, step: Step) -> None:
        number = step.choice % NODES
        node = self.nodes[number]
        if node.alive:
            node.drain(lambda: 100 + step.ms // 10)
            self.timeline.after(DRAIN_MS, self, self._stop_drained, node, number)

    def _stop_drained(self, node: Node, number: int) -> None:
        node.send_away()
        if self.nodes[number] is node:
            self._end_node(number, 500.0, loudly=True)

    def _store_fails(self, step: Step) -> None:
        self.database.fails_until_ms = self.timeline.now_ms + step.ms

    def _store_hangs(self, step: Step) -> None:
        self.database.slow_until_ms = self.timeline.now_ms + step.ms

    def _change_password(self, step: Step) -> None:
        app = self.devices[step.who].app
        if app is not None:
            app.change_password()

    def _revoke(self, step: Step) -> None:
        app = self.devices[step.who].app
        if app is not None:
            app.call(RevokeDevice(self.devices[step.choice % DEVICES].name))

    def _log_out(self, step: Step) -> None:
        app = self.devices[step.who].app
        if app is not None:
            app.call(Logout())

    def _ask(self, step: Step) -> None:
        app = self.devices[step.who].app
        if app is not None:
            calls = (GetWallet(), ListDevices(), GetHistory(), Ping(), GetWallet(1 + step.ms % 9))
            app.call(calls[step.choice % len(calls)])

    def _back_up(self, step: Step) -> None:
        self._backup = self.database.back_up()

    def _restore(self, step: Step) -> None:
        """``choice``: whether tokens are kept, and clients hear of it."""

        def restore() -> None:
            for number in range(NODES):
                self._end_node(number, step.ms, loudly=bool(step.choice & 4))
            self.database.restore(self._backup, keep_tokens=bool(step.choice & 3))

        self._now_or_later(step, restore)


STEPS: dict[str, Callable[[World, Step], None]] = {
    "edit": World._edit,
    "cut": World._cut,
    "slow reader": World._slow_reader,
    "crash app": World._crash_app,
    "close app": World._close_app,
    "lose disk": World._lose_disk,
    "crash node": World._crash_node,
    "drain node": World._drain_node,
    "store fails": World._store_fails,
    "store hangs": World._store_hangs,
    "change password": World._change_password,
    "revoke": World._revoke,
    "log out": World._log_out,
    "ask": World._ask,
    "back up": World._back_up,
    "restore": World._restore,
}


@functools.cache
def derive_keys(root_password: str, client_salt_seed: str, kdf: Kdf) -> Keys:
    """Keys that cost nothing, each set its own."""
    okm = hashlib.sha512(f"{root_password}:{client_salt_seed}".encode()).digest()
    password = base64.b64encode(okm[:24]).decode()
    return Keys(EMAIL, password, okm[:32], okm[32:], kdf)


def make_facts(plan: Plan, timeline: Timeline) -> ServerFacts:
    limits = Limits(history_depth=plan.setting.history_depth, devices=LIMITS.devices)
    gate_limits = GateLimits()
    if plan.setting.tight_gate:
        gate_limits = GateLimits(
            message_rate=Rate(per_s=4, burst=8), credential_call_rate=Rate(per_s=1, burst=4)
        )
    return ServerFacts(
        info=ServerInfo(
            "simulated",
            "0",
            1,
            (),
            "open",
            AnnouncedLimits(
                limits.wallet_bytes,
                limits.message_bytes,
                limits.anonymous_message_bytes,
                limits.history_depth,
                limits.batch,
                limits.devices,
            ),
        ),
        document={},
        limits=limits,
        allowlist=frozenset(),
        decoy_key=b"decoy",
        gate=Gate(gate_limits, enabled=True, clock=lambda: timeline.now_s),
    )


def run(plan: Plan) -> World:
    """Run the plan to its end; raises Violation."""
    world = World(plan)
    world.run()
    return world
