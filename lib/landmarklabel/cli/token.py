"""``token``: who may use a served study from other computers."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from landmarklabel.errors import StudyError
from landmarklabel.store.revisions import open_revisions
from landmarklabel.store.tokens import Tokens, tokens_of


def new(args: argparse.Namespace) -> None:
    """Print a new token, once."""
    tokens = _tokens(args)
    again, first = args.name in {holder.name for holder in tokens.holders()}, not tokens.look().needed
    token = tokens.new(args.name, args.role, args.days)
    if (Path(args.study) / ".landmarklabel" / "revisions.sqlite").is_file():
        trail = open_revisions(args.study)
        tokens_of(args.study, trail)  # writes there that tokens are needed from now on
        trail.close()
    print(token)
    if again:
        print(f"landmarklabel: the earlier token of {args.name} has ended", file=sys.stderr)
    if first:
        said = "from now on this study asks everybody for a token, also programs and browsers on this computer"
        print(f"landmarklabel: {said}", file=sys.stderr)
    print(f"landmarklabel: {args.name} uses it as token or as password; only its hash is stored, so note it now", file=sys.stderr)


def show(args: argparse.Namespace) -> None:
    """Print names and roles; on stderr why nobody is let in, where that is so."""
    for holder in _tokens(args).holders():
        until = f"\tuntil {holder.expires[:10]}" if holder.expires and not holder.fault else ""
        print(f"{holder.name}\t{holder.role}{until}" + (f"\tgood for nothing: {holder.fault}" if holder.fault else ""))
    if fault := _tokens(args).look().fault:
        print("landmarklabel: " + fault.replace("STUDY", args.study), file=sys.stderr)


def remove(args: argparse.Namespace) -> None:
    """End a token; without any left the study stays closed."""
    tokens = _tokens(args)
    tokens.remove(args.name)
    if fault := tokens.look().fault:
        print("landmarklabel: " + fault.replace("STUDY", args.study), file=sys.stderr)


def _tokens(args: argparse.Namespace) -> Tokens:
    if not Path(args.study).is_dir():
        raise StudyError(f"{args.study}: no such study folder; landmarklabel import makes one")
    return Tokens(args.study)
