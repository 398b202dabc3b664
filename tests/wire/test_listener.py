import asyncio
import contextlib
import datetime
import ipaddress
import os
import resource
import socket
import ssl as tls
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from websockets.asyncio.client import connect

from tests.wire.harness import TEXT, Client, Echo, eventually, frame, serving
from wsserver.transport import Listener, TransportLimits

LIMITS = TransportLimits(message_bytes_max=1_000_000)


def listener() -> Listener:
    return Listener(limits=LIMITS, application=Echo, respond=lambda request: None)


async def echo(port: int) -> Client:
    client = await Client.connect(port)
    await client.upgrade()
    client.send(frame(TEXT, b"hello"))
    assert await client.read_text() == b"hello"
    return client


async def test_once_it_stops_accepting_newcomers_are_refused_and_the_rest_stay() -> None:
    async with serving() as server:
        client = await server.open()
        server.listener.stop_accepting()
        server.listener.stop_accepting()

        with pytest.raises(ConnectionRefusedError):
            await server.connect()
        client.send(frame(TEXT, b"still here"))
        assert await client.read_text() == b"still here"


async def test_close_says_goodbye_and_is_done_when_all_have_left() -> None:
    async with serving() as server:
        client, requesting = await server.open(), await server.connect()
        await eventually(lambda: len(server.listener._openings) == 1)
        closing = asyncio.create_task(server.listener.close())

        assert await client.read_close() == 1001
        assert await requesting.is_cut_off()
        assert not closing.done()
        client.writer.close()
        await asyncio.wait_for(closing, 10)
        assert not server.listener.connections
        assert server.application.times_lost == 1


async def test_close_drops_who_does_not_leave_in_time() -> None:
    async with serving() as server:
        await server.open()
        await asyncio.wait_for(server.listener.close(timeout_s=0.01), 10)

        assert not server.listener.connections
        assert server.application.times_lost == 1


async def test_close_abandons_answers_that_are_awaited() -> None:
    cancelled = asyncio.Event()

    async def never() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    async with serving(respond=lambda request: never()) as server:
        client = await server.connect()
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        await eventually(lambda: server.listener._answering)
        await asyncio.wait_for(server.listener.close(), 10)

        assert cancelled.is_set()
        assert await client.is_cut_off()


async def test_a_listener_without_connections_closes_at_once() -> None:
    unused = listener()
    await unused.start()

    await asyncio.wait_for(unused.close(timeout_s=60), 10)


async def test_inherited_sockets_are_listened_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as inherited:
        heir = listener()
        port = await heir.start(sockets=[inherited])

        assert port == inherited.getsockname()[1]
        client = await echo(port)
        client.drop()
        await heir.close()


async def test_every_address_of_a_host_has_the_same_port() -> None:
    both = listener()
    port = await both.start("localhost", 0)

    client = await echo(port)
    client.drop()
    await both.close()


async def test_a_port_that_is_taken_is_an_error() -> None:
    async with serving() as server:
        with pytest.raises(OSError, match="in use"):
            await listener().start("127.0.0.1", server.port)


async def test_a_process_out_of_descriptors_serves_again_once_it_has_some() -> None:
    async with serving() as server:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        client = socket.socket()
        client.setblocking(False)
        used = max(int(name) for name in os.listdir("/proc/self/fd")) + 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (used, hard))
        filler = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    filler.append(os.open(os.devnull, os.O_RDONLY))
            with contextlib.suppress(BlockingIOError):
                client.connect(("127.0.0.1", server.port))
            await asyncio.sleep(0.2)
        finally:
            for descriptor in filler:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            client.close()

        served = await server.open()
        served.send(frame(TEXT, b"hello"))
        assert await served.read_text() == b"hello"


@pytest.fixture(scope="module")
def server_certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for 127.0.0.1 with its key, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
    return path


def tls_contexts(certificate: Path) -> tuple[tls.SSLContext, tls.SSLContext]:
    ours = tls.SSLContext(tls.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate)
    return ours, tls.create_default_context(cafile=str(certificate))


async def test_over_tls_a_stock_client_talks_and_parts_in_order(server_certificate: Path) -> None:
    ours, theirs = tls_contexts(server_certificate)
    async with (
        serving(ssl=ours) as server,
        connect(f"wss://127.0.0.1:{server.port}/v1", ssl=theirs) as client,
    ):
        await client.send("x" * 10_000)
        assert await client.recv() == "x" * 10_000
        await asyncio.wait_for(client.close(4000, "bye"), 10)

        assert client.close_code == 4000
        await eventually(lambda: server.application.times_lost)


async def test_over_tls_bad_input_is_told_its_code(server_certificate: Path) -> None:
    ours, theirs = tls_contexts(server_certificate)
    async with serving(ssl=ours, anonymous_message_bytes_max=1000) as server:
        client = await server.open(ssl=theirs)
        client.send(frame(TEXT, bytes(1_000_000)))
        assert await client.read_close() == 1009

        await server.pass_time(8)
        client.drop()
        await eventually(lambda: server.application.times_lost)


async def test_over_tls_back_pressure_holds_both_ways(server_certificate: Path) -> None:
    ours, theirs = tls_contexts(server_certificate)

    class Big(Echo):
        def message_received(self, payload: bytes | bytearray) -> None:
            self.heard.append(bytes(payload))
            self.connection.send(bytes(payload) * 300_000)

    async with serving(Big, ssl=ours) as server:
        client = await server.open(ssl=theirs)
        letters = [bytes([letter]) for letter in b"abcdefghijklmnopqrstuvwxyz"]
        for letter in letters:
            client.send(frame(TEXT, letter))

        for letter in letters:
            assert await client.read_text() == letter * 300_000


async def test_it_has_settled_once_whoever_connected_has_been_answered() -> None:
    async with serving() as server:
        await server.open()
        await asyncio.wait_for(server.listener.settle(10), 5)
        late = await server.connect()
        await eventually(lambda: len(server.listener._openings) == 1)
        server.listener.stop_accepting()

        settling = asyncio.create_task(server.listener.settle(10))
        await asyncio.sleep(0)
        assert not settling.done()
        await late.upgrade()
        await asyncio.wait_for(settling, 5)
        assert len(server.listener.connections) == 2


async def test_it_does_not_settle_for_ever() -> None:
    async with serving() as server:
        await server.connect()
        await eventually(lambda: len(server.listener._openings) == 1)
        await asyncio.wait_for(server.listener.settle(0.01), 5)
