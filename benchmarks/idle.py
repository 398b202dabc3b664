"""What an idle, authenticated session costs the server in memory.

    python -m benchmarks.idle [--sessions 5000 10000 15000] [--wait-s 120] [--tls-sessions 2000]

What is told is the growth of the server's resident memory; the kernel's socket buffers are not in
it. Linux only. Each session takes a descriptor here and one there: see `ulimit -n`.
"""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
import time
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from benchmarks.common import BenchmarkServer, gather_bounded, make_token, provision, start_server
from benchmarks.load import Session, drop_all
from benchmarks.scenario import Bench, Scenario, run_alone

AT_ONCE = 50
KINDS = ("plain", "TLS in the process")
TELL_EVERY_S = 5.0


@dataclass(frozen=True)
class Plan:
    """``wait_s`` with ``target_sessions``, ``settle_s`` with each other number.

    ``warm_up`` sessions come and go first, so that what the first ones cost is not counted.
    """

    sessions: tuple[int, ...] = (5000, 10_000, 15_000)
    target_sessions: int = 10_000
    tls_sessions: int = 2000
    warm_up: int = 200
    settle_s: float = 5.0
    wait_s: float = 120.0


SMOKE = Plan(
    sessions=(10, 20), target_sessions=20, tls_sessions=10, warm_up=5, settle_s=0.1, wait_s=0.2
)


async def measure(plan: Plan, bench: Bench) -> None:
    """More and more sessions on one server; while they wait, some with TLS on another."""
    url = bench.make_database("idle")
    provision(url, max(plan.sessions))
    clients: list[Session] = []
    with start_server(bench.folder, url) as server:
        before = await warm_up(plan, server)
        for count in sorted(plan.sessions):
            bench.tell(f"{count:,} sessions")
            clients += await open_sessions(server, len(clients) + 1, count)
            opened_s = time.monotonic()
            is_target = count == plan.target_sessions
            if is_target and plan.tls_sessions:
                # While these wait: the other server has memory of its own.
                await measure_tls(plan, bench)
            ends_s = opened_s + (plan.wait_s if is_target else plan.settle_s)
            while (left_s := ends_s - time.monotonic()) > 0:
                bench.tell(f"{count:,} sessions, {left_s:.0f} s to wait")
                await asyncio.sleep(min(TELL_EVERY_S, left_s))
            each = note_memory(bench, KINDS[0], server, before, clients, opened_s)
            if is_target:
                bench.add_measure("idle", each)
        await drop_all(clients)


async def measure_tls(plan: Plan, bench: Bench) -> None:
    """The same with TLS in the server's process."""
    url = bench.make_database("tls")
    provision(url, plan.tls_sessions)
    certificate, key = make_certificate(bench.folder)
    trusting = ssl.create_default_context(cafile=str(certificate))
    flags = (f"--tls-cert={certificate}", f"--tls-key={key}")
    (bench.folder / "tls").mkdir()
    with start_server(bench.folder / "tls", url, *flags) as server:
        before = await warm_up(plan, server, trusting)
        bench.tell(f"{plan.tls_sessions:,} sessions with TLS")
        clients = await open_sessions(server, 1, plan.tls_sessions, trusting)
        opened_s = time.monotonic()
        await asyncio.sleep(plan.settle_s)
        note_memory(bench, KINDS[1], server, before, clients, opened_s)
        await drop_all(clients)


async def warm_up(plan: Plan, server: BenchmarkServer, tls: ssl.SSLContext | None = None) -> int:
    """The server's memory once sessions have come and gone."""
    await drop_all(await open_sessions(server, 1, min(plan.warm_up, *plan.sessions), tls))
    await asyncio.sleep(plan.settle_s)
    return server.read_rss_bytes()


async def open_sessions(
    server: BenchmarkServer, first: int, last: int, tls: ssl.SSLContext | None = None
) -> list[Session]:
    """A session of each account."""

    async def open_session(number: int) -> Session:
        session = Session()
        await session.connect(server.port, tls)
        await session.resume(make_token(first - 1 + number), since=0)
        return session

    return await gather_bounded(last + 1 - first, AT_ONCE, open_session)


def note_memory(
    bench: Bench,
    kind: str,
    server: BenchmarkServer,
    before: int,
    clients: list[Session],
    opened_s: float,
) -> float:
    """Note what the sessions take, and give it for each."""
    now = server.read_rss_bytes()
    each = (now - before) / len(clients)
    for client in clients:
        bench.faults += client.faults
    bench.add_row(
        "memory of the server",
        {
            "": kind,
            "sessions": len(clients),
            "s after": round(time.monotonic() - opened_s),
            "MiB before": before / 2**20,
            "MiB with them": now / 2**20,
            "bytes each": round(each),
        },
    )
    return each


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Files with a certificate for 127.0.0.1 that has signed itself, and with its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "benchmark")])
    now = datetime.datetime.now(datetime.UTC)
    addresses = [
        x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
        x509.DNSName("localhost"),
    ]
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        .add_extension(x509.BasicConstraints(True, None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "tls.pem", folder / "tls.key"
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(signed.public_bytes(pem))
    paths[1].write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return paths


SCENARIO = Scenario(
    "idle", "Memory of idle, authenticated sessions.", measure, Plan(), SMOKE, expected_s=150
)

if __name__ == "__main__":
    run_alone(SCENARIO)
