"""A real server whose study has had tokens stays closed whatever becomes of them, insecure or not, and says how to mend it."""

from __future__ import annotations

import pytest
from serving import phantoms, wait_until

from landmarklabel.cli import main
from landmarklabel.server.access import FROM_ANYWHERE, ROUTES
from landmarklabel.services.callers import OPEN
from landmarklabel.store.study import Study
from landmarklabel.store.tokens import NEEDED, Tokens

MAKE = "landmarklabel token new STUDY --name NAME --role annotator|reviewer|admin"


@pytest.fixture
def material(tmp_path):
    return phantoms(tmp_path, 2)


def bearer(token: str) -> dict:
    return {"headers": {"Authorization": f"Bearer {token}"}}


def answers(server, **options) -> set[int]:
    """Statuses of every route that is not open."""
    found = set()
    for route, (needed, _) in ROUTES.items():
        method, _, path = route.partition(" ")
        if needed == OPEN or route in FROM_ANYWHERE:
            continue
        for key, value in {"model": "scn", "strategy": "random", "image_id": "phantom00", "session_id": "x"}.items():
            path = path.replace(f"{{{key}}}", value)
        found.add(server.http(method, path, params={"image": "phantom00", "id": "phantom00"}, **options).status_code)
    return found


def told(material) -> bool:
    study = Study(material.study, material.task)
    try:
        return any(change.what == NEEDED for change in study.revisions.changes())
    finally:
        study.close()


@pytest.mark.parametrize("conf", [(), ("insecure", "true")], ids=["local", "insecure"])
def test_tokens_that_are_lost_while_it_runs_open_nothing(material, running_server, conf):
    tokens = Tokens(material.study)
    token, kept = tokens.new("ann", "annotator"), tokens.path.read_bytes()
    own = material.study / ".landmarklabel"
    changes = {
        "gone": tokens.path.unlink,
        "emptied": lambda: tokens.path.write_bytes(b""),
        "none left": lambda: tokens.path.write_bytes(b"[]"),
        "misspelt": lambda: tokens.path.write_bytes(kept.replace(b"annotator", b"anotator")),
        "damaged": lambda: tokens.path.write_bytes(kept[:-20]),
        "both files gone": lambda: (tokens.path.unlink(), tokens.marker.unlink()),
    }
    with running_server(material, *conf) as server:
        assert server.http("GET", "/info/", **bearer(token)).status_code == 200
        assert server.http("GET", "/info/").status_code == 401
        for what, change in changes.items():
            change()
            for who in ({}, bearer(token), bearer("x")):
                assert answers(server, **who) == {503}, what
                said = server.http("GET", "/info/", **who).json()["detail"]
                assert said.startswith("nobody is let in: this study asks for tokens, and ") and MAKE in said
            assert server.http("POST", "/auth/token", data={"username": "x", "password": token}).status_code == 503
            assert server.get("/auth/")["enabled"] is True
            tokens.path.write_bytes(kept)
            assert server.http("GET", "/info/", **bearer(token)).status_code == 200, "as soon as it is mended"
        own.rename(material.study / ".elsewhere")
        assert answers(server) == answers(server, **bearer(token)) == {503}
        assert "the study folder is gone" in server.http("GET", "/info/").json()["detail"]
        assert not own.exists(), "nothing is made anew where the study was"
        (material.study / ".elsewhere").rename(own)
        material.study.rename(material.study.with_name("moved"))
        assert answers(server, **bearer(token)) == {503}
        material.study.with_name("moved").rename(material.study)
        assert server.http("GET", "/info/", **bearer(token)).status_code == 200
        tokens.new("ann", "annotator")
        assert server.http("GET", "/info/", **bearer(token)).status_code == 401
        kept = server.get("/datastore/?output=all", **bearer(tokens.new("bea", "admin")))["objects"]
        assert sorted(kept) == sorted(material.truth)


def test_a_restarted_server_knows_from_the_marker_and_without_it_from_the_audit_trail(material, running_server, capsys):
    tokens = Tokens(material.study)
    tokens.new("ann", "annotator")
    tokens.path.unlink()
    serve = ["serve", "--studies", str(material.study), "--task", str(material.task_file)]
    for more in ([], ["--insecure"]):
        assert main([*serve, "--port", "0", *more]) == 2
        said = capsys.readouterr().err
        assert "tokens.json is gone" in said and MAKE.replace("STUDY", str(material.study)) in said and said.count("\n") == 1
    with running_server(material, "insecure", "true", ready=503) as server:  # writes into the audit trail
        assert answers(server) == {503} and server.get("/health")["status"] == "ok"
        assert "nobody is let in" in server.log.read_text(encoding="utf-8")
    tokens.marker.unlink()
    with running_server(material, "insecure", "true", ready=503) as server:
        assert answers(server) == {503}


def test_tokens_made_while_an_open_server_runs_close_it_for_good(material, running_server):
    with running_server(material, "insecure", "true") as server:
        assert server.http("GET", "/info/").status_code == 200
        token = Tokens(material.study).new("ann", "annotator")
        assert server.http("GET", "/info/").status_code == 401
        assert server.http("GET", "/info/", **bearer(token)).status_code == 200
        wait_until(lambda: told(material), 30, "the audit trail to tell of it")
        for name in ("tokens.json", "tokens_needed"):
            (material.study / ".landmarklabel" / name).unlink()
        assert answers(server) == {503}
    with running_server(material, "insecure", "true", ready=503) as server:
        assert answers(server) == {503}


def test_one_misspelt_role_is_said_to_its_holder_alone(material, running_server):
    tokens = Tokens(material.study)
    ann, bea = tokens.new("ann", "annotator"), tokens.new("bea", "reviewer")
    tokens.path.write_text(tokens.path.read_text(encoding="utf-8").replace("annotator", "anotator"), encoding="utf-8")
    with running_server(material) as server:
        refused = server.http("GET", "/info/", **bearer(ann))
        assert refused.status_code == 403
        assert refused.json()["detail"].startswith("this token is good for nothing: its role 'anotator' is none of annotator,")
        assert server.http("GET", "/info/", **bearer(bea)).status_code == 200
        assert server.http("GET", "/info/").status_code == 401
