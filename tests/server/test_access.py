"""Real servers: every route has a rule, every role its routes, other computers stay outside, Keycloak's tokens are checked."""

from __future__ import annotations

import json
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address

import jwt
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from serving import phantoms
from stand_in_keycloak import claims, stand_in

from landmarklabel.cli import main
from landmarklabel.server.access import CLOSED, ROUTES
from landmarklabel.server.guard import NO_TOKENS
from landmarklabel.services.callers import ADMIN, ANNOTATOR, OPEN, REVIEWER, ROLES
from landmarklabel.store.tokens import Tokens


@pytest.fixture
def material(tmp_path):
    return phantoms(tmp_path, 2)


def another_address() -> str:
    """An address of this computer that is not loopback; skips where there is none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks which interface would be used
            address = probe.getsockname()[0]
        except OSError:
            address = "127.0.0.1"
    if ip_address(address).is_loopback:
        pytest.skip("this computer has no network address but loopback")
    return address


def test_every_route_of_monai_label_is_served_under_a_rule_or_closed_for_a_reason():
    """In a process of its own: the option for accounts adds routes at import."""
    code = (
        "import json; from monailabel.app import app\n"
        "def flat(routes):\n"
        "    for route in routes:\n"
        "        inner = getattr(route, 'original_router', None)\n"
        "        yield from flat(inner.routes) if inner is not None else (route,)\n"
        "print(json.dumps([f'{m} {r.path}' for r in flat(app.routes) for m in getattr(r, 'methods', None) or ['MOUNT']]))"
    )
    environment = {"MONAI_LABEL_AUTH_ENABLE": "true", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, timeout=120, check=True, encoding="utf-8"
    )
    stock = set(json.loads(done.stdout.splitlines()[-1]))
    assert len(stock) > 50
    assert not stock - ROUTES.keys() - CLOSED.keys(), "decide on these routes in server/access.py"
    assert not CLOSED.keys() - stock, "MONAI Label no longer has these"
    assert not ROUTES.keys() & CLOSED.keys() and all(CLOSED.values())


def test_what_is_served_is_what_is_listed(material, running_server):
    with running_server(material) as server:
        described = server.get("/openapi.json")["paths"]
        served = {f"{method.upper()} {path}" for path, methods in described.items() for method in methods}
        hidden = {"GET /", "GET /annotate", "GET /openapi.json"}
        hidden |= {"PUT /datastore/updatelabelinfo", "PUT /datastore/", "DELETE /datastore/"}
        assert served - ROUTES.keys() == set() and ROUTES.keys() - served <= hidden
        for route in CLOSED:
            method, _, path = route.partition(" ")
            path = path.replace("{path:path}", "x").replace("{model}", "scn").replace("{method}", "x")
            answer = server.http("GET" if method == "MOUNT" else method, path)
            assert answer.status_code in (404, 405), route


def test_each_role_reaches_its_routes_and_no_others(material, running_server):
    tokens = Tokens(material.study)
    held = {level: tokens.new(name, name) for name, level in ROLES.items() if level >= ANNOTATOR}
    with running_server(material) as server:
        wrong = []
        for route, (needed, _) in ROUTES.items():
            method, _, path = route.partition(" ")
            if route == "POST /train/":
                continue  # would train; its rule is that of POST /train/{model}
            for key in ("model", "strategy", "image_id", "session_id"):
                path = path.replace(f"{{{key}}}", "nothere")
            given = {level: f"Bearer {token}" for level, token in held.items()} | {
                None: "",
                "wrong": f"Bearer {held[ADMIN][:-1]}",
            }
            ask = {who: {"Authorization": text} if text else {} for who, text in given.items()}
            asked = {who: server.http(method, path, headers=headers, allow_redirects=False) for who, headers in ask.items()}
            for who, answer in asked.items():
                known = isinstance(who, int)
                expected = None if needed == OPEN or (known and who >= needed) else 403 if known else 401
                if (answer.status_code if answer.status_code in (401, 403) else None) != expected and path != "/auth/token":
                    wrong.append((route, who, answer.status_code))
                assert answer.status_code < 500, (route, answer.text)
        assert not wrong
        assert {level for level, _ in ROUTES.values()} >= {OPEN, ANNOTATOR, REVIEWER, ADMIN}
        client = server.client
        assert client.auth_enabled() and not client.auth_valid_token()
        login = client.auth_token("whoever", held[ANNOTATOR])
        assert login["access_token"] == held[ANNOTATOR]
        client.update_auth(login)
        assert client.auth_valid_token() and client.info()["datastore"]["total"] == 2
        assert server.http("POST", "/auth/token", data={"username": "x", "password": "y"}).status_code == 401
        late = Tokens(material.study).new("late", "admin", days=1e-6)
        time.sleep(1)  # times of expiry are whole seconds
        logging_in = server.http("POST", "/auth/token", data={"username": "late", "password": late})
        asking = server.http("GET", "/info/", headers={"Authorization": f"Bearer {late}"})
        assert (logging_in.status_code, logging_in.json()) == (asking.status_code, asking.json())
        assert asking.status_code == 403 and "this token is good for nothing: its token expired on" in asking.json()["detail"]


def test_who_saves_is_who_holds_the_token(material, running_server):
    token = Tokens(material.study).new("ann", "annotator")
    who = {"headers": {"Authorization": f"Bearer {token}"}}
    with running_server(material) as server:
        rows = [{"name": n, "position": [5.0, 5.0], "status": "placed"} for n in material.task.names]
        body = {"landmarks": rows, "base_revision": 0, "author": "somebody else"}
        assert server.http("PUT", "/landmarks/images/phantom00", json=body, **who).json()["author"] == "ann"
        label = {"label": ("x.mrk.json", material.label_file("phantom01", material.study.parent).read_bytes())}
        params = {"params": json.dumps({"user": "somebody else"})}
        answer = server.http("PUT", "/datastore/label", params={"image": "phantom01"}, files=label, data=params, **who)
        assert answer.status_code == 200, answer.text
        assert server.get("/landmarks/images/phantom01", **who)["author"] == "ann"


def test_only_pages_of_the_origins_that_the_operator_names_may_ask(material, running_server):
    viewer = "https://viewer.example"
    with running_server(material, "origins", f"https://first.example,{viewer}/") as server:
        ask = {"Origin": viewer, "Access-Control-Request-Method": "PUT", "Access-Control-Request-Headers": "authorization"}
        preflight = server.http("OPTIONS", "/landmarks/images/phantom00", headers=ask)
        assert preflight.status_code == 200 and preflight.headers["access-control-allow-origin"] == viewer
        answer = server.http("GET", "/info/", headers={"Origin": viewer})
        assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == viewer
        for method, status in (("OPTIONS", 404), ("GET", 403)):
            answer = server.http(method, "/info/", headers={**ask, "Origin": "https://other.example"})
            assert answer.status_code == status and "access-control-allow-origin" not in answer.headers


def test_other_computers_stay_outside_until_there_are_tokens_and_tls_or_the_operator_says_so(material, running_server):
    address = another_address()
    with running_server(material, host="0.0.0.0") as server:
        outside = server.url.replace("127.0.0.1", address)
        for path in ("/info/", "/landmarks/", "/landmarks/task", "/datastore/", "/openapi.json"):
            answer = requests.get(outside + path, timeout=30)
            assert answer.status_code == 403 and answer.json()["detail"] == NO_TOKENS
        token = Tokens(material.study).new("ann", "annotator")  # while it runs
        answer = requests.get(outside + "/info/", headers={"Authorization": f"Bearer {token}"}, timeout=30)
        assert answer.status_code == 403 and "https only" in answer.json()["detail"]
        assert server.http("GET", "/info/").status_code == 401


def test_on_the_operators_word_other_computers_come_in_until_there_are_tokens(material, running_server):
    address = another_address()
    with running_server(material, "insecure", "true", host="0.0.0.0") as server:
        outside = server.url.replace("127.0.0.1", address) + "/info/"
        assert requests.get(outside, timeout=30).status_code == 200
        token = Tokens(material.study).new("ann", "annotator")
        assert requests.get(outside, timeout=30).json()["detail"] == "a token is needed: Authorization: Bearer TOKEN"
        assert requests.get(outside, headers={"Authorization": f"Bearer {token}"}, timeout=30).status_code == 200
        wrong = requests.get(outside, headers={"Authorization": f"Bearer {token}x"}, timeout=30)
        says = "this token is not valid: it is mistyped, was removed, or has expired"
        assert (wrong.status_code, wrong.json()["detail"]) == (401, says)
        Tokens(material.study).remove("ann")
        assert requests.get(outside, timeout=30).status_code == 503


def test_serve_with_a_certificate_and_a_token_answers_other_computers(material, tmp_path):
    address, (certificate, key) = another_address(), self_signed(tmp_path)
    token = Tokens(material.study).new("ann", "annotator")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        sys.executable, "-m", "landmarklabel", "serve", "--studies", str(material.study), "--task", str(material.task_file),
        "--host", "0.0.0.0", "--port", str(port), "--certificate", str(certificate), "--key", str(key),
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path)
    try:
        url, deadline = f"https://{address}:{port}/info/", time.monotonic() + 120
        while True:
            try:
                assert requests.get(url, timeout=10, verify=False).status_code == 401
                break
            except requests.ConnectionError:
                assert process.poll() is None and time.monotonic() < deadline, log.read_text(encoding="utf-8")
                time.sleep(0.2)
        answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=10, verify=False)
        assert answer.status_code == 200 and answer.json()["task"]["name"] == material.task.name
    finally:
        process.kill()
        process.wait(20)


def self_signed(folder):
    """Paths of a certificate for nobody and its key."""
    key = rsa.generate_private_key(65537, 2048)
    name, now = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = (
        made.serial_number(1).not_valid_before(now - timedelta(1)).not_valid_after(now + timedelta(1)).sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(_pem(key))
    ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return folder / "cert.pem", folder / "key.pem"


def _pem(key) -> bytes:
    none = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, none)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--host", "0.0.0.0"], "this needs a token (landmarklabel token new STUDY --name NAME --role annotator) and TLS"),
        (["--host", "10.0.0.1"], "--host 10.0.0.1 lets other computers in"),
        (["--host", "::"], "lets other computers in"),
        (["--certificate", "c.pem"], "--certificate and --key belong together"),
        (["--certificate", "c.pem", "--key", "k.pem"], "c.pem: no such file"),
    ],
)
def test_serve_refuses_what_is_not_safe(material, capsys, arguments, says):
    assert main(["serve", "--studies", str(material.study), "--task", str(material.task_file), *arguments]) == 2
    assert says.replace("STUDY", str(material.study)) in capsys.readouterr().err


def test_serve_names_the_file_that_is_no_certificate_or_no_key(material, tmp_path, capsys):
    """Before anything slow, and without OpenSSL's words."""
    certificate, key = self_signed(tmp_path)
    (tmp_path / "others").mkdir()
    _, other_key = self_signed(tmp_path / "others")
    text, locked = tmp_path / "text.pem", tmp_path / "locked.pem"
    text.write_text("-----BEGIN CERTIFICATE-----\nnone\n", encoding="utf-8")
    protected = rsa.generate_private_key(65537, 2048).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"secret")
    )
    locked.write_bytes(protected)
    for one, other, says in (
        (text, key, f"{text} holds no certificate in PEM format; give --certificate such a file"),
        (key, certificate, f"{key} holds no certificate in PEM format; give --certificate such a file"),
        (certificate, text, f"{text} holds no private key in PEM format; give --key such a file"),
        (certificate, other_key, f"{other_key} is not the key of {certificate}: give the two that were made together"),
        (certificate, locked, f"{locked} is protected by a password: give --key a file with the key in the clear"),
    ):
        words = ["--studies", str(material.study), "--task", str(material.task_file)]
        assert main(["serve", *words, "--certificate", str(one), "--key", str(other)]) == 2
        assert capsys.readouterr().err == f"landmarklabel: {says}\n"


