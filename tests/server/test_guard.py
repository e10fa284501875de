"""The guard by itself: who is let in from where, how much a request may hold, and what an answer or the log may say."""

from __future__ import annotations

import asyncio
import base64
import re
from dataclasses import replace

import pytest
from fastapi import Body, FastAPI, File, UploadFile
from starlette.testclient import TestClient

from landmarklabel.errors import UsageError
from landmarklabel.server import guard as guards
from landmarklabel.server.access import SMALL, TEXT
from landmarklabel.server.app import add_error_handlers
from landmarklabel.server.browser_login import BrowserLogins
from landmarklabel.server.guard import NO_TOKENS, Guard, Policy
from landmarklabel.services.callers import ADMIN, ROLES, Caller, caller
from landmarklabel.store.tokens import Tokens

HERE, ELSEWHERE = ("127.0.0.1", 5), ("10.0.0.7", 5)
ROLE_OF = {"ann": "annotator", "rev": "reviewer", "adam": "admin"}


def make_app() -> FastAPI:
    """Addresses that are served for real, with small answers of their own."""
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)

    @app.get("/info/")
    def info() -> dict:
        return {"name": caller().name, "role": caller().role}

    @app.put("/landmarks/images/{image_id}")
    def save(image_id: str, body: dict = Body(...)) -> dict:
        return {"author": caller().name, "bytes": len(str(body))}

    @app.put("/datastore/image")
    def upload(image: str = "", file: UploadFile = File(...)) -> dict:
        return {"bytes": len(file.file.read())}

    @app.post("/train/{model}")
    def train(model: str) -> dict:
        if model == "JaneDoe":
            raise RuntimeError("JaneDoe is no model")
        raise UsageError("not now")

    add_error_handlers(app)
    return app


@pytest.fixture
def tokens(tmp_path):
    return Tokens(tmp_path)


def logins(tokens: Tokens) -> BrowserLogins:
    return BrowserLogins(tokens.path.parents[1], tokens)


@pytest.fixture
def served(tokens):
    """Makes a client of the guarded app, as seen from an address."""

    def make(client=HERE, policy=None, url="http://127.0.0.1:8000", **headers) -> TestClient:
        app = make_app()
        guarded = Guard(app.build_middleware_stack().app, app.router.routes, tokens, policy or Policy(), logins(tokens))
        return TestClient(guarded, base_url=url, client=client, headers=headers, raise_server_exceptions=False)

    return make


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# --- who, from where -------------------------------------------------------------------------------------------------


def test_without_tokens_this_computer_may_do_everything_and_nobody_else_anything(served):
    assert served().get("/info/").json() == {"name": "", "role": ADMIN}
    answer = served(ELSEWHERE).get("/info/")
    assert answer.status_code == 403 and answer.json()["detail"] == NO_TOKENS
    assert served(ELSEWHERE, Policy(insecure=True), "http://10.0.0.1").get("/info/").json()["role"] == ADMIN


def test_with_tokens_everybody_needs_one_here_as_well(served, tokens):
    token = tokens.new("ann", "annotator")
    assert served().get("/info/").status_code == 401
    assert served().get("/info/").headers["www-authenticate"].startswith("Basic ")
    assert served().get("/info/", headers=bearer(token + "x")).status_code == 401
    assert served().get("/info/", headers=bearer(token)).json() == {"name": "ann", "role": ROLES["annotator"]}


def test_a_token_is_the_password_of_any_name_for_browsers(served, tokens):
    token = tokens.new("ann", "annotator")
    for text, status in ((f"whoever:{token}", 200), ("whoever:wrong", 401), (token, 401)):
        basic = {"Authorization": "Basic " + base64.b64encode(text.encode()).decode()}
        assert served().get("/info/", headers=basic).status_code == status
    for damaged in ("Basic %%%", "Basic", "Basic /w==", "Digest x", f"Token {token}", ""):
        assert served().get("/info/", headers={"Authorization": damaged}).status_code == 401


def test_from_elsewhere_a_token_is_taken_over_https_only(served, tokens):
    token = tokens.new("ann", "annotator")
    plain = served(ELSEWHERE, url="http://10.0.0.1").get("/info/", headers=bearer(token))
    assert plain.status_code == 403 and plain.json()["detail"] == "tokens are taken over https only"
    assert served(ELSEWHERE, url="https://10.0.0.1").get("/info/", headers=bearer(token)).json()["name"] == "ann"
    assert served(ELSEWHERE, url="https://10.0.0.1").get("/info/").status_code == 401


