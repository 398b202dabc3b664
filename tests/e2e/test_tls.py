"""TLS from end to end: the command, its certificate's renewal, and the project's own client."""

from __future__ import annotations

import signal
import ssl
import sys
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from tests.certificates import Authority, find_serial_number
from tests.e2e.conftest import MakeProcess, Serve
from tests.e2e.rawclient import RawClient, open_client, open_socket
from tests.e2e.serving import Served, fetch, find_free_port, run_command
from wsclient import Session, derive_keys, register
from wsclient.connection import open_websocket
from wsclient.errors import CannotConnect

EMAIL, ROOT_PASSWORD = "joe@example.com", "a root password"

pytestmark = pytest.mark.usefixtures("no_client_settings")


@pytest.fixture
def no_client_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WSSERVER_CA", "WSSERVER_ALLOW_PLAINTEXT"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def settings_of(authority: Authority, name: str = "server") -> dict[str, Any]:
    files = authority.issue(name)
    return {"tls_cert": files.chain, "tls_key": files.key}


def spoil(path: Path) -> None:
    path.write_text("half written")


def trusting(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(authority.path))


def shown_serial_number(client: RawClient) -> int:
    shown = client.socket.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)
    return x509.load_der_x509_certificate(shown).serial_number


async def fail_to_connect(url: str, **options: Any) -> str:
    """Why the client can't connect."""
    with pytest.raises(CannotConnect) as failure:
        await open_websocket(url, **options)
    return failure.value.cause


# The command.


async def test_the_client_syncs_over_tls_with_the_command(
    make_process: MakeProcess, authority: Authority
) -> None:
    process = make_process(**settings_of(authority), admin_port=find_free_port())
    await process.start()
    assert f"listening on wss://127.0.0.1:{process.port}/v1" in process.log

    async with Session(process.url, ca=authority.path) as session:
        await register(session, EMAIL, ROOT_PASSWORD)
        keys = await derive_keys(session, EMAIL, ROOT_PASSWORD)
        await session.login(keys, device_id="laptop")
        pushed = await session.push(1, "a sealed wallet")
        assert await session.get() == pushed

    # The admin port stays as it is: plain HTTP, on loopback.
    admin = f"http://127.0.0.1:{process.settings['admin_port']}"
    assert (await fetch(f"{admin}/readyz"))[0] == 200


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="there is no SIGHUP here")
async def test_sighup_renews_the_certificate_and_drops_nobody(
    make_process: MakeProcess, authority: Authority
) -> None:
    process = make_process(**settings_of(authority))
    chain = Path(process.settings["tls_cert"])
    await process.start()
    first = find_serial_number(chain)
    context = trusting(authority)
    async with open_client(process.url, ssl=context) as old:
        await old.register(EMAIL)
        await old.login(EMAIL)

        authority.issue("server")
        second = find_serial_number(chain)
        process.signal(signal.SIGHUP)
        await process.wait_for_log("new connections get the certificate")
        async with open_client(process.url, ssl=context) as new:
            assert shown_serial_number(new) == second != first
            await new.login(EMAIL, "phone")
            await old.push(1)
            await new.hear_sequence(1)

        spoil(chain)
        process.signal(signal.SIGHUP)
        await process.wait_for_log("the certificate stays the old one")
        assert "not in PEM format" in process.log
        async with open_client(process.url, ssl=context) as newer:
            assert shown_serial_number(newer) == second
        await old.push(2)
        assert shown_serial_number(old) == first


async def test_a_stop_drains_over_tls_too(make_process: MakeProcess, authority: Authority) -> None:
    process = make_process(**settings_of(authority))
    await process.start()
    async with open_client(process.url, ssl=trusting(authority)) as client:
        await client.call("server.info")
        process.signal(signal.SIGTERM)

        assert await client.closed() == 1012
        assert await process.wait() == 0


@pytest.mark.parametrize(
    ("cert", "key", "said"),
    [
        ("missing.pem", "server.key", "missing.pem does not exist"),
        ("server.pem", "missing.key", "missing.key does not exist"),
        ("server.pem", "other.key", "the key is not that of the certificate"),
        ("server.key", "server.key", "not in PEM format"),
    ],
)
def test_a_certificate_that_can_not_be_used_ends_the_start_in_a_sentence(
    authority: Authority, cert: str, key: str, said: str
) -> None:
    authority.issue("server")
    authority.issue("other")
    folder = authority.folder
    done = run_command(
        ["serve", "--port=0", "--admin-port=0", f"--tls-cert={cert}", f"--tls-key={key}"], folder
    )

    assert done.returncode == 1
    assert "wsserver: can't serve TLS: " in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not [*folder.glob("*.db")], "nothing was begun"


