"""Certificates over a real TLS connection."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time

import pytest

from mautic_sync.errors import StopError
from mautic_sync.mautic.probing import read_certificate

DAY = 86_400


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    """A certificate of our own for localhost, valid for 40 days, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl is not installed here")
    place = tmp_path_factory.mktemp("tls")
    command = [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "40", "-subj", "/O=House Authority/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    command += ["-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run(command, check=True, capture_output=True)
    return place


@pytest.fixture
def port(authority):
    """A server that greets by TLS and hangs up."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority / "cert.pem", authority / "key.pem")
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            try:
                raw, _ = server.accept()
            except OSError:
                return
            try:
                context.wrap_socket(raw, server_side=True).close()
            except OSError:
                raw.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield server.getsockname()[1]
    server.shutdown(socket.SHUT_RDWR)
    server.close()
    thread.join(5)


def test_a_trusted_certificate_tells_until_when(authority, port):
    shown = read_certificate(f"https://localhost:{port}", ca_bundle=str(authority / "cert.pem"), timeout=5)
    assert shown.issuer == "House Authority"
    assert 38 * DAY < shown.expires_at - time.time() < 41 * DAY


def test_one_that_nobody_vouches_for_is_not_valid(port):
    with pytest.raises(StopError, match=r"not valid: self.signed certificate.*mautic\.ca_bundle"):
        read_certificate(f"https://localhost:{port}", ca_bundle=None, timeout=5)


def test_one_for_another_name_is_not_valid(authority, port):
    with pytest.raises(StopError, match="not valid"):
        read_certificate(f"https://127.0.0.1:{port}", ca_bundle=str(authority / "cert.pem"), timeout=5)


def test_a_port_where_nobody_listens(authority, port):
    with socket.create_server(("127.0.0.1", 0)) as other:
        free = other.getsockname()[1]
    with pytest.raises(StopError, match="No connection"):
        read_certificate(f"https://localhost:{free}", ca_bundle=str(authority / "cert.pem"), timeout=5)
