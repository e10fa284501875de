"""``backup`` and ``restore``."""

from __future__ import annotations

import argparse

from landmarklabel.services.backup import back_up, restore


def backup(args: argparse.Namespace) -> None:
    """Write a study into one file; its server may go on."""
    count = back_up(args.study, args.file)
    print(f"{args.file}: {args.study} with {count} revisions")


def restore_study(args: argparse.Namespace) -> None:
    """Make a study of such a file."""
    count = restore(args.file, args.study)
    print(f"{args.study}: {count} revisions; landmarklabel doctor {args.study} checks them")
