"""The lists of routes in ``docs/http.md``, from the server's own OpenAPI description.

``python scripts/http_page.py`` starts a server on an empty study and writes them; ``--check`` changes nothing, says what is stale
and ends with code 1.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

from doc_blocks import ROOT, renew, table

PAGE = ROOT / "docs" / "http.md"
METHODS = ("get", "head", "post", "put", "delete")
DEADLINE_S = 120


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="change nothing; say what is stale")
    check = parser.parse_args().check
    description = openapi()
    blocks = {"routes": lambda: routes(description), "parameters": lambda: parameters(description)}
    stale = renew("http", lambda name: blocks[name](), [PAGE], check)
    print("\n".join(stale) or "docs/http.md is what the server says", file=sys.stderr if check and stale else sys.stdout)
    return 1 if check and stale else 0


def openapi() -> dict:
    """What a fresh server answers at ``/openapi.json``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "lib")}
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as study:
        command = [sys.executable, "-m", "landmarklabel", "serve", "--studies", study, "--task", "hand_xray", "--port", str(port)]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8")
        try:
            return _ask(f"http://127.0.0.1:{port}/openapi.json", server)
        finally:
            server.terminate()
            server.communicate(timeout=60)


def _ask(url: str, server: subprocess.Popen) -> dict:
    deadline = time.monotonic() + DEADLINE_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.2)
    server.terminate()
    sys.exit(f"the server did not start:\n{server.communicate(timeout=60)[0][-3000:]}")


def operations(description: dict) -> list[tuple[str, str, dict]]:
    """(method, path, operation), ours first."""
    found = [
        (method.upper(), path, operation)
        for path, methods in description["paths"].items()
        for method, operation in methods.items()
        if method in METHODS
    ]
    return sorted(found, key=lambda one: (not one[1].startswith("/landmarks/"), one[1], METHODS.index(one[0].lower())))


def routes(description: dict) -> str:
    """Method, path, role and summary of every route."""
    needed = roles()
    rows = [
        [f"`{method}`", f"`{path}`", needed.get(f"{method} {path}", "not listed"), operation.get("summary", "").rstrip(".")]
        for method, path, operation in operations(description)
    ]
    return table(["Method", "Path", "Role", "Summary"], rows)


def roles() -> dict[str, str]:
    """The least role of each route, by ``METHOD path``."""
    from landmarklabel.server.access import ROUTES
    from landmarklabel.services.callers import OPEN, ROLES

    names = {level: name for name, level in ROLES.items()} | {OPEN: "open"}
    return {route: names[role] for route, (role, _) in ROUTES.items()}


def parameters(description: dict) -> str:
    """Parameters and bodies of every route that takes some."""
    rows = []
    for method, path, operation in operations(description):
        for one in operation.get("parameters", ()):
            need = "required" if one.get("required") else "optional"
            rows.append([f"`{method} {path}`", f"`{one['name']}`", one["in"], kind(one.get("schema", {}), description), need])
        for media, body in operation.get("requestBody", {}).get("content", {}).items():
            schema = resolved(body.get("schema", {}), description)
            where = {"application/json": "JSON body", "multipart/form-data": "form"}.get(media, "form")
            for name, value in schema.get("properties", {}).items():
                need = "required" if name in schema.get("required", ()) else "optional"
                rows.append([f"`{method} {path}`", f"`{name}`", where, kind(value, description), need])
    for one, before in zip(rows[::-1], rows[-2::-1], strict=False):
        if one[0] == before[0]:
            one[0] = ""  # the route is named in the first of its rows
    return table(["Route", "Name", "In", "Type", ""], rows)


def resolved(schema: dict, description: dict) -> dict:
    """A schema instead of a reference to it."""
    for word in schema.get("$ref", "").removeprefix("#/").split("/") if "$ref" in schema else ():
        description = description[word]
    return description if "$ref" in schema else schema


def kind(schema: dict, description: dict) -> str:
    """Type of a value, in a few words."""
    schema = resolved(schema, description)
    if "enum" in schema:
        return " or ".join(f"`{value}`" for value in schema["enum"])
    if choices := schema.get("anyOf"):
        return " or ".join(dict.fromkeys(kind(c, description) for c in choices if c.get("type") != "null"))
    if schema.get("contentMediaType") == "application/json":
        inside = schema.get("contentSchema", {}).get("properties", {})
        return "JSON" + (": " + ", ".join(f"`{name}`" for name in inside) if inside else "")
    if schema.get("format") == "binary" or "contentMediaType" in schema:
        return "file"
    inside = schema.get("properties", {})
    words = f"list of {kind(schema['items'], description)}" if schema.get("items") else schema.get("type", "any")
    words += f" ({', '.join(f'`{name}`' for name in inside)})" if inside else ""
    return f"{words}: {schema['description']}" if "description" in schema else words


if __name__ == "__main__":
    sys.path.insert(0, str(Path(ROOT) / "lib"))
    sys.exit(main())