def test_serve_with_a_token_still_wants_tls(material, capsys):
    Tokens(material.study).new("ann", "annotator")
    assert main(["serve", "--studies", str(material.study), "--task", str(material.task_file), "--host", "0.0.0.0"]) == 2
    said = capsys.readouterr().err
    assert "this needs TLS (--certificate and --key)" in said and "a token" not in said


# --- Keycloak --------------------------------------------------------------------------------------------------------


@pytest.fixture
def realm():
    with stand_in() as started:
        yield started


def test_keycloaks_tokens_are_checked(material, running_server, realm):
    key, public = realm.key, realm.public
    ask = lambda token, method="GET", path="/info/": server.http(method, path, headers={"Authorization": f"Bearer {token}"})  # noqa: E731
    signed = lambda *roles, **changes: jwt.encode(claims(*roles, **changes), key, "RS256")  # noqa: E731
    more = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": realm.address}
    with running_server(material, more=more) as server:
        assert server.http("GET", "/auth/").json()["enabled"] is True
        assert ask(signed("monailabel-user")).status_code == 200
        assert ask(signed("monailabel-user"), "POST", "/train/scn").status_code == 403
        assert ask(signed("monailabel-admin"), "POST", "/train/nothere").status_code == 404
        other = rsa.generate_private_key(65537, 2048)
        header = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0"  # {"alg":"none","typ":"JWT"}
        refused = {
            "expired": signed("monailabel-admin", exp=datetime.now(UTC) - timedelta(seconds=5)),
            "no expiry": jwt.encode({k: v for k, v in claims("monailabel-admin").items() if k != "exp"}, key, "RS256"),
            "another key": jwt.encode(claims("monailabel-admin"), other, "RS256"),
            "unsigned": f"{header}.{signed('monailabel-admin').split('.')[1]}.",
            "public key as secret": _hs256(claims("monailabel-admin"), public),
            "no roles": signed(),
            "roles of others": signed("admin", "realm-admin"),
            "roles no list": signed(realm_access={"roles": "monailabel-admin"}),
            "nobody": signed("monailabel-admin", preferred_username=None),
            "no token": "",
            "garbage": "a.b.c",
        }
        assert {what: ask(token).status_code for what, token in refused.items()} == dict.fromkeys(refused, 401)


def _hs256(content: dict, secret: bytes) -> str:
    """The old trick: signed with the public key as if it were a shared secret."""
    import base64
    import hashlib
    import hmac

    part = lambda raw: base64.urlsafe_b64encode(raw).rstrip(b"=")  # noqa: E731
    content = {**content, "exp": int(content["exp"].timestamp())}
    head = part(b'{"alg":"HS256","typ":"JWT"}') + b"." + part(json.dumps(content).encode())
    return (head + b"." + part(hmac.new(secret, head, hashlib.sha256).digest())).decode()
