"""HTTP to the server. Every call may block: call it from the worker, never from the thread that draws."""

from __future__ import annotations

import hashlib
import threading
import uuid
from pathlib import Path

import requests

from .measured import Measured, parse_measured
from .sending import SentFile, name_of
from .trust import Trust, certificate_of, described, is_of_certificate, session_with
from .wire import Point, RevisionNumber, Task, WireError, given, parse_points, parse_task, sha256_of, to_measured_rows, to_rows

CONNECT_S, ANSWER_S, NETWORK_S = 4.0, 30.0, 300.0  # of waiting: for a connection, an answer, a network's answer
ALIVE_S = 2.0  # within which a server says that it is there
MEASURE_S = 10.0  # within which it says what points measure
CONTRACT = 1  # the version of what this client and a server say to each other
# What is said of an address that the server does not have: its own words, or those of what stands before it.
NO_ROUTE = ("there is nothing at this address", "Not Found", "Method Not Allowed", "the server answered 404")
MOST_BYTES, MOST_IMAGE_BYTES = 64 * 2**20, 8 * 2**30


class Unreachable(Exception):
    """Nobody answers, or the connection broke: try again later."""


class Busy(Unreachable):
    """The server is there, and cannot do it now, or failed: what was sent may be sent again."""


class Refused(Exception):
    """The server answered, and said no; the text is its reason."""


class NoRoute(Refused):
    """The server is older than this question."""


class NotAllowed(Refused):
    """The token is missing or wrong (401), or its role may not do this (403): what was sent is good, and may be sent later."""

    def __init__(self, text: str, status: int):
        super().__init__(text)
        self.status = status


class OtherStudy(Unreachable):
    """The address serves another study now than the one that was connected to."""


class Untrusted(Unreachable):
    """Nobody vouches for the server's certificate.

    Args:
        text: what a person should know.
        fingerprint: SHA-256 of the certificate.
        before: that of the one that was confirmed and is another one; empty where none was.
    """

    def __init__(self, text: str, fingerprint: str, before: str = ""):
        super().__init__(text)
        self.fingerprint, self.before = fingerprint, before


class NotShownHere(WireError):
    """The image is kept in a form that is not shown here; a person may open it in Slicer."""


class Conflict(Refused):
    """Somebody saved a newer revision: ``current`` is theirs (revision, points)."""

    def __init__(self, text: str, revision: int, author: str, points: list[Point]):
        super().__init__(text)
        self.revision, self.author, self.points = revision, author, points


