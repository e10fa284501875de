"""Whose certificate is believed over https: one that the system vouches for, one of a file that the user names, or one that the
user has confirmed once by its fingerprint."""

from __future__ import annotations

import hashlib
import ipaddress
import os
import socket
import ssl
from dataclasses import dataclass
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter


@dataclass(frozen=True)
class Trust:
    """Args:
    file: of certificates (PEM) that are believed; empty for those of the system.
    fingerprint: SHA-256, in hexadecimal, of the one certificate that is believed; empty for none.
    """

    file: str = ""
    fingerprint: str = ""


class _Confirmed(HTTPAdapter):
    """Connects only to whoever has the certificate that was confirmed, whatever name it is made out to."""

    def __init__(self, fingerprint: str):
        self._fingerprint = fingerprint
        super().__init__()

    def init_poolmanager(self, *args, **more):
        super().init_poolmanager(*args, assert_fingerprint=self._fingerprint, assert_hostname=False, **more)


def session_with(trust: Trust, url: str = "") -> requests.Session:
    """A session of requests that believes these certificates; it asks no proxy for a server of this computer."""
    session = requests.Session()
    session.auth = lambda request: request  # else a .netrc of this computer would replace the token
    if _is_of_this_computer(url):
        session.trust_env = False
        session.verify = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE") or True
    if trust.fingerprint:
        session.mount("https://", _Confirmed(trust.fingerprint))
        session.verify, session.trust_env = False, False  # the fingerprint is looked at instead; no setting overrides it
    elif trust.file:
        session.verify, session.trust_env = trust.file, False
    return session


def _is_of_this_computer(url: str) -> bool:
    try:
        host = urlsplit(url).hostname or ""
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:  # a name
        return False


def is_of_certificate(error: BaseException) -> bool:
    """Whether a connection failed because of the certificate, and not of what else goes wrong over https."""
    seen: list[BaseException] = []
    left: list[object] = [error]
    while left:
        one = left.pop()
        if isinstance(one, BaseException) and one not in seen:
            seen.append(one)
            names = {kind.__name__ for kind in type(one).__mro__}  # urllib3 1.26, of older Slicers, has a CertificateError
            if names & {"SSLCertVerificationError", "CertificateError"} or "Fingerprints did not match" in str(one):
                return True
            left += [one.__cause__, one.__context__, getattr(one, "reason", None), *one.args]
    return False


def certificate_of(url: str, seconds: float) -> str:
    """Fingerprint of the certificate that a server shows, without believing it. Raises OSError, ValueError."""
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname:
        raise ValueError(f"{url} is no https address")
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    place, name = (parts.hostname, parts.port or 443), parts.hostname
    with socket.create_connection(place, timeout=seconds) as raw, context.wrap_socket(raw, server_hostname=name) as connection:
        return hashlib.sha256(connection.getpeercert(binary_form=True)).hexdigest()


def described(fingerprint: str) -> str:
    """In pairs, as operators and browsers write it."""
    text = fingerprint.upper()
    return ":".join(text[i : i + 2] for i in range(0, len(text), 2))
