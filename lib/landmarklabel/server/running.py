"""The server as a process: a taken port is said at once, one line says where it answers, and a signal ends it within seconds.

``landmarklabel serve`` runs uvicorn itself (``serve``); ``monailabel start_server`` does so in its own way. Either time
uvicorn has installed its handlers of signals before it lets the application start, so that this finds its server there.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import sys
import threading
import time
import webbrowser
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import quote

import psutil
import uvicorn

from landmarklabel.errors import LandmarkLabelError
from landmarklabel.services.console import NOTICE, fault_of, set_up_console
from landmarklabel.services.limits import LIMITS
from landmarklabel.services.listen_address import check_can_listen

if TYPE_CHECKING:
    from landmarklabel.server.application import Application
    from landmarklabel.server.guard import Policy
    from landmarklabel.services.settings import ServerSettings
    from landmarklabel.store.tokens import Tokens

log = logging.getLogger(__name__)


def this_server() -> uvicorn.Server | None:
    """The server that is starting in this process; None elsewhere, for example in a training."""
    owner = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return owner if isinstance(owner, uvicorn.Server) else None


@contextmanager
def starting() -> Iterator[None]:
    """Where a server cannot start, say why in one line and end the process with code 2; nothing is caught elsewhere."""
    server = this_server()
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # of the trainings it starts, as in ``landmarklabel.cli``
    try:
        if server is not None:
            _check_port(server)
        yield
    except LandmarkLabelError as error:
        if server is None:
            raise
        _leave("landmarklabel: " + " ".join(str(error).split()), 2)
    except OSError as error:
        if server is None:
            raise
        _leave(f"landmarklabel: {error.filename or 'the study'}: {error.strerror}; give the server the right to write there", 2)


def serve(studies: Mapping[str, ServerSettings], config: Mapping[str, Any], open_browser: bool = False) -> None:
    """Serve studies until a signal ends it: what ``landmarklabel serve`` does.

    One study is served at the address itself, several each below the name of its folder; their trainings take turns.

    Args:
        studies: folders, and how the operator wants each served.
        config: of uvicorn: ``host``, ``port``, ``ssl_certfile``, ``ssl_keyfile``, ``root_path``.
        open_browser: open the browser front end of the first study when the server answers.
    """
    gc.disable()  # while all is loaded there is nothing to find; a tenth of the start
    from landmarklabel.server.app import create_app, policy_of, side_by_side
    from landmarklabel.server.application import Application

    set_up_console()
    turn, several = threading.Lock(), len(studies) > 1
    served: list[tuple[Application, str, Policy, Tokens]] = []

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        with starting():
            for application, *_rest in served:
                with fault_of(application.study.folder, several):
                    application.begin()
            if (server := this_server()) is not None:
                line = lambda port: "\n".join(greeting(server.config, port, *one) for one in served)  # noqa: E731
                look_after(server, line, [application.leave for application, *_rest in served])
                if open_browser:
                    threading.Thread(target=_open_browser, args=(server, served[0][1]), name="browser", daemon=True).start()
        yield

    apps: dict[str, Any] = {}
    for folder, settings in studies.items():
        with fault_of(folder, several):
            application = Application(folder, settings, training_turn=turn)
            policy, below = policy_of(application), f"/{Path(folder).resolve().name}" if several else ""
            apps[below], tokens = create_app(application, policy, None if several else lifespan)
        served.append((application, below, policy, tokens))
    app = side_by_side(apps, lifespan) if several else apps[""]
    uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, **config)).run()


def look_after(server: uvicorn.Server, line: Callable[[int], str], leave: Iterable[Callable[[], None]]) -> None:
    """Called once everything is set up.

    Args:
        server: of this process.
        line: what to say when it answers, given the port it listens to.
        leave: each called in a thread when a signal has asked it to end.
    """
    sys.setswitchinterval(LIMITS.switch_s)
    gc.freeze()  # what is loaded by now stays: looking through all of it for garbage held every request up for 0.2 s
    gc.enable()
    _end_soon_after_a_signal(server, leave)
    threading.Thread(target=_announce, args=(server, line), name="announce", daemon=True).start()


def address(config: uvicorn.Config, port: int, others: bool) -> str:
    """Where a browser finds the server; with ``others``, that of another computer, where it listens for those."""
    host = config.host
    if host in ("0.0.0.0", "::", ""):
        host = _own_address() if others else "127.0.0.1"
    named = f"[{host}]" if ":" in host else host
    return f"{'https' if config.is_ssl else 'http'}://{named}:{port}"


def greeting(config: uvicorn.Config, port: int, application: Application, below: str, policy: Policy, tokens: Tokens) -> str:
    """Where to open which study, and what answers there."""
    others = policy.insecure or (config.is_ssl and (policy.identity is not None or tokens.look().needed))
    proxied = f" (for people {config.root_path.rstrip('/')}{quote(below)}/landmarks/ of your proxy)" if config.root_path else ""
    base = f"{address(config, port, others)}{quote(below)}"
    line = f"open {base}/landmarks/{proxied} · {application.summary()} · annotate at {base}/annotate/"
    return f"{line} · {fault}" if policy.identity is None and (fault := tokens.look().fault) else line


def _check_port(server: uvicorn.Server) -> None:
    config = server.config
    if config.fd is None and config.uds is None and config.workers == 1 and not config.should_reload:  # else it is ours already
        check_can_listen(config.host, config.port)


def _leave(line: str, code: int) -> NoReturn:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
    os._exit(code)  # uvicorn would log the error with its whole way through the program


def _end_soon_after_a_signal(server: uvicorn.Server, leave: Iterable[Callable[[], None]]) -> None:
    if threading.current_thread() is not threading.main_thread():
        return
    asked: list[int] = []

    def handle(number: int, frame: FrameType | None) -> None:
        if asked:
            os._exit(128 + number)  # somebody does not want to wait
        asked.append(number)
        timer = threading.Timer(LIMITS.end_s, os._exit, (128 + number,))
        timer.daemon = True
        timer.start()
        for one in leave:
            threading.Thread(target=one, name="leave").start()
        server.handle_exit(number, frame)

    server.config.timeout_graceful_shutdown = LIMITS.finish_s
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)


def _open_browser(server: uvicorn.Server, below: str) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    webbrowser.open(f"{address(server.config, _port(server), others=False)}{quote(below)}/annotate/")


def _announce(server: uvicorn.Server, line: Callable[[int], str]) -> None:
    while not server.started:
        if server.should_exit:
            return
        time.sleep(0.02)
    port = _port(server)
    try:
        log.log(NOTICE, line(port))
    except LandmarkLabelError:  # its text may hold a name
        log.log(NOTICE, f"answers on port {port}, but the study cannot be read: landmarklabel doctor STUDY says why")


def _port(server: uvicorn.Server) -> int:
    sockets = [s for one in server.servers for s in one.sockets]
    return sockets[0].getsockname()[1] if sockets and server.config.uds is None else server.config.port


def _own_address() -> str:
    """The first address of this computer that others can use."""
    for name, addresses in sorted(psutil.net_if_addrs().items()):
        for one in addresses:
            if one.family.name == "AF_INET" and not one.address.startswith("127.") and not name.startswith(("docker", "br-")):
                return one.address
    return "127.0.0.1"
