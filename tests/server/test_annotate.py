"""The front end's address: its files, logging in and out, drafts, frames and pictures, over HTTP against a real server."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import numpy as np
import pytest
import requests
import SimpleITK as sitk
from PIL import Image as Picture
from serving import Material, phantoms, serving

from landmarklabel.data.synthetic import phantom_task
from landmarklabel.io.files import write_json
from landmarklabel.server import annotate
from landmarklabel.server.browser_login import BrowserLogins
from landmarklabel.services.callers import Caller, Role
from landmarklabel.store.tokens import Tokens

CONTRACT = {"landmarklabel-contract": "1"}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return phantoms(tmp_path_factory.mktemp("study"), 3)


@pytest.fixture(scope="module")
def token(material) -> str:
    return Tokens(material.study).new("ann", "annotator")


@pytest.fixture(scope="module")
def server(material, token):
    with serving(material) as started:
        yield started


@pytest.fixture()
def browser(server, token) -> requests.Session:
    """As a browser that has logged in; it sends the cookie that it was given, and no token."""
    session = requests.Session()
    session.headers.update(CONTRACT)
    answer = session.post(f"{server.url}/annotate/login", json={"token": token}, timeout=30)
    assert answer.status_code == 200, answer.text
    return session


def test_the_page_is_open_and_runs_only_its_own_files(server):
    answer = requests.get(f"{server.url}/annotate", timeout=30)
    assert answer.url == f"{server.url}/annotate/", "people type it without the slash"
    if not annotate.BUILT.is_dir():
        pytest.skip("the front end is not built: python scripts/web.py says why")
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' blob: data:" in policy
    assert "unsafe" not in policy
    names = [path.name for path in annotate.BUILT.iterdir()]
    pages = [path.read_text(encoding="utf-8") for path in sorted(annotate.BUILT.glob("*.html"))]
    assert answer.text in pages and len(pages) == 2
    assert all(any(name in page for page in pages) for name in names if name.endswith((".js", ".css")))
    assert all("http" not in page for page in pages)  # nothing from elsewhere
    for name in names:
        part = requests.get(f"{server.url}/annotate/{name}", timeout=30)
        assert part.status_code == 200 and part.content == (annotate.BUILT / name).read_bytes()


@pytest.mark.parametrize("name", ["nothing.js", "..%2Fannotate.py", "%2e%2e", "index.html%00", "C:%5Cx"])
def test_no_other_file_can_be_asked_for(server, name):
    assert requests.get(f"{server.url}/annotate/{name}", timeout=30).status_code in (400, 404)


def test_a_login_is_a_cookie_that_scripts_cannot_read_and_other_sites_cannot_send(server, token):
    answer = requests.post(f"{server.url}/annotate/login", json={"token": token}, timeout=30)
    said = answer.headers["set-cookie"]
    named = (
        f"landmarklabel-{server.get('/landmarks/study', headers=bearer(token))['id'][:8]}="  # one for every study of a computer
    )
    assert said.startswith(named) and "HttpOnly" in said and "SameSite=strict" in said and "Path=/;" in said
    assert f"Max-Age={answer.json()['seconds']}" in said and token not in said


def test_whoever_has_logged_in_is_known_by_name_until_they_log_out(server, browser):
    who = browser.get(f"{server.url}/auth/token/valid", timeout=30).json()
    assert (who["name"], who["roles"]) == ("ann", ["user", "annotator"])
    assert browser.post(f"{server.url}/train/scn", json={}, timeout=30).status_code == 403
    out = browser.delete(f"{server.url}/annotate/login", timeout=30)
    assert out.status_code == 200 and not list(browser.cookies)
    answer = browser.get(f"{server.url}/landmarks/task", timeout=30)
    assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"  # no browser asks for a password


@pytest.mark.parametrize("given", [{}, {"token": ""}, {"token": "wrong"}, {"token": 5}])
def test_what_is_no_token_lets_nobody_in(server, given):
    answer = requests.post(f"{server.url}/annotate/login", json=given, timeout=30)
    assert answer.status_code == 401 and "set-cookie" not in answer.headers
    assert answer.json()["detail"] == "this is no token of this server, or it has expired"


def bearer(token: str) -> dict:
    return {"Authorization": f"Bearer {token}"}


def test_what_was_made_for_another_study_at_this_address_is_not_taken(server, browser):
    """A page that stays open says for which study it speaks."""
    own = browser.get(f"{server.url}/landmarks/study", timeout=30).json()["id"]
    assert browser.get(f"{server.url}/landmarks/task", headers={"LandmarkLabel-Study": own}, timeout=30).status_code == 200
    answer = browser.put(
        f"{server.url}/landmarks/images/phantom00",
        json={"landmarks": [], "base_revision": 0},
        headers={"LandmarkLabel-Study": "0" * 32},
        timeout=30,
    )
    said = "another study is at this address now than the one that this page was opened with"
    assert (answer.status_code, answer.json()["detail"]) == (421, said)


@pytest.mark.parametrize(("meant", "status"), [("ann", 200), ("J%C3%B6rg B", 401), ("bob", 401), ("", 401)])
def test_what_one_person_did_is_not_taken_under_the_name_of_whoever_logged_in_later(server, browser, meant, status):
    said = {"landmarklabel-person": meant}
    answer = browser.get(f"{server.url}/landmarks/images", headers=said, timeout=30)
    assert answer.status_code == status
    if status == 401:
        assert answer.json()["detail"].startswith("somebody else has logged in in this browser since this page was opened")


def test_a_name_of_any_letters_is_the_pages_own(tmp_path):
    made = phantoms(tmp_path, 1)
    token = Tokens(made.study).new("J\u00f6rg B", "annotator")
    with serving(made) as started:
        said = {"landmarklabel-person": "J%C3%B6rg%20B", "Authorization": f"Bearer {token}"}
        assert requests.get(f"{started.url}/landmarks/images", headers=said, timeout=30).status_code == 200


def test_another_sites_page_is_not_answered_though_the_browser_has_a_login(server, browser):
    answer = browser.put(
        f"{server.url}/landmarks/images/phantom00", json={"landmarks": []}, headers={"Origin": "https://evil.example"}, timeout=30
    )
    assert answer.status_code == 403


def test_a_login_ends_with_its_time_with_its_token_and_with_the_key(tmp_path):
    tokens, now = Tokens(tmp_path), [1000.0]
    token = tokens.new("ann", "reviewer")
    logins = BrowserLogins(tmp_path, tokens, clock=lambda: now[0])
    cookie = f"{logins.cookie}={logins.cookie_for(token)}; other=1"
    assert logins.caller_of(cookie).name == "ann"
    assert BrowserLogins(tmp_path, tokens, clock=lambda: now[0]).caller_of(cookie).name == "ann"  # after a restart
    now[0] += 12 * 3600 - 1
    assert logins.caller_of(cookie) is not None
    now[0] += 1
    assert logins.caller_of(cookie) is None
    now[0] = 1000.0
    tokens.new("ann", "reviewer")  # the earlier one ends
    assert logins.caller_of(cookie) is None
    cookie = f"{logins.cookie}={logins.cookie_for(tokens.new('bob', 'annotator'))}"
    (tmp_path / ".landmarklabel" / "login_key").unlink()
    assert logins.caller_of(cookie) is None


def test_where_another_server_knows_people_a_login_outlives_its_token_and_ends_with_its_time(tmp_path):
    known, now = {"short": Caller("kim", Role.ANNOTATOR)}, [1000.0]
    logins = BrowserLogins(tmp_path, Tokens(tmp_path), known.get, clock=lambda: now[0])
    assert logins.cookie_for("other") is None
    cookie = f"{logins.cookie}={logins.cookie_for('short')}"
    known.clear()
    assert logins.caller_of(cookie) == Caller("kim", Role.ANNOTATOR)
    now[0] += 12 * 3600
    assert logins.caller_of(cookie) is None


def test_a_login_of_one_kind_is_none_of_the_other(tmp_path):
    tokens = Tokens(tmp_path)
    own, other = BrowserLogins(tmp_path, tokens), BrowserLogins(tmp_path, tokens, lambda _: Caller("kim", Role.ADMIN))
    mine, theirs = own.cookie_for(tokens.new("ann", "admin")), other.cookie_for("x")
    assert own.caller_of(f"{own.cookie}={mine}").name == "ann" and other.caller_of(f"{own.cookie}={theirs}").name == "kim"
    assert other.caller_of(f"{own.cookie}={mine}") is None and own.caller_of(f"{own.cookie}={theirs}") is None


@pytest.mark.parametrize(
    "change", [lambda v: v[:-2], lambda v: "", lambda v: v.replace(".", "", 1), lambda v: "a.b.c", lambda v: v + "x"]
)
def test_a_cookie_that_was_changed_is_nobodys(tmp_path, change):
    tokens = Tokens(tmp_path)
    logins = BrowserLogins(tmp_path, tokens)
    value = logins.cookie_for(tokens.new("ann", "admin"))
    assert logins.caller_of(f"{logins.cookie}={change(value)}") is None


def test_the_key_is_its_owners_and_goes_into_no_backup(tmp_path):
    from landmarklabel.services.backup_files import look

    tokens = Tokens(tmp_path)
    BrowserLogins(tmp_path, tokens).cookie_for(tokens.new("ann", "admin"))
    key = tmp_path / ".landmarklabel" / "login_key"
    assert key.stat().st_mode & 0o077 == 0
    assert ".landmarklabel/login_key" not in look(tmp_path).files and ".landmarklabel/tokens.json" in look(tmp_path).files


def test_a_study_has_an_id_of_its_own_for_ever(server, browser, material, tmp_path):
    known = browser.get(f"{server.url}/landmarks/study", timeout=30).json()
    assert len(known["id"]) == 32 and known == browser.get(f"{server.url}/landmarks/study", timeout=30).json()
    assert known["id"] == (Path(material.study) / ".landmarklabel" / "id").read_text(encoding="ascii")
    assert requests.get(f"{server.url}/landmarks/study", timeout=30).status_code == 401


def row(name: str, x: float) -> dict:
    return {"name": name, "status": "placed", "position": [x, 20.0]}


def test_a_draft_is_its_authors_alone_and_goes_when_the_case_is_submitted(server, browser, material):
    at, name = f"{server.url}/landmarks/images/phantom01/draft", material.task.names[0]
    assert browser.get(at, timeout=30).json() == {"image": "phantom01", "draft": None}
    sent = {"landmarks": [row(name, 30.0)], "base_revision": 0, "edits": 4, "author": "somebody else", "pixels": "hash"}
    assert browser.put(at, json=sent, timeout=30).status_code == 200
    kept = browser.get(at, timeout=30).json()["draft"]
    assert {r["name"]: r["position"] for r in kept["landmarks"] if r["position"]} == {name: [30.0, 20.0]}
    assert (kept["edits"], kept["base_revision"], kept["pixels"]) == (4, 0, "hash") and kept["saved"] > "2026"
    other = requests.Session()
    other.headers["Authorization"] = f"Bearer {Tokens(material.study).new('bob', 'annotator')}"
    assert other.get(at, timeout=30).json()["draft"] is None
    assert browser.get(f"{at}?repeat=true", timeout=30).json()["draft"] is None
    assert browser.get(f"{server.url}/landmarks/images/phantom01", timeout=30).json()["revision"] == 0  # a draft is no revision
    saved = browser.put(at.rpartition("/")[0], json={"landmarks": [row(name, 31.0)], "base_revision": 0}, timeout=30)
    assert saved.status_code == 200 and browser.get(at, timeout=30).json()["draft"] is None


def test_a_case_that_is_drafted_stays_its_persons(server, browser, material):
    chosen = browser.post(f"{server.url}/activelearning/first", json={}, timeout=30).json()["id"]
    leases = material.study / ".landmarklabel" / "leases.json"

    def since() -> float:
        return json.loads(leases.read_text(encoding="utf-8"))["held"][chosen]["since"]

    before = since()
    sent = {"landmarks": [row(material.task.names[0], 30.0)], "base_revision": 0, "edits": 1}
    assert browser.put(f"{server.url}/landmarks/images/{chosen}/draft", json=sent, timeout=30).status_code == 200
    assert since() > before
    browser.delete(f"{server.url}/landmarks/images/{chosen}/draft", timeout=30)


def test_a_draft_is_checked_as_a_submission_is(server, browser):
    at = f"{server.url}/landmarks/images/phantom01/draft"
    answer = browser.put(at, json={"landmarks": [row("nobody", 1.0)], "base_revision": 0}, timeout=30)
    assert answer.status_code == 400 and "has no landmark 'nobody'" in answer.json()["detail"]
    for wrong in ({"landmarks": []}, {"landmarks": [], "base_revision": 0, "edits": -1}):
        assert browser.put(at, json=wrong, timeout=30).status_code == 422
    assert browser.get(f"{server.url}/landmarks/images/no_such/draft", timeout=30).status_code == 404


def test_drafts_are_dropped_when_discarded_and_outlive_the_server(material, token, server, browser):
    at = f"{server.url}/landmarks/images/phantom02/draft"
    browser.put(at, json={"landmarks": [], "base_revision": 0, "edits": 1}, timeout=30)
    files = list((Path(material.study) / ".landmarklabel" / "drafts").rglob("*.json"))
    assert [json.loads(f.read_text(encoding="utf-8"))["image"] for f in files] == ["phantom02"]
    assert browser.delete(at, timeout=30).json() == {"image": "phantom02", "draft": None}
    assert browser.get(at, timeout=30).json()["draft"] is None


def test_the_frame_leads_from_samples_to_mm_and_back_and_the_picture_is_the_image(server, browser, material):
    frame = browser.get(f"{server.url}/landmarks/images/phantom00/frame", timeout=60).json()
    image = sitk.ReadImage(str(material.image("phantom00")))
    assert frame["size"] == list(image.GetSize()) and frame["window"] == [0, 255]
    to_mm, to_index = np.array(frame["to_mm"]), np.array(frame["to_index"])
    for index in ([0, 0], [12.25, 3.5]):
        place = to_mm @ [*index, 1]
        assert place == pytest.approx(image.TransformContinuousIndexToPhysicalPoint(index), abs=1e-9)
        assert to_index @ [*place, 1] == pytest.approx(index, abs=1e-9)
    assert frame["pixels"] == browser.get(f"{server.url}/landmarks/images/phantom00/pixels", timeout=60).json()["pixels"]
    shown = browser.get(f"{server.url}/landmarks/images/phantom00/picture", timeout=60)
    assert shown.headers["content-type"] == "image/png"
    assert np.array_equal(np.asarray(Picture.open(io.BytesIO(shown.content))), sitk.GetArrayFromImage(image))
    window = {"low": 100, "high": 101}
    hard = np.asarray(Picture.open(io.BytesIO(browser.get(shown.url, params=window, timeout=60).content)))
    assert np.array_equal(hard > 0, sitk.GetArrayFromImage(image) > 100)
    assert browser.get(shown.url, params={"low": 5, "high": 5}, timeout=60).status_code == 400


def test_a_slice_of_a_volume_keeps_its_place_in_the_patient(tmp_path):
    (tmp_path / "study").mkdir()
    image = sitk.GetImageFromArray(np.random.default_rng(0).integers(-500, 1500, (1, 40, 60)).astype(np.int16))
    image.SetSpacing((0.5, 0.7, 3.0))
    image.SetOrigin((10.0, -20.0, 30.0))
    turned = np.array([[0, 0, 1.0], [1, 0, 0], [0, -1, 0]])  # a sagittal slice
    image.SetDirection(turned.ravel())
    sitk.WriteImage(image, str(tmp_path / "study" / "slice.nrrd"))
    task = phantom_task(2)
    write_json(tmp_path / "task.json", task.to_json())
    with serving(Material(tmp_path / "study", tmp_path / "task.json", task, {})) as server:
        frame = requests.get(f"{server.url}/landmarks/images/slice/frame", timeout=60).json()
        place = np.array(frame["to_mm"]) @ [7.0, 3.0, 1]
        assert place == pytest.approx(image.TransformContinuousIndexToPhysicalPoint((7.0, 3.0, 0.0)), abs=1e-9)
        assert np.array(frame["to_index"]) @ [*place, 1] == pytest.approx([7.0, 3.0], abs=1e-9)
        low, high = frame["window"]
        assert frame["range"][0] <= low < high <= frame["range"][1] and high - low < 2000


def test_drafts_that_nobody_went_on_with_make_room(tmp_path, monkeypatch):
    from dataclasses import replace

    from landmarklabel.errors import TooMany
    from landmarklabel.services import drafts

    monkeypatch.setattr(drafts, "LIMITS", replace(drafts.LIMITS, drafts=2))
    now = [time.time()]
    kept = drafts.Drafts(tmp_path, lambda: now[0])
    for image in ("a", "b", "a"):
        kept.keep("ann", image, False, {"edits": 1})
    with pytest.raises(TooMany, match="^you have 2 drafts already: submit or discard one first"):
        kept.keep("ann", "c", False, {})
    kept.keep("bob", "c", False, {})
    now[0] += drafts.LIMITS.draft_s + 60
    kept.keep("ann", "c", False, {})
    assert kept.get("ann", "a", False) is None and kept.get("ann", "c", False)["image"] == "c"