@pytest.mark.parametrize(("name", "role"), ROLE_OF.items())
def test_a_role_may_do_what_lesser_ones_may_and_no_more(served, tokens, name, role):
    client = served(**bearer(tokens.new(name, role)))
    assert client.put("/landmarks/images/a", json={}).json()["author"] == name
    answer = client.post("/train/scn")
    allowed = role == "admin"
    assert answer.status_code == (400 if allowed else 403)
    assert answer.json()["detail"] == ("not now" if allowed else "this needs the role admin")


def test_a_removed_or_renewed_token_is_refused_at_once(served, tokens):
    first = tokens.new("ann", "annotator")
    assert served().get("/info/", headers=bearer(first)).status_code == 200
    second = tokens.new("ann", "reviewer")
    assert [served().get("/info/", headers=bearer(t)).status_code for t in (first, second)] == [401, 200]
    tokens.new("adam", "admin")
    tokens.remove("ann")
    assert served().get("/info/", headers=bearer(second)).status_code == 401


def test_another_identity_takes_the_place_of_tokens(served, tokens):
    policy = Policy(identity={"good": Caller("kim", ROLES["user"])}.get)
    assert served(policy=policy).get("/info/", headers=bearer("good")).json() == {"name": "kim", "role": ROLES["user"]}
    assert served(policy=policy).get("/info/", headers=bearer("bad")).status_code == 401
    assert served(policy=policy).put("/landmarks/images/a", json={}, headers=bearer("good")).status_code == 403
    assert served(policy=policy).get("/info/", headers=bearer(tokens.new("ann", "admin"))).status_code == 401


# --- web pages of others ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "[::2]", ""])
def test_a_name_that_a_stranger_points_at_this_computer_is_not_answered(served, host):
    assert served().get("/info/", headers={"Host": host}).status_code == 403


@pytest.mark.parametrize("host", ["localhost:8000", "127.0.0.1", "127.8.9.1:80", "[::1]:8000"])
def test_this_computers_own_names_are_answered(served, host):
    assert served().get("/info/", headers={"Host": host}).status_code == 200


def test_requests_from_pages_of_other_servers_are_refused_unless_they_are_named(served):
    ask = {"Origin": "https://viewer.example"}
    assert served().get("/info/", headers=ask).status_code == 403
    assert served().get("/info/", headers={"Origin": "null"}).status_code == 403
    assert served().get("/info/", headers={"Origin": "http://127.0.0.1:8000"}).status_code == 200
    allowed = served(policy=Policy(origins=frozenset({"https://viewer.example"}))).get("/info/", headers=ask)
    assert allowed.status_code == 200


def test_every_answer_says_how_browsers_are_to_treat_it(served):
    for answer in (served().get("/info/"), served().get("/nothing"), served().post("/train/JaneDoe")):
        assert answer.headers["x-content-type-options"] == "nosniff" and answer.headers["x-frame-options"] == "DENY"
        assert answer.headers["cache-control"] == "no-store" and "access-control-allow-origin" not in answer.headers


# --- what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "path"), [("GET", "/docs"), ("POST", "/reload"), ("POST", "/info/"), ("HEAD", "/info/")])
def test_what_is_not_listed_is_not_there(served, method, path):
    answer = served().request(method, path)
    assert answer.status_code == 404
    assert method == "HEAD" or answer.json() == {"detail": "there is nothing at this address"}


@pytest.mark.parametrize("name", ["../a", "a/b", "/etc/passwd", "..\\a", "a\0b", "a\nb", "C:\\a", "x" * 513, "%2e%2e/a"])
def test_a_query_names_no_paths(served, name):
    answer = served().put("/datastore/image", params={"image": name}, files={"file": b"x"})
    assert answer.status_code == 400 and "'image' names nothing here" in answer.json()["detail"]


# --- how much --------------------------------------------------------------------------------------------------------


def test_a_body_that_says_it_is_too_large_is_not_read(served):
    answer = served().put("/landmarks/images/a", content=b"{}", headers={"Content-Length": str(TEXT + 1)})
    assert answer.status_code == 413 and answer.json()["detail"] == f"a request to this address may have {TEXT} bytes"
    for nonsense in ("-1", "1e3", "x"):
        assert served().put("/landmarks/images/a", content=b"{}", headers={"Content-Length": nonsense}).status_code == 413


