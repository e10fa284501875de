"""Who a bearer token of Keycloak belongs to: MONAI Label's option ``MONAI_LABEL_AUTH_ENABLE`` and its further settings."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import dataclass
from typing import Any

import jwt
import urllib3

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.services.callers import ADMIN, ANNOTATOR, REVIEWER, USER, Caller
from landmarklabel.services.console import NOTICE

log = logging.getLogger(__name__)

_PREFIX = "MONAI_LABEL_AUTH_"
_DEFAULTS = {  # MONAI Label's own
    "ENABLE": "",
    "REALM_URI": "http://localhost:8080/realms/monailabel",
    "TIMEOUT": "10",
    "TOKEN_USERNAME": "preferred_username",
    "TOKEN_ROLES": "realm_access#roles",
    "CLIENT_ID": "monailabel-app",
    "ROLE_ADMIN": "monailabel-admin",
    "ROLE_REVIEWER": "monailabel-reviewer",
    "ROLE_ANNOTATOR": "monailabel-annotator",
    "ROLE_USER": "monailabel-user",
}
_FAULTS = (urllib3.exceptions.HTTPError, jwt.PyJWTError, ValueError, KeyError, TypeError)


class IdentityUnreachable(LandmarkLabelError):
    """The identity server does not answer."""

    http_status = 503


class NotKnown(LandmarkLabelError):
    """The identity server does not know this name with this password."""

    http_status = 401


@dataclass(frozen=True)
class Settings:
    """What the environment says of Keycloak."""

    values: dict[str, str]

    @staticmethod
    def of_environment() -> Settings | None:
        """None where the option is off."""
        values = {name: os.environ.get(_PREFIX + name) or default for name, default in _DEFAULTS.items()}
        return Settings(values) if values["ENABLE"].lower() in ("1", "true", "yes", "on") else None

    def __getitem__(self, name: str) -> str:
        return self.values[name]


class Keycloak:
    """Tells who a token belongs to, and gets tokens for names and passwords.

    Args:
        settings: of the environment; only the operator names the address.
    """

    def __init__(self, settings: Settings):
        self.settings, self.realm, self.client_id = settings, settings["REALM_URI"], settings["CLIENT_ID"]
        self._roles = {
            settings["ROLE_USER"]: USER,
            settings["ROLE_ANNOTATOR"]: ANNOTATOR,
            settings["ROLE_REVIEWER"]: REVIEWER,
            settings["ROLE_ADMIN"]: ADMIN,
        }
        self._http = urllib3.PoolManager(timeout=float(settings["TIMEOUT"]), retries=False)
        self._key, self._lock = "", threading.Lock()

    def __call__(self, token: str) -> Caller | None:
        """The caller of a signed token that has not expired; None for any other. Raises IdentityUnreachable."""
        try:
            options: Any = {"verify_aud": False, "require": ["exp"]}
            payload = jwt.decode(token, self._public_key(), algorithms=["RS256"], options=options)
        except jwt.InvalidTokenError:
            return None
        except _FAULTS as error:  # or its key is none
            raise self._unreachable(error) from None
        roles: object = payload
        for part in self.settings["TOKEN_ROLES"].split("#"):
            roles = roles.get(part) if isinstance(roles, dict) else None
        name = payload.get(self.settings["TOKEN_USERNAME"])
        if not isinstance(name, str) or not name:
            return None
        held = [self._roles[role] for role in roles if role in self._roles] if isinstance(roles, list) else []
        return Caller(name, max(held)) if held else None

    def token(self, username: str, password: str) -> dict[str, Any]:
        """Keycloak's own answer to a name and a password. Raises NotKnown, IdentityUnreachable."""
        fields = {"client_id": self.client_id, "username": username, "password": password, "grant_type": "password"}
        try:
            where = json.loads(self._http.request("GET", f"{self.realm}/.well-known/openid-configuration").data)
            answer = self._http.request("POST", where["token_endpoint"], fields=fields, encode_multipart=False)
            content = json.loads(answer.data)
        except _FAULTS as error:
            raise self._unreachable(error) from None
        if answer.status != 200 or not isinstance(content, dict):
            raise NotKnown("the identity server does not know this name with this password")
        return content

    def _public_key(self) -> str:
        with self._lock:
            if not self._key:
                answer = self._http.request("GET", self.realm)
                if answer.status != 200:
                    raise ValueError(f"answered {answer.status}")
                key = json.loads(answer.data)["public_key"]
                self._key = f"-----BEGIN PUBLIC KEY-----\n{key}\n-----END PUBLIC KEY-----"
            return self._key

    def _unreachable(self, error: Exception) -> IdentityUnreachable:
        log.log(NOTICE, f"the identity server cannot be used ({type(error).__name__})")
        return IdentityUnreachable("the identity server cannot be asked who you are; try again")


def keycloak() -> Keycloak | None:
    """What the environment asks for; None where the option is off."""
    settings = Settings.of_environment()
    return Keycloak(settings) if settings is not None else None
