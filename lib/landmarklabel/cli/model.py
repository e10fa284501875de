"""``model show``."""

from __future__ import annotations

import argparse
import json


def show(args: argparse.Namespace) -> None:
    """Print a model's card, or its whole record. Raises ModelError."""
    from landmarklabel.inference.model_card import model_card
    from landmarklabel.inference.model_record import ModelRecord, read_record

    record = read_record(args.model)
    ModelRecord.of(record, args.model)  # raises where it is damaged
    print(json.dumps(record) if args.json else model_card(record).rstrip())
