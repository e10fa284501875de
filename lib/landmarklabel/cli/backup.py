"""``backup`` and ``restore``."""

from __future__ import annotations

import argparse
import sys

from landmarklabel.cli.signals import stopped_like_ctrl_c
from landmarklabel.errors import one_line
from landmarklabel.services.backup import back_up, restore


def backup(args: argparse.Namespace) -> int:
    """Write a study into one file; its server may go on. Exit code 1 where something is not in it, or damaged in it."""
    with stopped_like_ctrl_c():
        done = back_up(args.study, args.file)
    print(one_line(f"{args.file}: {args.study} with {done.revisions} revisions"))
    for name, why in done.left_out.items():
        print(one_line(f"landmarklabel: left out: {name}: {why}"), file=sys.stderr)
    for fault in done.damaged:
        print(one_line(f"landmarklabel: damaged, in the study and so in the backup: {fault}"), file=sys.stderr)
    return 1 if done.left_out or done.damaged else 0


def restore_study(args: argparse.Namespace) -> None:
    """Make a study of such a file."""
    with stopped_like_ctrl_c():
        count = restore(args.file, args.study)
    print(one_line(f"{args.study}: {count} revisions; landmarklabel doctor {args.study} checks them"))