def test_a_body_that_turns_out_too_large_is_cut_off(served):
    taken = []

    def endless():
        for _ in range(100):
            taken.append(1)
            yield b" " * (1 << 20)

    answer = served().put("/landmarks/images/a", content=endless(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413 and "larger than this address takes" in answer.json()["detail"]


def test_an_upload_has_the_operators_limit(served):
    client = served(policy=Policy(most_upload=1000))
    assert client.put("/datastore/image", files={"file": b"x" * 500}).json() == {"bytes": 500}
    assert client.put("/datastore/image", files={"file": b"x" * 1000}).status_code == 413
    assert served().put("/datastore/image", files={"file": b"x" * 2 * SMALL}).json() == {"bytes": 2 * SMALL}


def test_a_body_that_stops_coming_is_given_up(tokens, monkeypatch):
    monkeypatch.setattr(guards, "LIMITS", replace(guards.LIMITS, pause_s=0.05))
    app, sent = make_app(), []
    guarded = Guard(app.build_middleware_stack().app, app.router.routes, tokens, Policy(), logins(tokens))
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive():
        return pieces.pop() if pieces else await asyncio.Event().wait()

    async def send(message):
        sent.append(message)

    headers = [(b"host", b"localhost"), (b"content-type", b"application/json")]
    scope = {
        "type": "http", "method": "PUT", "path": "/landmarks/images/a", "raw_path": b"", "query_string": b"", "headers": headers,
        "client": HERE, "server": ("localhost", 80), "scheme": "http", "http_version": "1.1", "root_path": "",
    }  # fmt: skip
    asyncio.run(asyncio.wait_for(guarded(scope, receive, send), 10))
    assert [m["type"] for m in sent] == ["http.response.start", "http.response.body"]
    assert sent[0]["status"] == 408 and (b"connection", b"close") in sent[0]["headers"]


# --- errors ----------------------------------------------------------------------------------------------------------


def test_an_internal_error_tells_the_client_a_number_and_the_log_no_data(served, console, capsys):
    answer = served().post("/train/JaneDoe")
    number = re.fullmatch(r"internal error; the server's log has it as ([0-9a-f]{8})", answer.json()["detail"])[1]
    said = "".join(capsys.readouterr())
    assert answer.status_code == 500 and f"internal error {number}: RuntimeError at test_guard.py:" in said
    assert "JaneDoe" not in said + answer.text and "Traceback" not in said


def test_a_full_disk_is_said_without_the_path(tokens):
    app = make_app()

    @app.get("/landmarks/task")
    def full():
        raise OSError(28, "No space left on device", "/data/JaneDoe")

    @app.get("/landmarks/images")
    def other():
        raise PermissionError(13, "Permission denied", "/data/JaneDoe")

    guarded = Guard(app.build_middleware_stack().app, app.router.routes, tokens, Policy(), logins(tokens))
    client = TestClient(guarded, base_url="http://localhost", client=HERE)
    answer = client.get("/landmarks/task")
    assert answer.status_code == 507 and answer.json()["detail"].startswith("the server's disk is full: nothing was changed")
    answer = client.get("/landmarks/images")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the server could not do this (Permission denied): look at the study's files"


# --- tokens ----------------------------------------------------------------------------------------------------------


def test_tokens_are_kept_as_hashes_in_a_file_of_the_owner(tokens):
    token = tokens.new("ann", "annotator")
    text = tokens.path.read_text(encoding="utf-8")
    assert token not in text and "ann" in text and tokens.path.stat().st_mode & 0o777 == 0o600
    assert len(token) >= 43 and tokens.new("bea", "admin") != token
    assert [(h.name, h.role) for h in tokens.holders()] == [("ann", "annotator"), ("bea", "admin")]


def test_every_hash_is_compared_whichever_fits(tokens, monkeypatch):
    made = [tokens.new(name, "annotator") for name in ("a", "b", "c")]
    compared = []
    monkeypatch.setattr("landmarklabel.store.tokens.hmac.compare_digest", lambda a, b: compared.append((a, b)) or a == b)
    for token in (made[0], made[2], "wrong"):
        compared.clear()
        tokens.holder(token)
        assert len(compared) == 3


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', '[{"name": "a"}]'])
def test_a_damaged_file_of_tokens_lets_nobody_in(served, tokens, content):
    tokens.new("ann", "annotator")
    tokens.path.write_text(content, encoding="utf-8")
    answer = served().get("/info/")
    assert answer.status_code == 503 and "tokens.json cannot be read" in answer.json()["detail"]
