"""Whether a server can listen where it is told to, before anything slow is done."""

from __future__ import annotations

import errno
import socket

from landmarklabel.errors import UsageError

_REASONS = {
    errno.EADDRINUSE: "port {port} of {host} is taken, perhaps by a server that still runs; choose another --port",
    errno.EACCES: "port {port} of {host} may be used by the system's administrator only; choose a --port from 1024 on",
    errno.EADDRNOTAVAIL: "{host} is no address of this computer; choose another --host",
}


def check_can_listen(host: str, port: int) -> None:
    """Raise UsageError where nobody could listen there."""
    if not 0 <= port < 65536:
        raise UsageError(f"port {port} does not exist; choose a --port from 1024 to 65535")
    try:
        places = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "no name of a computer"
        raise UsageError(f"cannot listen on {host[:80]!r} ({reason}); choose another --host") from None
    for family, kind, protocol, _, address in places:
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                probe.bind(address)
            except OSError as error:
                known = _REASONS.get(error.errno or 0, "cannot listen on port {port} of {host} ({reason}); choose another --port")
                raise UsageError(known.format(host=host, port=port, reason=error.strerror)) from None
