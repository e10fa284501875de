"""``token``: who may use a served study from other computers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landmarklabel.errors import StudyError
from landmarklabel.store.revisions import open_revisions
from landmarklabel.store.tokens import Tokens, tokens_of


def new(a: argparse.Namespace) -> None:
    """Print a new token, once."""
    token = _tokens(a).new(a.name, a.role)
    if (Path(a.study) / ".landmarklabel" / "revisions.sqlite").is_file():
        trail = open_revisions(a.study)
        tokens_of(a.study, trail)  # writes there that tokens are needed from now on
        trail.close()
    print(token)
    print(f"landmarklabel: {a.name} gives it as token or password; it is kept nowhere, only its hash", file=sys.stderr)


def show(a: argparse.Namespace) -> None:
    """Print names and roles; on stderr why nobody is let in, where that is so."""
    for holder in _tokens(a).holders():
        print(f"{holder.name}\t{holder.role}" + (f"\tgood for nothing: {holder.fault}" if holder.fault else ""))
    if fault := _tokens(a).look().fault:
        print("landmarklabel: " + fault.replace("STUDY", a.study), file=sys.stderr)


def remove(a: argparse.Namespace) -> None:
    """End a token; without any left the study stays closed."""
    tokens = _tokens(a)
    tokens.remove(a.name)
    if fault := tokens.look().fault:
        print("landmarklabel: " + fault.replace("STUDY", a.study), file=sys.stderr)


def _tokens(a: argparse.Namespace) -> Tokens:
    if not Path(a.study).is_dir():
        raise StudyError(f"{a.study}: no such study folder; landmarklabel import makes one")
    return Tokens(a.study)
