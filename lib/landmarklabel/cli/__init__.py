"""The command line: ``landmarklabel VERB``. One file a group of verbs; ``parser`` lists them all."""

from landmarklabel.cli.parser import main

__all__ = ["main"]
