"""Whatever stands in a request's first line and headers, the answer is no internal error and the server goes on."""

from __future__ import annotations

import json
import socket

import pytest
from serving import Material, phantoms, tail

LONG = "x" * 20_000
DIGITS = "9" * 5000
HEADERS = {  # lines beside a good Host
    "host of another": ["Host: [::1"],
    "origin that is none": ["Origin: http://["],
    "origin of two ports": ["Origin: http://127.0.0.1:1:2"],
    "origin with a number no port has": ["Origin: http://127.0.0.1:99999999"],
    "origin with compatibility characters": ["Origin: http://127.0.0.1\u00bd"],
    "origin in Latin": ["Origin: http://é"],
    "two origins": ["Origin: http://127.0.0.1", "Origin: null"],
    "two tokens": ["Authorization: Bearer a", "Authorization: Bearer b"],
    "token in Latin": ["Authorization: Bearer é"],
    "password in Latin": ["Authorization: Basic é"],
    "password that is no text": ["Authorization: Basic /w=="],
    "long token": [f"Authorization: Bearer {LONG}"],
    "long header": [f"X-Note: {LONG}{LONG}{LONG}{LONG}"],
    "many headers": [f"X-{n}: x" for n in range(3000)],
    "a name with a space": ["X Note: x"],
    "no name": [": x"],
    "no colon": ["x"],
    "a folded line": ["X-Note: a", "  b"],
    "a null": ["X-Note: a\0b"],
    "cookies": ["Cookie: =;;=;\u00e9=\u00e9"],
    "two lengths": ["Content-Length: 3", "Content-Length: 4"],
    "one length twice": ["Content-Length: 0", "Content-Length: 0"],
    "length in words": ["Content-Length: ten"],
    "length below nothing": ["Content-Length: -1"],
    "length with a plus": ["Content-Length: +1"],
    "length of many digits": [f"Content-Length: {DIGITS}"],
    "length in other digits": ["Content-Length: \u00b2"],
    "length and chunks": ["Content-Length: 3", "Transfer-Encoding: chunked"],
    "chunks of nothing known": ["Transfer-Encoding: gzip"],
    "two types": ["Content-Type: application/json", "Content-Type: text/plain"],
    "type in Latin": ["Content-Type: \u00e9/\u00e9; charset=\u00e9"],
    "parts without a boundary": ["Content-Type: multipart/form-data"],
    "parts with half a boundary": ["Content-Type: multipart/form-data; boundary*=x''%ff"],
    "parts in an encoding nobody knows": ["Content-Type: multipart/form-data; boundary=b; charset=nosuch"],
    "form in an encoding nobody knows": ["Content-Type: application/x-www-form-urlencoded; charset=nosuch"],
    "long boundary": [f"Content-Type: multipart/form-data; boundary={LONG}"],
    "JSON in an encoding nobody knows": ["Content-Type: application/json; charset=nosuch"],
    "range of nothing": ["Range: bytes=-"],
    "range in words": ["Range: bytes=a-b"],
    "range backwards": ["Range: bytes=5-1"],
    "range of many digits": [f"Range: bytes=0-{DIGITS}"],
    "many ranges": ["Range: bytes=" + ",".join(["0-0"] * 2000)],
    "other units": ["Range: lines=1-2"],
    "range if": ["Range: bytes=0-1", "If-Range: \u00e9"],
    "an upgrade": ["Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: eA=="],
    "an old upgrade": ["Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"],
    "expectations": ["Expect: 200-maybe"],
    "a way": ["X-Forwarded-For: [::1", "X-Forwarded-Proto: \u00e9", "Forwarded: for="],
    "languages": ["Accept: \u00e9", "Accept-Encoding: gzip;q=x", "Accept-Language: *;q=9"],
    "preflight": ["Access-Control-Request-Method: \u00e9", "Access-Control-Request-Headers: \u00e9"],
}
HOSTS = [
    "",
    "[::1",
    "[::1]:x",
    "::1",
    "[]",
    "[zz]",
    "a@127.0.0.1",
    "127.0.0.1:99999999",
    "127.0.0.1/x",
    "é",
    "½",
    " ",
    LONG,
    "%00",
    "a b",
]
ADDRESSES = [
    "/info/%", "/info/%zz", "/%ff%fe/", "/landmarks/images/%00", "/landmarks/images/%ed%a0%80",
    "/landmarks/images/" + "%41" * 5000, "/é",
    "/landmarks/images/%2e%2e%2f", "//evil.example/", "/\\evil.example", "http://[::1/info/", "http://127.0.0.1:1/info/", "*",
    "/info/?%", "/info/?%ff=%ff", "/info/?" + "a&" * 9000, "/info/?a=" + "%41" * 5000, "/;/../info/",
    "/datastore/image?image=%00",
    "/landmarks/images/phantom00/history/%", "/session/%", "/infer/%f0?image=phantom00", "/train/?all=%ff", "/info/#x",
    "/" + LONG,
]  # fmt: skip
METHODS = ["BREW", "get", "G@T", "", "OPTIONS", "TRACE", "CONNECT", "PRI", "PATCH", "HEAD", "X" * 300, "É"]
PLACES = {
    "GET": ["/info/", "/health", "/landmarks/images/phantom00", "/datastore/image?image=phantom00", "/"],
    "PUT": ["/landmarks/images/phantom00", "/datastore/label?image=phantom00"],
    "POST": ["/infer/scn?image=phantom00", "/auth/token"],
    "OPTIONS": ["/info/"],
}


