"""The certificate of the port: which TLS it speaks, and how it is renewed."""

from __future__ import annotations

import asyncio
import ssl as tls
from pathlib import Path
from typing import Literal

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from tests.certificates import Authority, Files, find_serial_number
from tests.wire.harness import TEXT, Client, Server, frame, serving
from wsserver.tls import Certificate, CertificateError

Kind = Literal["ec", "rsa"]


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return Authority(tmp_path)


def trusting(authority: Authority) -> tls.SSLContext:
    return tls.create_default_context(cafile=str(authority.path))


async def open_client(server: Server, authority: Authority) -> Client:
    return await server.open(ssl=trusting(authority))


def shown_serial_number(client: Client) -> int:
    """The serial number of the certificate that the server has shown to this client."""
    connection: tls.SSLObject = client.writer.get_extra_info("ssl_object")
    shown = connection.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


@pytest.mark.parametrize(("old", "new"), [("ec", "ec"), ("rsa", "ec"), ("ec", "rsa")])
async def test_a_renewed_certificate_is_for_new_connections_and_drops_none(
    authority: Authority, old: Kind, new: Kind
) -> None:
    files = authority.issue("server", old)
    certificate = Certificate(files.chain, files.key)
    async with serving(ssl=certificate.context) as server:
        before = await open_client(server, authority)
        first = find_serial_number(files.chain)
        authority.issue("server", new)
        certificate.reload()
        after = await open_client(server, authority)

        assert shown_serial_number(before) == first
        assert shown_serial_number(after) == find_serial_number(files.chain) != first
        for client in (before, after):
            client.send(frame(TEXT, b"hello"))
            assert await client.read_text() == b"hello"


async def test_a_certificate_that_can_not_be_used_changes_nothing(authority: Authority) -> None:
    files = authority.issue("server")
    certificate = Certificate(files.chain, files.key)
    serial = find_serial_number(files.chain)
    files.key.write_text("half written")
    async with serving(ssl=certificate.context) as server:
        with pytest.raises(CertificateError):
            certificate.reload()

        assert shown_serial_number(await open_client(server, authority)) == serial


def speaking(version: tls.TLSVersion, context: tls.SSLContext) -> tls.SSLContext:
    """The context, for that version alone."""
    context.set_ciphers("ALL:@SECLEVEL=0")  # or OpenSSL itself has nothing to do with old ones
    context.minimum_version = context.maximum_version = version
    return context


@pytest.mark.parametrize("version", [tls.TLSVersion.TLSv1_2, tls.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_later_are_spoken(authority: Authority, version: tls.TLSVersion) -> None:
    files = authority.issue("server")
    async with serving(ssl=Certificate(files.chain, files.key).context) as server:
        await server.open(ssl=speaking(version, trusting(authority)))


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1:DeprecationWarning")
async def test_tls_1_1_is_not(authority: Authority) -> None:
    files = authority.issue("server")
    theirs = speaking(tls.TLSVersion.TLSv1_1, trusting(authority))
    async with serving(ssl=Certificate(files.chain, files.key).context) as server:
        with pytest.raises(OSError):  # noqa: PT011 # an alert or a reset: both say no more
            await server.connect(ssl=theirs)

    willing = speaking(tls.TLSVersion.TLSv1_1, Certificate(files.chain, files.key).context)
    async with serving(ssl=willing) as server:
        await server.open(ssl=theirs)  # So it was the server that would not.


@pytest.mark.parametrize("missing", ["chain", "key"])
def test_a_file_that_is_not_there_is_told_by_its_name(authority: Authority, missing: str) -> None:
    files = authority.issue("server")
    path: Path = getattr(files, missing)
    path.unlink()

    with pytest.raises(CertificateError, match=f"{path.name} does not exist"):
        Certificate(files.chain, files.key)


def test_a_key_of_another_certificate_is_told(authority: Authority) -> None:
    ours, other = authority.issue("ours"), authority.issue("other")

    with pytest.raises(CertificateError, match="the key is not that of the certificate"):
        Certificate(ours.chain, other.key)


@pytest.mark.parametrize("broken", ["chain", "key"])
def test_a_file_that_is_not_pem_is_told(authority: Authority, broken: str) -> None:
    files: Files = authority.issue("server")
    getattr(files, broken).write_text("nonsense")

    with pytest.raises(CertificateError, match="not in PEM format"):
        Certificate(files.chain, files.key)


async def test_a_key_with_a_passphrase_is_told_and_none_is_asked_for(authority: Authority) -> None:
    files = authority.issue("server")
    key = serialization.load_pem_private_key(files.key.read_bytes(), None)
    files.key.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"a passphrase"),
        )
    )

    with pytest.raises(CertificateError, match="passphrase"):
        await asyncio.wait_for(asyncio.to_thread(Certificate, files.chain, files.key), 10)
