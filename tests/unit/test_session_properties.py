"""Sessions of one account through a hub, in any interleaving: what must hold whatever happens.

Reads, commits and answers come in any order that the store's lanes allow: writes are committed in
the order in which they were asked for, and answered in the order of their commits; a read happens
at any moment and is answered at any later one.
"""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from tests.unit.world import EMAIL, KDF_JSON, SEED, Job, Peer, World, make_call

DEVICES = ("phone", "laptop", "tablet")
OPENING = ("session.login", "session.resume")
ENDING = ("session.logout", "account.delete", "account.changePassword", "device.revoke")

peer_indexes = st.integers(0, 7)
device_ids = st.sampled_from(DEVICES)
openings = st.fixed_dictionaries(
    {"deliver": st.sampled_from(["sequence", "state"]), "presence": st.booleans()},
    optional={"since": st.integers(0, 5)},
)


class Witness:
    """Reads what one peer is sent, message by message, and checks it against what came before."""

    def __init__(self, peer: Peer) -> None:
        self.peer = peer
        self.asked: dict[int, tuple[str, dict[str, Any]]] = {}
        self.answered: set[int] = set()
        self.known = 0
        """The newest sequence that the peer was told of or given."""
        self.told = 0
        self.opened = False
        self.over = False
        self.online: dict[str, bool] = {}
        self.is_slow = False
        """Whether it is yet to be told that it caught up."""
        self._read = 0
        self._was_revoked = False

    def ask(self, *calls: tuple[str, dict[str, Any]], with_id: bool = True) -> None:
        """Send a call, or several as a batch."""
        messages = []
        for method, params in calls:
            call_id = len(self.asked) + 1
            message = make_call(method, call_id, **params)
            if with_id:
                self.asked[call_id] = (method, params)
            else:
                del message["id"]
            messages.append(message)
        self.peer.send(messages if len(messages) > 1 else messages[0])

    def catch_up(self) -> None:
        self.is_slow = False
        self.peer.caught_up()

    def check(self) -> None:
        """What came since the last time."""
        for message in self.peer.inbox[self._read :]:
            assert not self.over, "nothing comes after session.revoked"
            if isinstance(message, list):
                self._check_answers(message)
            elif "method" in message:
                self._check_notification(message["method"], message["params"])
            else:
                self._check_answers([message])
        self._read = len(self.peer.inbox)
        self._was_revoked = bool(self.peer.revocations)
        assert not self.over or self.peer.close_code == 4401

    def _check_answers(self, answers: list[dict[str, Any]]) -> None:
        told = self.told
        for answer in answers:
            call_id = answer["id"]
            assert call_id in self.asked, "only a call with an id is answered"
            assert call_id not in self.answered, "it is answered once"
            self.answered.add(call_id)
            method, params = self.asked[call_id]
            if method in OPENING and "result" in answer:
                self.opened = True
                self.told = answer["result"]["sequence"]
            data = answer.get("error", {}).get("data", {})
            given = (answer.get("result") or data.get("wallet") or {}).get("sequence", 0)
            reason = data.get("reason", "no_wallet")
            if method == "wallet.get" and not params and reason == "no_wallet":
                assert given >= told, "a get is not behind what was told"
            self.known = max(self.known, given)

    def _check_notification(self, method: str, params: dict[str, Any]) -> None:
        assert self.opened, "nothing comes before the answer to login or resume"
        assert method == "session.revoked" or not self._was_revoked, "no news without a token"
        if method == "wallet.updated":
            own = str(self.peer.connection_id)
            assert params["hmac"] != own, "an author hears nothing of its own push"
            assert params["sequence"] > self.told, "sequences rise"
            assert params["sequence"] >= self.known, "nothing older comes after what was given"
            self.told = self.known = params["sequence"]
        elif method == "device.updated":
            assert params["deviceId"] != self.peer.device_id, "a device hears nothing of itself"
            self.online[params["deviceId"]] = params["online"]
        elif method == "session.revoked":
            self.over = True
            assert params["reason"] == self.peer.revocations[0], "the first reason counts"
            waiting = {*self.asked} - self.answered
            assert not any(self.asked[call_id][0] in ENDING for call_id in waiting), "answers first"