@pytest.fixture(scope="module")
def material(tmp_path_factory) -> Material:
    return phantoms(tmp_path_factory.mktemp("headers"), 1)


@pytest.fixture(scope="module")
def server(material, running_server):
    with running_server(material, "origins", "https://viewer.example") as server:
        yield server


def ask(server, lines: list[str], body: bytes = b"") -> tuple[int, bytes]:
    """Status and body of the first answer to bytes as they stand; status 0 where the connection was closed without one."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1") + body)
        connection.shutdown(socket.SHUT_WR)
        got = b""
        try:
            while piece := connection.recv(65536):
                got += piece
        except ConnectionResetError:
            pass
    head, _, content = got.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), content


def check(server, what: str, lines: list[str], body: bytes = b"") -> int:
    status, content = ask(server, lines, body)
    assert status < 500, (what, lines[0][:80], status, content[:300])
    assert b"Traceback" not in content
    return status


@pytest.mark.parametrize(("method", "places"), PLACES.items(), ids=PLACES)
def test_headers(server, method, places):
    body = json.dumps({"landmarks": [], "base_revision": 0}).encode() if method in ("PUT", "POST") else b""
    for place in places:
        for what, lines in HEADERS.items():
            own = (
                [] if any(line.startswith(("Content-Length", "Transfer")) for line in lines) else [f"Content-Length: {len(body)}"]
            )
            check(server, what, [f"{method} {place} HTTP/1.1", "Host: 127.0.0.1", *own, *lines], body)
        for host in HOSTS:
            status = check(
                server, host[:20], [f"{method} {place} HTTP/1.1", f"Host: {host}", f"Content-Length: {len(body)}"], body
            )
            assert status >= 400 or place == "/health", (method, place, host)
    assert server.http("GET", "/info/").status_code == 200


def test_first_lines(server):
    for address in ADDRESSES:
        for method in ("GET", "PUT", "POST", "DELETE"):
            check(server, address[:40], [f"{method} {address} HTTP/1.1", "Host: 127.0.0.1"])
    for method in METHODS:
        for address in ("/info/", "/nothing", "*"):
            status = check(server, method[:20], [f"{method} {address} HTTP/1.1", "Host: 127.0.0.1"])
            assert status in (0, 400, 403, 404, 405), (method, address, status)
    for version in ("HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9999", "http/1.1", "", "HTTP/1.1 x"):
        check(server, version, [f"GET /info/ {version}", "Host: 127.0.0.1"])
    assert server.http("GET", "/info/").status_code == 200


@pytest.mark.parametrize(
    ("lines", "status", "says"),
    [
        (["Host: [::1"], 400, "the header Host must be a name or an address, and a port where there is one"),
        (["Host: 127.0.0.1", "Origin: http://["], 403, "requests from web pages of other servers are not answered"),
        (["Host: 127.0.0.1", "Origin: a", "Origin: a"], 400, "the header origin may be there only once"),
        (["Host: 127.0.0.1", "Authorization: a", "authorization: b"], 400, "the header authorization may be there only once"),
    ],
)
def test_what_is_said(server, lines, status, says):
    given, content = ask(server, ["GET /info/ HTTP/1.1", *lines])
    assert given == status and json.loads(content) == {"detail": says}


def test_the_log_tells_of_no_internal_error(server):
    """Run after the others: the guard would have written one line for each."""
    said = tail(server, 10**7)
    assert "internal error" not in said and "Traceback" not in said, said[-3000:]
