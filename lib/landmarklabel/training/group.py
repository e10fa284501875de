"""The processes that train one model together, one for each device: torch.distributed, and nothing else of the program."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from landmarklabel.errors import LandmarkLabelError, UsageError
from landmarklabel.networks.devices import choose_device, use_all_cores
from landmarklabel.training.configuration import PROCESSES, RENDEZVOUS

_OF_PEERS = re.compile("gloo|nccl", re.IGNORECASE)  # whose errors have no class of their own


class ProcessLost(LandmarkLabelError):
    """Another of the processes that train together has ended."""


class TrainingGroup:
    """A process alone: it leads, agrees with itself, and its sums are the totals."""

    rank, size = 0, 1
    on_this_computer = 1

    @property
    def leads(self) -> bool:
        """Whether this is the process that measures, writes and publishes."""
        return self.rank == 0

    def wrap(self, module: nn.Module) -> nn.Module:
        """The module with gradients that are the mean of all processes' gradients, and the weights of the leading process."""
        return module

    def total(self, value: Tensor) -> Tensor:
        """The sum of all processes' values."""
        return value

    def agree(self, *values: float) -> tuple[float, ...]:
        """The leading process's numbers."""
        return values

    def share(self, content: Any = None) -> Any:
        """The leading process's content, which JSON can hold."""
        return content

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Fill the tensors with the values that the leading process has in its own."""

    def end(self) -> None:
        """Leave in order."""

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        """Raise ProcessLost where another process has ended, which torch.distributed tells by errors of many kinds."""
        yield


ALONE = TrainingGroup()


class _Processes(TrainingGroup):
    """This process among several."""

    def __init__(self) -> None:
        self.rank, self.size = dist.get_rank(), dist.get_world_size()
        self.on_this_computer = _on_this_computer()

    def wrap(self, module: nn.Module) -> nn.Module:
        with self.noticing_losses():  # some weights may have no part in the loss of a batch
            return DistributedDataParallel(module, find_unused_parameters=True)

    def total(self, value: Tensor) -> Tensor:
        value = value.clone()
        with self.noticing_losses():
            dist.all_reduce(value)
        return value

    def agree(self, *values: float) -> tuple[float, ...]:
        numbers = torch.tensor(values, dtype=torch.float64)
        self.broadcast([numbers])
        return tuple(numbers.tolist())

    def share(self, content: Any = None) -> Any:
        text = json.dumps(content).encode() if self.leads else b""
        length = int(self.agree(len(text))[0])
        data = torch.frombuffer(bytearray(text), dtype=torch.uint8) if self.leads else torch.empty(length, dtype=torch.uint8)
        self.broadcast([data])
        return json.loads(bytes(data.tolist()))

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        with self.noticing_losses():
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def end(self) -> None:
        dist.destroy_process_group()

    @contextmanager
    def noticing_losses(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            said = str(error).splitlines()[0]
            if isinstance(error, torch.OutOfMemoryError) or not (isinstance(error, dist.DistError) or _OF_PEERS.search(said)):
                raise  # of this process itself
            raise ProcessLost(f"it could not go on with the others: {said}") from error


def is_one_of_several() -> bool:
    """Whether this process was started as one of several: by ``training.processes``, by torchrun, or by a cluster likewise."""
    return _number("WORLD_SIZE", 1) > 1


def _number(name: str, least: int) -> int:
    """A number of the environment, ``least`` where it is not there. Raises UsageError."""
    text = os.environ.get(name) or str(least)
    if not text.isdecimal() or int(text) < least:
        raise UsageError(f"the environment says {name}={text[:40]}, which must be a whole number from {least} on")
    return int(text)


def join(device: str, kept: int | None = None) -> tuple[TrainingGroup, torch.device]:
    """Find the other processes, and this one's device: each of a computer has a GPU, or a share of its cores.

    Args:
        device: as a person names it.
        kept: as ``device_of``.

    Raises:
        UsageError: there are fewer GPUs than processes, or one device was named for all. ProcessLost: the others were not found.
    """
    if not is_one_of_several():
        use_all_cores()
        return ALONE, choose_device(device)
    here, of, rank = _number("LOCAL_RANK", 0), _on_this_computer(), _number("RANK", 0)
    if "RANK" not in os.environ or rank >= _number("WORLD_SIZE", 1):
        said = f"RANK={rank}" if "RANK" in os.environ else "no RANK"
        text = f"the environment says WORLD_SIZE={os.environ['WORLD_SIZE']} and {said}: start the processes with torchrun"
        raise UsageError(f"{text}, or unset WORLD_SIZE to train alone")
    chosen = device_of(device, here, of, kept)
    backend = "cpu:gloo"
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
        backend = "cpu:gloo,cuda:nccl"
    use_all_cores(of)
    patience, where = timedelta(seconds=PROCESSES.wait_s), dict[str, Any]()
    if file := os.environ.get(RENDEZVOUS):  # not as an address, which would read a '#' of a path as its end
        size = _number("WORLD_SIZE", 1)
        where = {"store": dist.FileStore(file, size), "rank": rank, "world_size": size}
        where["store"].set_timeout(patience)
    try:
        dist.init_process_group(backend, timeout=patience, **where)
    except (RuntimeError, ValueError) as error:
        raise ProcessLost(f"the other training processes were not found: {str(error).splitlines()[0]}") from None
    return _Processes(), chosen


def _on_this_computer() -> int:
    """How many of the processes are on this computer."""
    return _number("LOCAL_WORLD_SIZE", 1) if os.environ.get("LOCAL_WORLD_SIZE") else _number("WORLD_SIZE", 1)


def device_of(device: str, number: int, count: int, kept: int | None = None) -> torch.device:
    """The device of one of ``count`` processes of a computer; ``kept``: a GPU to leave free where there are others enough.

    Raises:
        UsageError: there are fewer GPUs than processes, or one device was named for all.
    """
    chosen = choose_device(device)
    if chosen.type == "mps" or (chosen.type == "cuda" and chosen.index is not None):
        raise UsageError(f"--device {device} is one device and there are {count} processes; use --device cuda or cpu")
    if chosen.type != "cuda":
        return chosen
    if (there := torch.cuda.device_count()) < count:
        raise UsageError(f"{count} devices were asked for, but this machine has {there} GPUs: ask for {there}")
    return torch.device("cuda", [i for i in range(there) if i != kept or there == count][number])


def without_sync(module: nn.Module, parts_left: int) -> Any:
    """The context of a backward pass after which further parts of the same batch follow: gradients are added up first."""
    return module.no_sync() if parts_left and isinstance(module, DistributedDataParallel) else nullcontext()
