"""Requests made from a server's own OpenAPI description, with values near and far from what it says; the same for one seed."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlencode

import requests

TEXTS = (
    "", " ", "a", "\0", "a\0b", "\ud800", "a\udfffb", "a" * 81, "a" * 201, "a" * 5000, "é" * 111, "é" * 150, "\u202egnp.x", "🦴",
    "../x", "..", "/etc/passwd", "..\\x", "%00", "%2e%2e%2f", ".hidden", "Final", "labels", "meta.info", "x.png", "a\r\nX: y",
    "{}", "[]", "null", "NaN", "1e999", "true", "-1", "0", "1", "٣", "9" * 400, "0.0", "file:///etc/passwd", "http://127.0.0.1:9/x",
    "'; DROP TABLE revisions; --", "$(id)", "<script>", "a@second reading", "SHA256:00", "CRC:1", ":",
)  # fmt: skip
PLAIN = ("ann", "bob", "a note")
NUMBERS = (
    0, 1, -1, 2, 0.0, 0.5, -0.0, True, False, None, 2**31, 2**63, 2**64, -(2**63), 10**399, -(10**399), 1e308, -1e308, 1e-320,
    float("nan"), float("inf"), -float("inf"),
)  # fmt: skip
RAW = (
    b"", b"[", b"{", b"null", b"5", b'"x"', b"[" * 1000, b"[" * 60_000, b'{"a":' * 1000, b"\xff\xfe{\0", b"9" * 5000,
    b'{"base_revision": ' + b"9" * 4301 + b"}", b'"\\ud800"', b'{"\\ud800": 1}', b"{'a': 1}", b'{"a": 1}x', b"\0" * 100,
)  # fmt: skip
CHARSETS = (
    "",
    "utf-8",
    "utf-7",
    "utf-16",
    "unicode_escape",
    "raw_unicode_escape",
    "idna",
    "punycode",
    "hex",
    "rot13",
    "nonsense",
)


@dataclass(frozen=True)
class Operation:
    """One method of one address, and what it takes by its description."""

    method: str
    path: str
    parameters: Sequence[Mapping]
    kind: str  # content type of the body, "" for none
    schema: Mapping


@dataclass(frozen=True)
class Sent:
    """One request, ready to be sent."""

    method: str
    path: str
    body: bytes
    headers: Mapping[str, str]
    operation: str


def operations(description: Mapping, without: Sequence[str] = ()) -> list[Operation]:
    """All of a description but those named, for example ``POST /train/``."""
    found = []
    for path, methods in description["paths"].items():
        for method, about in methods.items():
            content = about.get("requestBody", {}).get("content", {"": {"schema": {}}})
            kind, body = next(iter(content.items()))
            schema = _resolved(body["schema"], description)
            parameters = [{**p, "schema": _resolved(p["schema"], description)} for p in about.get("parameters", [])]
            if f"{method.upper()} {path}" not in without:
                found.append(Operation(method.upper(), path, parameters, kind, schema))
    return found


def _resolved(schema: Mapping, description: Mapping) -> Mapping:
    """The schema that a reference, or the first alternative, stands for."""
    for one in [*schema.get("anyOf", ()), *schema.get("allOf", ()), schema]:
        if "$ref" in one:
            return description["components"]["schemas"][one["$ref"].rsplit("/", 1)[1]]
    return next((one for one in schema.get("anyOf", ()) if one.get("type") != "null"), schema)


class Fuzzer:
    """Makes requests.

    Args:
        seed: of all that is drawn.
        described: the operations.
        known: names of parameters and properties to values that exist, for example ``image`` to image ids.
        files: names and contents of files to send.
    """

    TAME, HOSTILE = 0.5, 0.25  # share of requests as described; in the others, of values that no description allows

    def __init__(
        self,
        seed: int,
        described: Sequence[Operation],
        known: Mapping[str, Sequence[str]],
        files: Sequence[tuple[str, bytes]],
    ):
        self.rng, self.known = random.Random(seed), known
        self.operations = [o for o in described for _ in range(3 if o.kind else 1)]  # there is more to try where there is a body
        self.files, self.hostile = list(files), 0.0

    def request(self) -> Sent:
        """The next one."""
        rng, operation = self.rng, self.rng.choice(self.operations)
        self.hostile = 0.0 if rng.random() < self.TAME else self.HOSTILE
        path, query = operation.path, []
        for parameter in operation.parameters:
            value = self._text(parameter["name"], parameter["schema"])
            if parameter["in"] == "path":
                place = quote(value.encode(errors="replace"), safe="") or "%20"
                path = path.replace(f"{{{parameter['name']}}}", place)
            elif parameter.get("required") or rng.random() < (0.5 if self.hostile else 0.25):
                query.append((parameter["name"], value.encode(errors="replace")))
        if rng.random() < self._now_and_then(0.02):
            query.append((self._any_text().encode(errors="replace"), b"x"))
        body, headers = self._body(operation)
        address = path + (f"?{urlencode(query)}" if query else "")
        return Sent(operation.method, address, body, headers, f"{operation.method} {operation.path}")

    def _body(self, operation: Operation) -> tuple[bytes, dict[str, str]]:
        if "json" in operation.kind:
            raw = self.rng.random() < self._now_and_then(0.08)
            content = self.rng.choice(RAW) if raw else json.dumps(self._value("", operation.schema)).encode()
            return content, {"Content-Type": "application/json"}
        if "multipart" in operation.kind or "form" in operation.kind:
            return self._form(operation.schema.get("properties", {}), "multipart" in operation.kind)
        return b"", {}

    def _form(self, fields: Mapping, multipart: bool) -> tuple[bytes, dict[str, str]]:
        parts = []
        for name, schema in fields.items():
            is_file = "octet-stream" in json.dumps(schema) or "binary" in json.dumps(schema)
            if self.rng.random() < (self._now_and_then(0.05) if is_file else 0.3):
                continue
            for _ in range(self.rng.choice((1, 1, 1, 2)) if schema.get("type") == "array" else 1):
                file_name, content = self.rng.choice(self.files) if is_file else ("", self._field(name, schema))
                if is_file and self.rng.random() < self.hostile:
                    file_name = re.sub(r'["\r\n]', "_", self._any_text())
                parts.append((name, file_name if is_file else None, content))
        if not multipart:
            return urlencode([(name, value) for name, _, value in parts]).encode(), {
                "Content-Type": "application/x-www-form-urlencoded"
            }
        body = b""
        for name, file_name, value in parts:
            more = f'; filename="{file_name}"'.encode("utf-8", "surrogatepass") if file_name is not None else b""
            body += f'--b\r\nContent-Disposition: form-data; name="{name}"'.encode() + more + b"\r\n\r\n" + value + b"\r\n"
        charset = self.rng.choice(CHARSETS) if self.rng.random() < self._now_and_then(0.1) else ""
        kind = "multipart/form-data; boundary=b" + (f"; charset={charset}" if charset else "")
        whole = body + b"--b--\r\n"
        is_cut = self.rng.random() < self._now_and_then(0.03)
        return whole[: self.rng.randrange(len(whole))] if is_cut else whole, {"Content-Type": kind}

    def _field(self, name: str, schema: Mapping) -> bytes:
        """A field of a form; where it holds JSON, mostly that."""
        inner = schema.get("contentSchema")
        if inner is None or self.rng.random() < self._now_and_then(0.05):
            return self._text(name, schema).encode("utf-8", "surrogatepass")
        return (
            self.rng.choice(RAW) if self.rng.random() < self._now_and_then(0.08) else json.dumps(self._value("", inner)).encode()
        )

    def _text(self, name: str, schema: Mapping) -> str:
        """Of a query, an address or a form, where everything is text."""
        value = self._value(name, schema)
        return value if isinstance(value, str) else json.dumps(value)

    def _value(self, name: str, schema: Mapping) -> object:
        """As described, or anything."""
        rng = self.rng
        if rng.random() < self.hostile * (0.3 if schema.get("type") == "object" else 1.0):
            return self._anything(0)
        if "enum" in schema:
            return rng.choice(schema["enum"])
        kind = schema.get("type", "string")
        if kind == "object":
            return self._object(schema)
        if kind == "array":
            least, most = schema.get("minItems", 0), schema.get("maxItems", 3)
            return [self._value(name, schema.get("items", {})) for _ in range(rng.randint(least, most))]
        if kind in ("integer", "number"):
            return rng.choice((0, 0, 0, 1, 2, 5)) if kind == "integer" else round(rng.uniform(0, 90), 2)
        if kind == "boolean":
            return rng.random() < 0.5
        if name in self.known or self.hostile:
            return rng.choice(self.known.get(name) or TEXTS)
        return f"{rng.choice(PLAIN)} {rng.getrandbits(32):x}"

    def _object(self, schema: Mapping) -> dict:
        rng, needed = self.rng, schema.get("required", ())
        made = {
            name: self._value(name, inner)
            for name, inner in schema.get("properties", {}).items()
            if rng.random() < (1 - self._now_and_then(0.05) if name in needed else 0.4)
        }
        if isinstance(inner := schema.get("additionalProperties"), Mapping):
            for _ in range(rng.choice((0, 1, 2))):
                made[self._text("name", {"type": "string"})] = self._value("", inner)
        if not self.hostile:
            return made or {"note": rng.choice(PLAIN)}
        if rng.random() < 0.05 or not schema.get("properties"):
            made[self._any_text()] = self._anything(0)
        return made

    def _now_and_then(self, share: float) -> float:
        """Not in a request that keeps to the description."""
        return share if self.hostile else 0.0

    def _any_text(self) -> str:
        return self.rng.choice(TEXTS)

    def _anything(self, depth: int) -> object:
        rng, kind = self.rng, self.rng.random()
        if kind < 0.4 or depth > 3:
            return self._any_text()
        if kind < 0.75:
            return rng.choice(NUMBERS)
        if kind < 0.8:
            return json.loads("[" * (deep := rng.choice((9, 33, 300))) + "]" * deep)
        if kind < 0.82:
            return list(range(5000))
        if kind < 0.9:
            return [self._anything(depth + 1) for _ in range(rng.randrange(4))]
        return {self._any_text(): self._anything(depth + 1) for _ in range(rng.randrange(4))}


WITHOUT = ("POST /train/", "GET /openapi.json")  # the first would train whatever it is given
STARTING = ("/train/scn", "/batch/infer/scn")  # addresses of work in the background, which is not asked for here


@dataclass
class Outcome:
    """What became of many requests.

    Args:
        statuses: operation and status to how often.
        wrong: requests that the server had no proper answer to, with the answer.
        sessions: uploaded and not deleted.
    """

    statuses: Counter = field(default_factory=Counter)
    wrong: list[tuple[Sent, int, str]] = field(default_factory=list)
    sessions: set[str] = field(default_factory=set)


def bombard(url: str, seed: int, count: int, images: Sequence[str], landmarks: Sequence[str], files: Sequence[tuple]) -> Outcome:
    """Send ``count`` requests to a server, one after the other.

    Args:
        url: of the server.
        seed: of all that is drawn.
        count: how many.
        images: ids of its images, which stay, unlike the image ``new``.
        landmarks: names of its task.
        files: names and contents to upload.
    """
    outcome, sessions = Outcome(), ["00000000-0000-1000-8000-000000000000"]
    known = {
        "tag": ["final", "original", "mine"],
        "model": ["scn", "scn", "nothere"],
        "strategy": ["adaptive", "random", "first"],
        "id": ["new", "nobody"],
        "session_id": sessions,
        **dict.fromkeys(("name", "absent"), landmarks),
        **dict.fromkeys(("image", "label", "image_id", "images"), [*images, "new"]),
    }
    described = operations(requests.get(f"{url}/openapi.json", timeout=60).json(), WITHOUT)
    fuzzer = Fuzzer(seed, described, known, files)
    with requests.Session() as session:
        while outcome.statuses.total() < count:
            sent = fuzzer.request()
            if sent.path.startswith(STARTING):
                continue
            answer = session.request(sent.method, url + sent.path, data=sent.body, headers=sent.headers, timeout=120)
            outcome.statuses[sent.operation, answer.status_code] += 1
            if not _is_proper(sent, answer):
                outcome.wrong.append((sent, answer.status_code, answer.text[:300]))
            if sent.operation == "PUT /session/" and answer.ok:
                sessions.append(answer.json()["session_id"])
                outcome.sessions.add(sessions[-1])
            elif sent.operation == "DELETE /session/{session_id}" and answer.ok:
                outcome.sessions -= {sent.path.rsplit("/", 1)[1]}
    return outcome


def _is_proper(sent: Sent, answer: requests.Response) -> bool:
    """Below 500, and a refusal says why in one text."""
    if answer.status_code < 400 or sent.method == "HEAD":
        return answer.status_code < 500
    try:
        return answer.status_code < 500 and isinstance(answer.json()["detail"], str)
    except (ValueError, TypeError, KeyError):
        return False


def files_in(*places: Path) -> set[str]:
    """Every file below some folders."""
    return {str(p) for place in places for p in place.rglob("*") if p.is_file()}
