"""The one gate in front of every request: which route, who asks, from where, how large, and what may be said of an error."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import ipaddress
import json
import re
import socket
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from urllib.parse import parse_qsl, unquote

from starlette.requests import ClientDisconnect
from starlette.routing import BaseRoute, Match

from landmarklabel import __version__
from landmarklabel.errors import LandmarkLabelError
from landmarklabel.server.access import FROM_ANYWHERE, ROUTES
from landmarklabel.server.browser_login import BrowserLogins
from landmarklabel.services.callers import OPEN, ROLES, Caller, set_caller
from landmarklabel.services.internal_errors import log_internal_error
from landmarklabel.services.limits import LIMITS
from landmarklabel.store.tokens import Closed, Tokens

CONTRACT = 1  # what clients and this server say to each other; a change that an older client cannot use makes it 2
STUDY_HEADER = "landmarklabel-study"  # of a page that was opened on a study: its id
PERSON_HEADER = "landmarklabel-person"  # of a page: the name, percent-encoded, of whoever had logged in when it was opened
CONTRACT_HEADER = "landmarklabel-contract"  # of a client that says which one it speaks; MONAI Label's own say nothing
_ONCE = frozenset(  # programs differ on which of two counts
    ("host", "origin", "authorization", "cookie", "content-length", "content-type", CONTRACT_HEADER, STUDY_HEADER, PERSON_HEADER)
)
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(:[0-9]{0,5})?")
_UNSAFE = re.compile(r"[\x00-\x1f\x7f/\\]|\.\.")  # in a name that a query gives
_SAID_ALWAYS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
NO_TOKENS = (
    "this server knows no tokens, so it answers programs on its own computer only; "
    "make one with: landmarklabel token new STUDY --name NAME --role annotator"
)


OTHER_PERSON = "somebody else has logged in in this browser since this page was opened: log in again as yourself"


class Refused(Exception):
    """A request that is not let through: status and reason."""

    def __init__(self, status: int, reason: str):
        self.status = status
        super().__init__(reason)


@dataclass(frozen=True)
class Policy:
    """What the operator has chosen.

    Args:
        insecure: let others than this computer in without token and TLS.
        most_upload: bytes of an uploaded image.
        origins: of web pages that may send requests; none by default.
        identity: tells who a bearer token belongs to by other means than the study's tokens (Keycloak); None where not used.
    """

    insecure: bool = False
    most_upload: int = 2 * 2**30
    origins: frozenset[str] = frozenset()
    identity: Callable[[str], Caller | None] | None = None


class Guard:
    """ASGI middleware; nothing is served that it does not let through.

    Args:
        app: what it guards.
        routes: those that are served; each is looked up in ``access.ROUTES``.
        tokens: of the study.
        policy: what the operator has chosen.
        logins: of browsers, whose cookie stands for a token.
        count: told of every answer: the route as listed (empty where there is none), the status, seconds.
    """

    def __init__(
        self,
        app,
        routes: Iterable[BaseRoute],
        tokens: Tokens,
        policy: Policy,
        logins: BrowserLogins,
        count: Callable[[str, int, float], None] = lambda route, status, seconds: None,
    ):
        self.app, self.routes, self.tokens, self.policy, self.count = app, tuple(routes), tokens, policy, count
        self.logins = logins

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
        if scope["type"] != "http":
            return
        request, started = _Request(scope, receive, send), time.monotonic()
        try:
            await self._answer(request)
        except Refused as refused:
            await request.refuse(refused.status, str(refused))
        except ClientDisconnect:
            pass
        except asyncio.CancelledError:  # it has been asked to end and does not wait longer
            await request.refuse(503, "the server is ending; ask again when it is back")
        except LandmarkLabelError as error:  # raised before a route could answer
            await request.refuse(error.http_status, str(error))
        except Exception as error:  # the log has no word of the request, the answer none of the log
            await request.refuse(500, f"internal error; the server's log has it as {log_internal_error(error)}")
        finally:
            self.count(request.route, request.status, time.monotonic() - started)

    async def _answer(self, request: _Request) -> None:
        scope = request.scope
        request.read_headers()
        if scope["method"] == "OPTIONS" and request.header("origin") in self.policy.origins:
            await self.app(scope, request.receive, request.send)  # a browser asks what pages of this origin may send
            return
        _check_contract(request.header(CONTRACT_HEADER))  # first: a newer client may ask for what is not here yet
        await self._check_study(request.header(STUDY_HEADER))
        request.route = self._route(scope)
        role, most = ROUTES[request.route]
        if request.route in FROM_ANYWHERE:
            set_caller(Caller("", OPEN))
        else:
            door = self.tokens.look() if self.policy.identity is None else None
            nameless = door is not None and not door.needed  # nobody is asked for a token
            self._check_sender(request, nameless)
            set_caller(await self._caller(request, role, nameless))
        _check_query(scope)
        request.limit(most or self.policy.most_upload)
        await self.app(scope, request.receive, request.send)

    async def _check_study(self, meant: str) -> None:
        """A page stays open while another study comes to its address: what was made for one is not saved in the other."""
        if meant and not hmac.compare_digest(meant.encode(), (await asyncio.to_thread(lambda: self.logins.study_id)).encode()):
            raise Refused(421, "another study is at this address now than the one that this page was opened with")

    def _route(self, scope) -> str:
        for route in self.routes:
            listed = f"{scope['method']} {getattr(route, 'path', '')}"
            if listed in ROUTES and route.matches(scope)[0] is Match.FULL:
                return listed
        raise Refused(404, "there is nothing at this address")

    def _check_sender(self, request: _Request, nameless: bool) -> None:
        """Web pages of others may not use the browser of somebody who has access."""
        origin, host = request.header("origin"), request.header("host")
        name = _host_name(host)
        own = host and origin.partition("://")[2] == host
        if origin and origin not in self.policy.origins and not own:
            raise Refused(403, "requests from web pages of other servers are not answered")
        if nameless and request.is_local and not self.policy.insecure and not _names_this_computer(name):
            raise Refused(403, "this server is called localhost or 127.0.0.1")

    async def _caller(self, request: _Request, role: int, nameless: bool) -> Caller:
        allowed_plain = request.is_local or self.policy.insecure
        if nameless:
            if not allowed_plain:
                raise Refused(403, NO_TOKENS)
            if is_of_another(request.header_if_there(PERSON_HEADER), ""):
                raise Refused(401, OTHER_PERSON)
            return Caller()
        if not allowed_plain and request.scope["scheme"] != "https":
            raise Refused(403, "tokens are taken over https only")
        if role == OPEN:
            return Caller("", OPEN)
        who = await (self._known(request.token) if request.token else self._logged_in(request.header("cookie")))
        if who is None:
            bad = "this token is not valid: it is mistyped, was removed, or has expired"
            raise Refused(401, bad if request.token else "a token is needed: Authorization: Bearer TOKEN")
        if is_of_another(request.header_if_there(PERSON_HEADER), who.name):
            raise Refused(401, OTHER_PERSON)
        if who.role < role:
            need = next(name for name, level in ROLES.items() if level == role)
            raise Refused(403, f"this needs the role {need}")
        return who

    async def _logged_in(self, cookie: str) -> Caller | None:
        """Whoever a browser's cookie stands for; another site's page cannot send it (SameSite), nor read it (HttpOnly)."""
        if self.policy.identity is None and (fault := self.tokens.look().fault):
            raise Refused(Closed.http_status, fault)
        return await asyncio.to_thread(self.logins.caller_of, cookie) if cookie else None

    async def _known(self, token: str) -> Caller | None:
        if self.policy.identity is not None:
            return await asyncio.to_thread(self.policy.identity, token) if token else None
        if fault := self.tokens.look().fault:
            raise Refused(Closed.http_status, fault)
        holder = self.tokens.holder(token) if token else None
        if holder is not None and holder.fault:
            raise Refused(403, holder.refusal)
        return Caller(holder.name, ROLES[holder.role]) if holder else None


class _Request:
    """One request: what it says of itself, its body counted, and one answer to it."""

    def __init__(self, scope, receive, send):
        self.scope, self._receive, self._send = scope, receive, send
        self._left, self._refused, self._answered = 0, None, False
        self._headers: dict[str, str] = {}
        self.route, self.status = "", 499  # where nobody waited for an answer

    def read_headers(self) -> None:
        """Raises Refused where one that counts is there twice, or Host cannot be one."""
        for key, value in self.scope["headers"]:
            name = key.decode("latin-1").lower()
            if name in _ONCE and name in self._headers:
                raise Refused(400, f"the header {name} may be there only once")
            self._headers[name] = value.decode("latin-1")

    def header(self, name: str) -> str:
        return self._headers.get(name, "")

    def header_if_there(self, name: str) -> str | None:
        """One that may be there and be empty; None where it is not there."""
        return self._headers.get(name)

    @property
    def is_local(self) -> bool:
        """Whether the request comes from this computer."""
        try:
            return ipaddress.ip_address((self.scope.get("client") or ("",))[0]).is_loopback
        except ValueError:
            return False

    @property
    def token(self) -> str:
        """Of ``Authorization: Bearer``, or the password of ``Basic``, which browsers ask for."""
        kind, _, value = self.header("authorization").partition(" ")
        if kind.lower() == "bearer":
            return value.strip()
        if kind.lower() != "basic":
            return ""
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            return ""

    def limit(self, most: int) -> None:
        """Refuse a body whose stated length is too large; count the bytes that arrive."""
        said = self.header("content-length")
        if said and (not (said.isascii() and said.isdecimal()) or len(said) > 18 or int(said) > most):
            raise Refused(413, f"a request to this address may have {most} bytes")
        self._left = most

    async def receive(self) -> dict:
        try:
            message = await asyncio.wait_for(self._receive(), LIMITS.pause_s) if not self._answered else await self._receive()
        except TimeoutError:
            self._refused = Refused(408, f"nothing came for {LIMITS.pause_s:.0f} seconds")
            raise self._refused from None
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self._refused = Refused(413, "the request is larger than this address takes")
            raise self._refused
        return message

    async def send(self, message: dict) -> None:
        if self._refused is not None and not self._answered:  # the framework would call it a fault in the body
            await self.refuse(self._refused.status, str(self._refused))
        if message["type"] == "http.response.start":
            if self._answered:
                return
            self._answered, self.status = True, message["status"]
            headers = message.setdefault("headers", [])
            present = {key.lower() for key, _ in headers}
            headers += [(k.encode(), v.encode()) for k, v in _SAID_ALWAYS.items() if k.encode() not in present]
        if self._refused is None:
            await self._send(message)

    async def refuse(self, status: int, reason: str) -> None:
        """Answer with one line, unless an answer has begun."""
        if self._answered:
            return
        self._answered, self.status = True, status
        body = json.dumps({"detail": reason}).encode()
        headers = {**_SAID_ALWAYS, "content-type": "application/json", "content-length": str(len(body))}
        if status in (408, 413):
            headers["connection"] = "close"
        if status == 401:
            basic = 'Basic realm="LandmarkLabel: any name, token as password"'
            headers["www-authenticate"] = "Bearer" if self.header(CONTRACT_HEADER) else basic  # a program has its own way to ask
        encoded = [(k.encode(), v.encode()) for k, v in headers.items()]
        await self._send({"type": "http.response.start", "status": status, "headers": encoded})
        await self._send({"type": "http.response.body", "body": body})


def is_of_another(meant: str | None, name: str) -> bool:
    """Whether a page says, by ``PERSON_HEADER``, that it is of somebody else than this person; empty for nobody."""
    return meant is not None and unquote(meant) != name


def _check_contract(spoken: str) -> None:
    """Raise Refused for a client that says it speaks another contract than this server."""
    if not spoken:
        return
    if not re.fullmatch("[0-9]{1,6}", spoken):
        raise Refused(400, f"the header {CONTRACT_HEADER} must be a number")
    if (asked := int(spoken)) == CONTRACT:
        return
    older = "server" if asked > CONTRACT else "client"
    said = f"this server (LandmarkLabel {__version__}) speaks version {CONTRACT} of the contract and this client version {asked}"
    raise Refused(400, f"{said}: upgrade the {older}")


def _check_query(scope) -> None:
    for key, value in parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True):
        if _UNSAFE.search(value) or len(value) > 512:
            raise Refused(400, f"{key[:40]!r} names nothing here: no '/', '\\', '..' or control characters")


def _host_name(host: str) -> str:
    """The name in a Host header, without the port. Raises Refused."""
    if not host:
        return ""
    found = _HOST.fullmatch(host)
    if found is None:
        raise Refused(400, "the header Host must be a name or an address, and a port where there is one")
    return found[1].strip("[]").lower()


def _names_this_computer(name: str) -> bool:
    if name in ("localhost", socket.gethostname().lower()):
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
