"""Whom a client believes, and whom it asks."""

from __future__ import annotations

import socket
import ssl
import threading
from contextlib import closing

import pytest
import requests
from LandmarkLabelLib.client import Client, Unreachable, Untrusted
from LandmarkLabelLib.trust import is_of_certificate


@pytest.fixture()
def listener():
    """A port of this computer, and who has connected to it."""
    heard: list[bytes] = []
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def listen() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with closing(connection):
                    heard.append(connection.recv(4000))

        threading.Thread(target=listen, daemon=True).start()
        yield server.getsockname()[1], heard


def test_no_proxy_hears_of_a_server_on_this_computer(listener, monkeypatch):
    port, heard = listener
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{port}")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    for host in ("127.0.0.1", "localhost", "[::1]"):
        with pytest.raises(Unreachable):
            Client(f"http://{host}:9", "secret").who()
    assert heard == []
    with pytest.raises(Unreachable):
        Client("http://server.example:9", "secret").who()
    assert heard and heard[0].startswith(b"GET http://server.example:9/")  # elsewhere the proxy is asked, as people have set it


def test_a_connection_that_breaks_off_says_nothing_of_a_certificate(listener):
    port, _ = listener
    with pytest.raises(Unreachable, match="does not answer over https") as caught:
        Client(f"https://127.0.0.1:{port}").who()
    assert not isinstance(caught.value, Untrusted)


def test_what_is_of_the_certificate_is_told_from_what_is_not():
    of_it = requests.exceptions.SSLError(ssl.SSLCertVerificationError(1, "self-signed certificate"))
    changed = requests.exceptions.SSLError('Fingerprints did not match. Expected "ab", got "cd"')
    broken = requests.exceptions.SSLError(ssl.SSLEOFError(8, "EOF occurred in violation of protocol"))
    assert is_of_certificate(of_it) and is_of_certificate(changed) and not is_of_certificate(broken)
    other_name = requests.exceptions.SSLError(type("CertificateError", (ValueError,), {})("hostname 'a' doesn't match 'b'"))
    assert is_of_certificate(other_name)  # as urllib3 1.26 has it
    broken.__cause__ = broken  # however it is put together
    assert not is_of_certificate(broken)