def test_a_certificate_without_its_key_is_refused(authority: Authority) -> None:
    authority.issue("server")
    done = run_command(["serve", "--tls-cert=server.pem"], authority.folder)

    assert done.returncode == 2
    assert "WSSERVER_TLS_KEY" in done.stderr


# Whom the client trusts.


async def start(serve: Serve, authority: Authority, **settings: Any) -> str:
    """The wss:// address of a server in this process."""
    served: Served = await serve(**settings_of(authority), **settings)
    return f"wss://{settings.get('host', '127.0.0.1')}:{served.server.port}/v1"


async def test_a_certificate_of_nobody_we_trust_is_refused(
    serve: Serve, authority: Authority, tmp_path: Path
) -> None:
    url = await start(serve, authority)
    stranger = Authority(tmp_path, "a stranger")

    for options in ({}, {"ca": stranger.path}):
        cause = await fail_to_connect(url, **options)
        assert "its certificate can't be trusted" in cause
        assert "WSSERVER_CA" in cause


@pytest.mark.skipif(sys.platform != "linux", reason="all of 127.0.0.0/8 is loopback on Linux")
async def test_a_certificate_for_another_host_is_refused(
    serve: Serve, authority: Authority
) -> None:
    url = await start(serve, authority, host="127.0.0.2")

    assert "127.0.0.2" in await fail_to_connect(url, ca=authority.path)


async def test_the_authority_may_come_from_the_environment(
    serve: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = await start(serve, authority)
    monkeypatch.setenv("WSSERVER_CA", str(authority.path))

    async with Session(url) as session:
        assert session.info.name == "wallet-sync"


async def test_an_authority_that_can_not_be_read_is_told(tmp_path: Path) -> None:
    broken = tmp_path / "broken.pem"
    broken.write_text("nonsense")

    url = "wss://127.0.0.1:9/v1"
    assert "missing.pem does not exist" in await fail_to_connect(url, ca="missing.pem")
    assert "no certificate in PEM format" in await fail_to_connect(url, ca=broken)


async def test_wss_to_a_server_without_tls_is_told(served: Served) -> None:
    cause = await fail_to_connect(served.url.replace("ws://", "wss://"))

    assert "does not speak TLS" in cause


async def test_ws_to_a_server_with_tls_gets_nothing(serve: Serve, authority: Authority) -> None:
    url = await start(serve, authority)

    assert await fail_to_connect(url.replace("wss://", "ws://"))


# Plain text.


@pytest.mark.parametrize(
    "url", ["ws://192.0.2.1:8090/v1", "WS://sync.example.com/v1", "ws://127.0.0.1.example.com/v1"]
)
async def test_plain_text_to_another_machine_is_refused_before_anything_is_sent(url: str) -> None:
    cause = await fail_to_connect(url)
    assert "not encrypted" in cause
    assert "WSSERVER_ALLOW_PLAINTEXT" in cause

    with pytest.raises(CannotConnect, match="not encrypted"):
        await Session(url).__aenter__()


@pytest.mark.skipif(sys.platform != "linux", reason="0.0.0.0 is this machine on Linux")
async def test_plain_text_to_another_machine_goes_where_it_is_allowed(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy"):
        for spelled in (name, name.upper()):
            monkeypatch.delenv(spelled, raising=False)
    # It reaches this machine, and the client does not know that it does.
    url = f"ws://0.0.0.0:{served.server.port}/v1"
    assert "not encrypted" in await fail_to_connect(url)

    async with Session(url, allow_plaintext=True) as session:
        assert session.info.protocol == 1
    monkeypatch.setenv("WSSERVER_ALLOW_PLAINTEXT", "0")
    assert "not encrypted" in await fail_to_connect(url)
    monkeypatch.setenv("WSSERVER_ALLOW_PLAINTEXT", "1")
    async with Session(url) as session:
        assert session.info.protocol == 1


async def test_plain_text_to_this_machine_needs_no_leave(served: Served) -> None:
    for host in ("127.0.0.1", "localhost"):
        await (await open_websocket(f"ws://{host}:{served.server.port}/v1")).close()


async def test_a_stock_client_verifies_the_server_too(serve: Serve, authority: Authority) -> None:
    url = await start(serve, authority)

    with pytest.raises(ssl.SSLCertVerificationError):
        await open_socket(url)
    async with open_client(url, ssl=trusting(authority)) as client:
        assert (await client.call("server.info"))["name"] == "wallet-sync"
