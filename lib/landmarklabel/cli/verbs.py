"""What the parsers of the verbs share."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

Verbs: TypeAlias = "argparse._SubParsersAction[argparse.ArgumentParser]"


def add_verb(verbs: Verbs, name: str, module: str, function: str, help: str, **more: Any) -> argparse.ArgumentParser:
    """A parser of a verb, which ``cli.MODULE.FUNCTION`` carries out."""
    verb = verbs.add_parser(name, help=help, description=help, formatter_class=argparse.RawDescriptionHelpFormatter, **more)
    verb.set_defaults(run=(f"landmarklabel.cli.{module}", function))
    return verb


def add_task(verb: argparse.ArgumentParser, known: str = "study") -> None:
    """``--task``, which the ``known`` may know."""
    about = f"task file, or the name of a shipped task; may be left out where the {known} knows it"
    verb.add_argument("--task", metavar="TASK", help=about)


def add_device(verb: argparse.ArgumentParser) -> None:
    """``--device``."""
    about = "cpu, cuda, cuda:N or mps (default auto: a CUDA device where there is one, else the processor)"
    verb.add_argument("--device", default="auto", metavar="DEVICE", help=about)
