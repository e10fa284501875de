"""What the parsers of the verbs share."""

from __future__ import annotations

import argparse
from typing import Any, TypeAlias

from landmarklabel.io.files import SURFACE_FRAMES, SURFACE_UNITS
from landmarklabel.networks.presets import presets

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


def add_store(verb: argparse.ArgumentParser) -> None:
    """``--store``."""
    verb.add_argument("--store", metavar="URL", help="where the revisions are, if not in the study")


def add_device(verb: argparse.ArgumentParser) -> None:
    """``--device``."""
    about = "cpu, cuda, cuda:N or mps (default auto: a CUDA device where there is one, else the processor)"
    verb.add_argument("--device", default="auto", metavar="DEVICE", help=about)


def add_surface(verb: argparse.ArgumentParser) -> None:
    """``--mesh-unit`` and ``--mesh-frame``."""
    units = f"unit of surfaces (PLY, STL, OBJ, VTP, VTK), where their files state none: {', '.join(SURFACE_UNITS)}"
    verb.add_argument("--mesh-unit", choices=list(SURFACE_UNITS), metavar="UNIT", help=units)
    frames = "frame of surfaces whose files do not state it as Slicer's do: LPS (default) or RAS"
    verb.add_argument("--mesh-frame", choices=SURFACE_FRAMES, metavar="FRAME", help=frames)


def list_models(verb: argparse.ArgumentParser) -> None:
    """Have the help end with all models: those of plugins are loaded only when somebody asks."""
    plain = verb.format_help

    def format_help() -> str:
        models = "\n".join(f"  {p.key:<16} {'/'.join(f'{d}D' for d in p.dims):<6} {p.about}" for p in presets())
        verb.epilog = f"models:\n{models}"
        return plain()

    verb.format_help = format_help  # type: ignore[method-assign]  # of this parser only
