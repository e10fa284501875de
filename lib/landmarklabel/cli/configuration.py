"""Times and defaults of the command line."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class CommandConfig(Configuration):
    """Times and defaults of the command line."""

    answer_s: float = number(300.0, 0)  # longest wait for an answer of a server
    poll_s: float = number(60.0, 0)  # longest wait for one about a training
    few_read_twice: int = number(12, 2)  # below, a limit of agreement is off by half an sd (Bland and Altman 1986: sqrt(3/n))
    demo_labels: int = number(4, 0)  # that the demo begins with
    import_tries: int = number(4, 0)  # where somebody else saves the same case meanwhile
    named_unset: int = number(5, 1)  # landmarks that an import names of those its labels say nothing of
    short_s: float = number(5.0, 0)  # a task that takes less shows no bar
    train_minutes: float = number(30.0, 0)  # of a training


CONFIG = CommandConfig()