class Sessions(RuleBasedStateMachine):
    """One account, three devices, up to eight connections."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World(history_depth=3)
        self.account = self.world.store.add_account()
        self.witnesses: list[Witness] = []
        self.tokens: list[str] = ["0" * 64]
        self.committed: list[Job] = []
        self.read: list[Job] = []

    # Connections.

    @property
    def password(self) -> str:
        return self.account.password.digest.decode()

    def connect(self) -> Witness:
        witness = Witness(self.world.connect())
        self.witnesses.append(witness)
        return witness

    def pick(self, index: int) -> Witness:
        """One of those that are connected."""
        open_ = [witness for witness in self.witnesses if witness.peer.closed is None]
        return open_[index % len(open_)] if open_ else self.connect()

    @initialize()
    def begin(self) -> None:
        for device_id in DEVICES[:2]:
            self.log_in(device_id, {"deliver": "sequence", "presence": True}, False)
        self.settle()

    @rule(device_id=device_ids, params=openings, in_batch=st.booleans())
    def log_in(self, device_id: str, params: dict[str, Any], in_batch: bool) -> None:
        if len(self.witnesses) < 12:
            params = {"email": EMAIL, "password": self.password, "deviceId": device_id} | params
            self.open("session.login", params, in_batch)

    @rule(token=st.integers(0, 99), params=openings, in_batch=st.booleans())
    def resume(self, token: int, params: dict[str, Any], in_batch: bool) -> None:
        if len(self.witnesses) < 12:
            token_index = max(0, len(self.tokens) - 1 - token)
            self.open("session.resume", {"token": self.tokens[token_index]} | params, in_batch)

    def open(self, method: str, params: dict[str, Any], in_batch: bool) -> None:
        others = [("account.prelogin", {"email": EMAIL})] if in_batch else []
        self.connect().ask((method, params), *others)

    @rule(
        peer=peer_indexes, change=st.sampled_from(["congested", "read, not told yet", "caught up"])
    )
    def read_slowly_or_not(self, peer: int, change: str) -> None:
        witness = self.pick(peer)
        witness.peer.congested = change == "congested"
        witness.is_slow = witness.is_slow or change == "congested"
        if change == "caught up":
            witness.catch_up()

    # Calls.

    @rule(peer=peer_indexes, ahead=st.sampled_from([1, 1, 1, 0, -1, 2]))
    def push(self, peer: int, ahead: int) -> None:
        witness = self.pick(peer)
        witness.ask(self.make_push(witness, ahead))

    def make_push(self, witness: Witness, ahead: int) -> tuple[str, dict[str, Any]]:
        sequence = max(1, self.account.sequence + ahead)
        hmac = str(witness.peer.connection_id)
        return "wallet.push", {"sequence": sequence, "encryptedWallet": "wallet", "hmac": hmac}

    @rule(peer=peer_indexes)
    def retry_the_latest_push(self, peer: int) -> None:
        head = self.account.head
        if head is not None:
            wallet = {"encryptedWallet": head.encrypted_wallet, "hmac": head.hmac}
            self.pick(peer).ask(("wallet.push", {"sequence": head.sequence} | wallet))

    @rule(peer=peer_indexes, sequence=st.sampled_from([None, None, None, 1, 2, 3]))
    def get(self, peer: int, sequence: int | None) -> None:
        params = {} if sequence is None else {"sequence": sequence}
        self.pick(peer).ask(("wallet.get", params))

    @rule(peer=peer_indexes, sequence=st.integers(1, 6), with_id=st.booleans())
    def acknowledge(self, peer: int, sequence: int, with_id: bool) -> None:
        self.pick(peer).ask(("wallet.ack", {"sequence": sequence}), with_id=with_id)

    @rule(peer=peer_indexes, kinds=st.lists(st.integers(0, 9), min_size=2, max_size=4))
    def send_batch(self, peer: int, kinds: list[int]) -> None:
        witness = self.pick(peer)
        choices: tuple[tuple[str, dict[str, Any]], ...] = (
            ("session.logout", {}),
            ("server.ping", {}),
            ("wallet.history", {}),
            ("device.list", {}),
            self.make_push(witness, 1),
            self.make_push(witness, 1),
        )
        get: tuple[str, dict[str, Any]] = ("wallet.get", {})
        witness.ask(*[choices[kind] if kind < len(choices) else get for kind in kinds])

    # Ends. One rule for all, or most sessions would be short.

    @precondition(lambda self: len(self.witnesses) > 2)
    @rule(
        peer=peer_indexes,
        kind=st.sampled_from(
            [
                "drop",
                "drop",
                "drain",
                "logout",
                "revoke",
                "change",
                "try to delete",
                "try to delete",
            ]
        ),
        device_id=device_ids,
    )
    def end(self, peer: int, kind: str, device_id: str) -> None:
        witness = self.pick(peer)
        match kind:
            case "drop":
                witness.peer.drop()
                witness.peer.closed = (1006, "lost")
            case "drain":
                witness.peer.drain()
            case "logout":
                witness.ask(("session.logout", {}))
            case "revoke":
                witness.ask(("device.revoke", {"deviceId": device_id}))
            case "change":
                witness.ask(("account.changePassword", self.make_change()))
            case "try to delete":
                witness.ask(("account.delete", {"password": "not the password"}))

    def make_change(self) -> dict[str, Any]:
        params: dict[str, Any] = {
            "oldPassword": self.password,
            "newPassword": f"{self.password} and more",
            "clientSaltSeed": SEED,
            "kdf": KDF_JSON,
        }
        if self.account.sequence:
            sequence = self.account.sequence + 1
            params["wallet"] = {"sequence": sequence, "encryptedWallet": "wallet", "hmac": "new"}
        return params

    # Time.

    def is_reading(self) -> bool:
        return any(not job.operation.writes for job in self.world.jobs)

    def is_writing(self) -> bool:
        return any(job.operation.writes for job in self.world.jobs)

    def perform(self, job: Job) -> None:
        self.world.jobs.remove(job)
        (self.committed if job.operation.writes else self.read).append(job.perform())

    @precondition(is_writing)
    @rule()
    def commit(self) -> None:
        self.perform(next(job for job in self.world.jobs if job.operation.writes))

    @precondition(is_reading)
    @rule(index=st.integers(0, 9))
    def perform_a_read(self, index: int) -> None:
        jobs = [job for job in self.world.jobs if not job.operation.writes]
        self.perform(jobs[index % len(jobs)])

    @precondition(lambda self: self.committed)
    @rule()
    def answer_a_write(self) -> None:
        job = self.committed.pop(0)
        self.tokens += [token for token in [getattr(job.result, "token", None)] if token]
        job.answer()

    @precondition(lambda self: self.read)
    @rule(index=st.integers(0, 9))
    def answer_a_read(self, index: int) -> None:
        self.read.pop(index % len(self.read)).answer()

    @rule()
    def settle(self) -> None:
        while self.world.jobs or self.committed or self.read:
            while self.committed:
                self.answer_a_write()
            while self.read:
                self.answer_a_read(0)
            if self.world.jobs:
                self.perform(self.world.jobs[0])

    # What must hold.

    @invariant()
    def what_each_peer_is_sent_is_in_order(self) -> None:
        for witness in self.witnesses:
            witness.check()

    @invariant()
    def whoever_is_over_is_not_in_the_hub(self) -> None:
        for listener in self.world.hub:
            assert isinstance(listener, Peer)
            assert listener.closed is None

    def teardown(self) -> None:
        self.settle()
        for witness in self.witnesses:
            if witness.is_slow and witness.peer.closed is None:
                witness.catch_up()
        online = self.world.hub.find_online(self.account.account_id)
        for witness in self.witnesses:
            witness.check()
            if witness.peer.closed is None:
                assert witness.answered == {*witness.asked}, "every call with an id is answered"
                assert witness.peer.session.in_flight == 0
            if witness.peer.closed is None and witness.opened:
                assert witness.known == self.account.sequence, "nobody misses the newest"
                for device_id, is_online in witness.online.items():
                    assert is_online == (device_id in online), "the last word of presence is true"


Sessions.TestCase.settings = settings(
    derandomize=True,
    deadline=None,
    max_examples=150,
    stateful_step_count=70,
    suppress_health_check=list(HealthCheck),
)
TestSessions = Sessions.TestCase
