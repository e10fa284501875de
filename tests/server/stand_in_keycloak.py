"""What MONAI Label and this program ask of Keycloak, answered by a few lines: a realm's public key, and tokens for passwords."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

PATH = "/realms/monailabel"


@dataclass
class Realm:
    """The address of a realm and its keys."""

    address: str
    key: rsa.RSAPrivateKey
    public: bytes


def claims(*roles: str, **changes) -> dict:
    """What a token says; it ends after a minute, as Keycloak's do after a few."""
    good = {"preferred_username": "kim", "realm_access": {"roles": list(roles)}, "exp": datetime.now(UTC) + timedelta(minutes=1)}
    return {**good, **changes}


@contextmanager
def stand_in(passwords: Mapping[str, tuple[str, str]] | None = None) -> Iterator[Realm]:
    """``passwords``: by name, a password and a role."""
    key = rsa.generate_private_key(65537, 2048)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    bare = "".join(public.decode().splitlines()[1:-1])

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self):
            known = {
                PATH: {"public_key": bare},
                f"{PATH}/.well-known/openid-configuration": {"token_endpoint": f"{address}/token"},
            }
            self._send(200, known.get(self.path, {"public_key": bare}))

        def do_POST(self):
            sent = {k: v[0] for k, v in parse_qs(self.rfile.read(int(self.headers["content-length"])).decode()).items()}
            password, role = (passwords or {}).get(sent["username"], (None, ""))
            if sent["grant_type"] != "password" or sent.get("password") != password:
                return self._send(401, {"error": "invalid_grant"})
            return self._send(200, {"access_token": jwt.encode(claims(role, preferred_username=sent["username"]), key, "RS256")})

        def _send(self, status: int, content: dict) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(json.dumps(content).encode())

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Answers)
    address = f"http://127.0.0.1:{server.server_port}{PATH}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield Realm(address, key, public)
    finally:
        server.shutdown()
