"""MONAI Label's Keycloak option (``MONAI_LABEL_AUTH_ENABLE=true``) with a token check that works.

MONAI Label 0.8.5 calls ``jwt.decode`` without ``algorithms`` and so refuses every valid token.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.server.console import NOTICE
from landmarklabel.services.callers import ROLES, Caller

log = logging.getLogger(__name__)


class IdentityUnreachable(LandmarkLabelError):
    """The identity server does not answer."""

    http_status = 503


def keycloak() -> Callable[[str], Caller | None] | None:
    """Tells who a token belongs to; None where the option is off. Repairs MONAI Label's own check as well."""
    from monailabel.config import settings
    from monailabel.endpoints.user import auth

    if not settings.MONAI_LABEL_AUTH_ENABLE:
        return None
    auth.from_token = _user  # looked up at every request
    roles = {
        settings.MONAI_LABEL_AUTH_ROLE_USER: ROLES["user"],
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR: ROLES["annotator"],
        settings.MONAI_LABEL_AUTH_ROLE_REVIEWER: ROLES["reviewer"],
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN: ROLES["admin"],
    }

    def caller(token: str) -> Caller | None:
        from jwt import InvalidTokenError

        try:
            user = _user(token)
        except InvalidTokenError:
            return None
        held = [roles[role] for role in user.roles if role in roles]
        return Caller(user.username, max(held)) if held else None

    return caller


def _user(token: str):
    """The user of a signed token that has not expired. Raises InvalidTokenError, IdentityUnreachable."""
    import jwt
    import requests
    from monailabel.config import settings
    from monailabel.endpoints.user import auth

    try:
        key = auth.get_public_key(settings.MONAI_LABEL_AUTH_REALM_URI)
        payload = jwt.decode(token, key, algorithms=["RS256"], options={"verify_aud": False, "require": ["exp"]})
    except jwt.InvalidTokenError:
        raise
    except (requests.RequestException, jwt.PyJWTError, ValueError, KeyError, TypeError) as error:  # or its key is none
        log.log(NOTICE, f"the identity server cannot be used ({type(error).__name__})")
        raise IdentityUnreachable("the identity server cannot be asked who you are; try again") from None
    roles: object = payload
    for part in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        roles = roles.get(part) if isinstance(roles, dict) else None
    name = payload.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str) or not name:
        raise jwt.InvalidTokenError("the token names nobody")
    listed = [role for role in roles if isinstance(role, str)] if isinstance(roles, list) else []
    return auth.User(username=name, roles=listed)