class Client:
    """One server.

    Args:
        url: for example http://127.0.0.1:8000.
        token: sent as a bearer token, if any.
        trust: whose certificates are believed over https.
    """

    def __init__(self, url: str, token: str = "", trust: Trust | None = None):
        self.url, self.trust = url.rstrip("/"), trust or Trust()
        self._own = threading.local()  # requests' sessions belong to a thread
        self._headers = {"LandmarkLabel-Contract": str(CONTRACT)} | ({"Authorization": f"Bearer {token}"} if token else {})

    def study(self) -> str:
        """An id of the study, the same for ever; empty for a server that is older than this question."""
        try:
            return str(self._call("GET", "/landmarks/study").get("id") or "")
        except NoRoute:
            return ""

    def mean_study(self, study: str) -> None:
        """Say with every call from now on which study is meant: a server of another one raises OtherStudy."""
        if study:
            self._headers = {**self._headers, "LandmarkLabel-Study": study}

    def alive(self) -> bool:
        """Whether it answers at all, within seconds. Raises Unreachable."""
        self._request("GET", "/health", timeout=(ALIVE_S, ALIVE_S), any_answer=True)
        return True

    def who(self) -> dict:
        """{"name", "roles"} of whoever this token belongs to; no name where none is needed."""
        answer = self._call("GET", "/auth/token/valid")
        roles = answer.get("roles")
        return {"name": str(answer.get("name") or ""), "roles": [str(r) for r in roles] if isinstance(roles, list) else []}

    def task(self) -> Task:
        """The task served. Raises Unreachable, Refused, WireError, as all calls do."""
        return parse_task(self._call("GET", "/landmarks/task"))

    def info(self) -> dict:
        """{"models": name to description, "strategies": names, "training": name to the newest run's statistics}."""
        answer = self._call("GET", "/info/")
        _check_contract(answer)
        return {
            "models": _dict(answer.get("models")),
            "strategies": list(_dict(answer.get("strategies"))),
            "training": _dict(answer.get("train_stats")),
        }

    def cases(self) -> list[dict]:
        """All images: {"image", "revision", "author", "created", "labelled"}."""
        rows = self._call("GET", "/landmarks/images").get("images")
        return [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []

    def download(self, image_id: str, folder: Path, suffixes: tuple[str, ...], pixels: str = "") -> Path:
        """The image's file, under a name of our own in ``folder``; NotShownHere unless it ends in one of ``suffixes``.

        Other ``pixels`` (of ``Client.pixels``) have another name: who shows a file notices that it is another image. Nobody
        writes to it any more when this returns: a download that was given up has files of its own.
        """
        where = {"params": {"image": image_id}, "stream": True, "timeout": (CONNECT_S, NETWORK_S)}
        with self._request("GET", "/datastore/image", **where) as answer:
            named = answer.headers.get("content-disposition", "").rstrip('"').lower()
            suffix = next((s for s in suffixes if named.endswith(s)), None)
            if suffix is None:
                raise NotShownHere(f"{image_id} is stored in a way that is not shown here: open it in Slicer yourself")
            folder.mkdir(parents=True, exist_ok=True)
            name, size = hashlib.sha256(f"{image_id}\0{pixels or uuid.uuid4().hex}".encode()).hexdigest()[:16], 0
            part, whole = folder / f"{name}-{uuid.uuid4().hex}.part", folder / f"{name}{suffix}"
            try:
                with part.open("wb") as file:
                    for block in answer.iter_content(1 << 20):
                        size += len(block)
                        if size > MOST_IMAGE_BYTES:
                            raise WireError(f"{image_id} is larger than {MOST_IMAGE_BYTES >> 30} GiB")
                        file.write(block)
            except BaseException as error:
                part.unlink(missing_ok=True)
                if not isinstance(error, requests.RequestException):
                    raise
                raise Unreachable(f"{self.url} broke off ({type(error).__name__})") from None
        part.replace(whole)
        return whole

    def has_file(self, image_id: str, path: Path) -> bool:
        """Whether the server's image is this very file; False where that cannot be read."""
        digest = hashlib.sha256()
        try:
            with path.open("rb") as file:
                while block := file.read(1 << 20):
                    digest.update(block)
        except OSError:
            return False
        where = {"image": image_id, "check_sum": f"SHA256:{digest.hexdigest()}"}
        try:
            self._request("HEAD", "/datastore/image", params=where, timeout=(CONNECT_S, NETWORK_S)).close()
        except NotAllowed:
            raise
        except Refused:  # it has another
            return False
        return True

    def upload(self, image_id: str, path: Path) -> str:
        """A new image for the study; returns its id."""
        return str(self._send("PUT", "/datastore/", path, {"image": image_id}).get("image", image_id))

    def next_case(self, strategy: str, who: str) -> dict:
        """{"id", "reason", "path"}; {} when every case is labelled or in other hands. ``who``: the same at every call."""
        return self._call("POST", f"/activelearning/{_safe(strategy)}", json={"client_id": who})

    def newest(self, image_id: str, task: Task) -> tuple[RevisionNumber, str, list[Point]]:
        """(revision, author, points) of an image; revision 0 where there is none."""
        return self._revision(self._call("GET", f"/landmarks/images/{_safe(image_id)}"), task)

    def pixels(self, image_id: str) -> tuple[str, bool]:
        """The hash of an image's pixels, empty where the server cannot read it, and whether it was labelled before it changed."""
        answer = self._call("GET", f"/landmarks/images/{_safe(image_id)}/pixels", NETWORK_S)
        return str(answer.get("pixels") or ""), answer.get("changed") is True

    def history(self, image_id: str, task: Task) -> list[tuple[RevisionNumber, str, list[Point]]]:
        """(revision, author, points) of all revisions, oldest first."""
        rows = self._call("GET", f"/landmarks/images/{_safe(image_id)}/history").get("revisions", [])
        return [self._revision(row, task) for row in rows]

    def predict(self, model: str, image_id: str, points: list[Point], task: Task) -> dict:
        """Proposals of a model that respect the points of a person; see ``_suggestion`` for what comes back."""
        where = {"image": image_id, "output": "json"}
        form = {"params": _json(given(points))}
        return self._suggestion(self._call("POST", f"/infer/{_safe(model)}", params=where, data=form, wait_s=NETWORK_S), task)

    def predict_file(self, model: str, path: Path, task: Task) -> dict:
        """Proposals for an image that no study has: as ``predict``, and the model's "version". OSError: it cannot be read."""
        answer = self._send("POST", f"/infer/{_safe(model)}", path, {"output": "json"})
        return {**self._suggestion(answer, task), "version": answer.get("model_version")}

    def update(self, model: str, image_id: str, points: list[Point], task: Task) -> dict:
        """The other points moved to those of a person, without a network pass."""
        body = {**given(points), "model": model}
        return self._suggestion(self._call("POST", f"/landmarks/images/{_safe(image_id)}/update", json=body), task)

    def measure(self, model: str, image_id: str, points: list[Point], task: Task) -> tuple[Measured, ...]:
        """What the points measure, in the task's order. Raises NoRoute where the server is older than that."""
        path, body = f"/landmarks/images/{_safe(image_id)}/measurements", {"landmarks": to_measured_rows(points)}
        body = {**body, "model": model} if model else body
        try:
            return parse_measured(self._call("POST", path, MEASURE_S, json=body).get("measurements"), task.measurements)
        except ValueError as error:
            raise WireError(f"{path}: {error}") from None

    def save(
        self,
        image_id: str,
        points: list[Point],
        task: Task,
        base_revision: int,
        author: str,
        key: str,
        repeat: bool = False,
        pixels: str = "",
    ) -> RevisionNumber:
        """The new revision's number; the same ``key`` twice saves once. Raises Conflict for a stale base.

        ``pixels``: of the image that the points were placed on; Refused where the server has another by now.
        """
        body = {"landmarks": to_rows(points), "base_revision": base_revision, "author": author, "key": key}
        body = {**body, **({"repeat": True} if repeat else {}), **({"pixels": pixels} if pixels else {})}
        condition = {"If-Match": f'"{seen}"'} if (seen := sha256_of(base_revision)) else {}
        answer = self._call("PUT", f"/landmarks/images/{_safe(image_id)}", json=body, allow_conflict=True, headers=condition)
        if "current" in answer:
            revision, other, theirs = self._revision(answer["current"], task)
            raise Conflict(str(answer.get("detail", "a newer revision exists")), revision, other, theirs)
        if "revision" not in answer and "detail" in answer:  # a conflict of another kind: the image, the task or the key
            raise Refused(str(answer["detail"]))
        if type(answer.get("revision")) is not int:
            raise WireError(f"{image_id}: the answer says no revision")
        return RevisionNumber.of(answer["revision"], answer.get("sha256"))  # no landmarks: the task may have more by now

    def train(self, model: str, minutes: float) -> None:
        """Start a training in the background."""
        self._call("POST", f"/train/{_safe(model)}", json={"minutes": minutes})

    def stop_training(self) -> None:
        """Stop it; what was trained so far is gone on with by the next one."""
        self._call("DELETE", "/train/")

    def training_runs(self) -> bool:
        """Whether a training runs or waits; True for who may not ask."""
        try:
            status = self._call("GET", "/train/").get("status")
        except NotAllowed:
            return True
        except Refused:  # none was ever started
            return False
        return status in ("SUBMITTED", "RUNNING")

    def _send(self, method: str, path: str, file: Path, params: dict) -> dict:
        with file.open("rb") as content:
            sent = SentFile(content, name_of(file))
            return self._call(method, path, NETWORK_S, params=params, data=sent, headers=sent.headers)

    def _call(self, method: str, path: str, wait_s: float = ANSWER_S, allow_conflict: bool = False, **more) -> dict:
        answer = self._request(method, path, timeout=(CONNECT_S, wait_s), allow_conflict=allow_conflict, **more)
        if len(answer.content) > MOST_BYTES:
            raise WireError(f"{path}: the answer is larger than {MOST_BYTES} bytes")
        try:
            content = answer.json()
        except ValueError:
            raise WireError(f"{path}: the answer is no JSON: is {self.url} a LandmarkLabel server?") from None
        return content if isinstance(content, dict) else {"value": content}

    def _request(
        self, method: str, path: str, allow_conflict: bool = False, any_answer: bool = False, **more
    ) -> requests.Response:
        headers = {**self._headers, **more.pop("headers", {})}
        try:
            answer = self._session().request(method, self.url + path, headers=headers, allow_redirects=False, **more)
        except requests.exceptions.SSLError as error:
            if not is_of_certificate(error):  # a proxy that begins anew, say: it says nothing about whom to believe
                raise Unreachable(f"{self.url} does not answer over https ({type(error).__name__})") from None
            raise self._untrusted(error) from None
        except UnicodeEncodeError:
            raise NotAllowed("a token has letters, digits, '-' and '_' only", 401) from None
        except (requests.exceptions.MissingSchema, requests.exceptions.InvalidSchema, requests.exceptions.InvalidURL):
            raise Refused(f"{self.url or 'nothing'} is no address: type one as http://127.0.0.1:8000") from None
        except (requests.RequestException, ValueError) as error:
            raise Unreachable(f"{self.url} does not answer ({type(error).__name__})") from None
        if not any_answer and not (allow_conflict and answer.status_code == 409):
            _check_status(answer)
        return answer

    def _session(self) -> requests.Session:
        session = getattr(self._own, "session", None)
        if session is None:
            session = self._own.session = session_with(self.trust, self.url)
        return session

    def _untrusted(self, error: Exception) -> Unreachable:
        """Why no connection came about over https, and the certificate that a person may confirm."""
        try:
            found = certificate_of(self.url, CONNECT_S)
        except (OSError, ValueError):
            return Unreachable(f"{self.url} does not answer over https ({type(error).__name__})")
        if before := self.trust.fingerprint:
            text = f"{self.url} has another certificate than the one you confirmed: believe it only where its operator has"
            return Untrusted(f"{text} renewed it and names this fingerprint: {described(found)}", found, before)
        return Untrusted(f"nobody vouches for the certificate of {self.url}, fingerprint {described(found)}", found)

    def _revision(self, content: object, task: Task) -> tuple[RevisionNumber, str, list[Point]]:
        if not isinstance(content, dict) or not isinstance(content.get("revision"), int):
            raise WireError("the answer is no revision")
        return (
            RevisionNumber.of(content["revision"], content.get("sha256")),
            str(content.get("author", "")),
            parse_points(content.get("landmarks"), task, content.get("unit")),
        )

    def _suggestion(self, content: dict, task: Task) -> dict:
        """{"points", "next": name or None, "origin", "second_pass", "cautions": what to know of the model first}."""
        following, cautions = content.get("next"), content.get("cautions", [])
        return {
            "points": parse_points(content.get("landmarks"), task, content.get("unit")),
            "next": following if following in task.names else None,
            "origin": str(content.get("origin", "")),
            "second_pass": bool(content.get("second_pass", False)),
            "cautions": [str(one) for one in cautions] if isinstance(cautions, list) else [],
        }


def _check_status(answer: requests.Response) -> None:
    """Raise what a status of 400 or more means."""
    status = answer.status_code
    if status < 400:
        return
    said = _detail(answer)
    if status in (408, 429) or status >= 500:
        raise Busy(f"the server failed with {status}" if said.endswith(str(status)) else said)
    if status == 421:
        raise OtherStudy(said)
    if status in (401, 403):
        raise NotAllowed(said, status)
    if status in (404, 405) and said in NO_ROUTE:
        raise NoRoute(said)
    raise Refused(said)


def _check_contract(info: dict) -> None:
    """Raise Refused where the server speaks another version than this client; the first ones did not say theirs."""
    spoken = info.get("contract", CONTRACT)
    if spoken != CONTRACT:
        older = "server" if isinstance(spoken, int) and spoken < CONTRACT else "extension"
        server = f"the server (LandmarkLabel {str(info.get('version'))[:40]})"
        said = f"{server} speaks version {str(spoken)[:20]} of the contract and this extension {CONTRACT}"
        raise Refused(f"{said}: upgrade the {older}")


def _detail(answer: requests.Response) -> str:
    try:
        return str(answer.json()["detail"])[:500]
    except (ValueError, KeyError, TypeError):
        return f"the server answered {answer.status_code}"


def _dict(value: object) -> dict:
    return value if isinstance(value, dict) else {}


def _safe(text: str) -> str:
    return requests.utils.quote(text, safe="")


def _json(value: object) -> str:
    import json

    return json.dumps(value, allow_nan=False)
