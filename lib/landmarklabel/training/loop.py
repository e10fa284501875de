"""The training loop: budgeted, cancellable, resumable; knows nothing about landmarks."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from landmarklabel.data.batches import WHOLE, Part
from landmarklabel.errors import Cancelled, ModelError, UsageError
from landmarklabel.io.checkpoints import load_tensors, save_tensors
from landmarklabel.networks.ops import laid_out, place_in_batch
from landmarklabel.networks.precision import autocast
from landmarklabel.networks.presets import Optimization
from landmarklabel.training.group import ALONE, ProcessLost, TrainingGroup, without_sync


class Stage(Protocol):
    """One network being trained. ``loss`` and ``batch`` must be pure functions of their arguments and the weights.

    ``counts`` of a batch, or of a part of one, add up to what the loss's terms are divided by; the losses of the parts of a
    batch, each with the counts of them all, add up to the loss of the batch.
    """

    name: str

    @property
    def module(self) -> nn.Module: ...
    @property
    def optimization(self) -> Optimization: ...
    def batch(self, step: int, part: Part = WHOLE) -> Any: ...
    def counts(self, batch: Any) -> Tensor: ...
    def loss(self, batch: Any, counts: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Budget:
    """When to stop: after ``minutes`` or ``steps``, whichever is first; at least one is given."""

    minutes: float | None = None
    steps: int | None = None

    def progress(self, step: int, seconds: float) -> float:
        """Share of the budget that is used: 0 at the start, 1 at the end."""
        by_steps = step / self.steps if self.steps is not None else 0.0
        by_time = seconds / (60 * self.minutes) if self.minutes is not None else 0.0
        return max(by_steps, by_time)

    def part(self, share: float) -> Budget:
        """A share of the budget, at least one step."""
        minutes = None if self.minutes is None else self.minutes * share
        return Budget(minutes, None if self.steps is None else max(1, round(self.steps * share)))

    def times(self, factor: int) -> Budget:
        """A budget so many times as large."""
        return Budget(self.minutes and self.minutes * factor, self.steps and self.steps * factor)


@dataclass
class Progress:
    """Told after every step: which stage, how far, and the smoothed loss."""

    stage: str
    step: int
    fraction: float
    loss: float
    seconds: float


@dataclass(frozen=True)
class StageResult:
    """A trained stage: its averaged weights, and the steps and seconds that it took, before a stop too."""

    weights: dict[str, Tensor]
    steps: int
    seconds: float


def run_stage(
    stage: Stage,
    budget: Budget,
    *,
    seed: int,
    device: torch.device,
    state_file: Path,
    resume: bool = False,
    save_every_s: float = 60.0,
    on_progress: Callable[[Progress], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
    group: TrainingGroup = ALONE,
    accumulate: int = 1,
) -> StageResult:
    """Train one stage; of its weights the moving average is returned.

    Of several processes that train together, one leads: its clock, its stop and its state count, and it alone writes.

    Args:
        stage: what to train.
        budget: when to stop; on a CPU the same number of steps gives the same bits, also when resumed.
        seed: of dropout; batches bring their own.
        device: where to train.
        state_file: kept up to date so that a killed run can go on.
        resume: continue from ``state_file`` if it exists.
        save_every_s: seconds between states on disk.
        on_progress: called after every step.
        should_stop: asked after every step; True saves and raises Cancelled.
        group: the processes that train together.
        accumulate: parts in which each looks at its share of a batch: less memory, the same gradients but for rounding.

    Raises:
        Cancelled: after ``should_stop``.
        ProcessLost: another process of the group has ended; the state is saved.
        ModelError: the loss is no longer finite, or the state belongs to something else.
    """
    state = _State(_laid_out_for(device, stage.module.to(device)).train(), stage)
    if group.leads and resume and state_file.exists():
        state.load(state_file, device)
    state.become_that_of_the_leader(group)
    saved, smooth = time.monotonic(), None
    steps = _Steps(stage, state, device, group, accumulate, seed)
    with steps, state.kept_where_another_is_lost(state_file, group):
        (fraction,) = group.agree(budget.progress(state.step, state.seconds))
        while fraction < 1.0:
            started = time.monotonic()
            loss = steps.take(state.step, fraction)
            state.after_step(stage.optimization.ema, time.monotonic() - started)
            smooth = loss if smooth is None else 0.95 * smooth + 0.05 * loss
            if group.leads:
                on_progress(Progress(stage.name, state.step, min(fraction, 1.0), smooth, state.seconds))
            fraction, stop = group.agree(budget.progress(state.step, state.seconds), should_stop() if group.leads else 0)
            if group.leads and (stop or time.monotonic() - saved > save_every_s):
                state.save(state_file)
                saved = time.monotonic()
            if stop:
                raise Cancelled(f"stopped in stage {stage.name} after {state.step} steps")
    if group.leads:
        state.save(state_file)
    return StageResult(state.ema, state.step, state.seconds)


class _Batches:
    """This process's parts of a stage's batches, made ahead in a thread for a GPU; on a CPU the thread would only take its
    cores away."""

    def __init__(self, stage: Stage, parts: Sequence[Part], ahead: bool):
        self.stage, self.parts = stage, parts
        self.upcoming: dict[int, Future[Any]] = {}
        self.pool = ThreadPoolExecutor(1) if ahead else None

    def close(self) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def take(self, step: int) -> list[Any]:
        if self.pool is None:
            return self._make(step)
        batches = self.upcoming.pop(step) if step in self.upcoming else self.pool.submit(self._make, step)
        self.upcoming[step + 1] = self.pool.submit(self._make, step + 1)
        return batches.result()

    def _make(self, step: int) -> list[Any]:
        return [self.stage.batch(step) if part == WHOLE else self.stage.batch(step, part) for part in self.parts]


class _Loss(nn.Module):
    """A stage's loss as a module: DistributedDataParallel adds up the gradients of what goes through one."""

    def __init__(self, stage: Stage, module: nn.Module):
        super().__init__()
        self.stage, self.module = stage, module

    def forward(self, batch: Any, counts: Tensor) -> Tensor:
        return self.stage.loss(batch, counts)


class _Steps:
    """Steps of the optimizer on batches that are looked at in parts: by several processes, and by each in several goes."""

    def __init__(self, stage: Stage, state: _State, device: torch.device, group: TrainingGroup, accumulate: int, seed: int):
        self.stage, self.module, self.optimizer = stage, state.module, state.optimizer
        self.device, self.group, self.seed = device, group, seed
        parts = [Part(group.rank * accumulate + k, group.size * accumulate) for k in range(accumulate)]
        if len(parts) * group.size > 1 and any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in self.module.modules()):
            text = "this network normalises a batch as a whole, which cannot be divided"
            raise UsageError(f"{text}: train it without --devices and --accumulate")
        self.batches = _Batches(stage, parts, ahead=device.type != "cpu")
        self.loss = group.wrap(_Loss(stage, self.module))

    def __enter__(self) -> _Steps:
        return self

    def __exit__(self, *_: object) -> None:
        self.batches.close()

    def take(self, step: int, fraction: float) -> float:
        """One step; the loss of the whole batch. Raises ModelError where it is no number, ProcessLost."""
        o = self.stage.optimization
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = o.lr * _schedule(o, fraction)
        batches = [on_device(self.device, batch) for batch in self.batches.take(step)]
        self.optimizer.zero_grad(set_to_none=True)
        with self.group.noticing_losses():
            value = self._gradients(batches, step)
        if o.clip:
            torch.nn.utils.clip_grad_norm_(self.module.parameters(), o.clip)
        if not math.isfinite(value):
            raise ModelError(f"training diverged in stage {self.stage.name}: the loss is {value}; lower the learning rate")
        self.optimizer.step()
        return value

    def _gradients(self, batches: list[Any], step: int) -> float:
        counts = self.group.total(torch.stack([self.stage.counts(batch) for batch in batches]).sum(0))
        losses = []
        for left, batch in zip(reversed(range(len(batches))), batches, strict=True):
            place_in_batch(self.module, getattr(batch, "rows", None))
            torch.manual_seed(hash((self.seed, step)) & 0x7FFFFFFF)  # for every part: each draws the whole batch's masks
            with without_sync(self.loss, left):
                with autocast(self.device, self.stage.optimization.precision):
                    loss = self.loss(batch, counts)
                (
                    loss * self.group.size if self.group.size > 1 else loss
                ).backward()  # of which DistributedDataParallel has the mean
            losses.append(loss.detach())
        place_in_batch(self.module, None)
        return float(self.group.total(torch.stack(losses).sum()))


def on_device(device: torch.device, batch: Any) -> Any:
    """The batch with its tensors on a device."""
    return type(batch)(*(x.to(device, non_blocking=True) if torch.is_tensor(x) else x for x in batch))


def _schedule(o: Optimization, fraction: float) -> float:
    if o.schedule == "constant":
        return 1.0
    if fraction < o.warmup:
        return (fraction + 1e-3) / (o.warmup + 1e-3)
    rest = (fraction - o.warmup) / (1 - o.warmup)
    return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(rest, 1.0)))


def _optimizer(module: nn.Module, o: Optimization) -> torch.optim.Optimizer:
    decayed = [p for p in module.parameters() if p.dim() > 1]
    plain = [p for p in module.parameters() if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": o.weight_decay}, {"params": plain, "weight_decay": 0.0}]
    if o.optimizer == "nesterov":
        return torch.optim.SGD(groups, lr=o.lr, momentum=o.momentum, nesterov=True)
    kind = {"adamw": torch.optim.AdamW, "adam": torch.optim.Adam}[o.optimizer]
    made: torch.optim.Optimizer = kind(groups, lr=o.lr, betas=o.betas)
    return made


class _State:
    """Everything a run needs to go on: weights, averages, optimizer moments, step, seconds used."""

    def __init__(self, module: nn.Module, stage: Stage):
        self.module, self.optimizer, self.name = module, _optimizer(module, stage.optimization), stage.name
        self.step, self.seconds = 0, 0.0
        self.ema = {k: v.detach().clone() for k, v in module.state_dict().items()}

    @torch.no_grad()
    def after_step(self, decay: float, seconds: float) -> None:
        self.step += 1
        self.seconds += seconds
        d = min(decay, (1 + self.step) / (10 + self.step))
        current = self.module.state_dict()
        floats = [k for k, v in self.ema.items() if v.dtype.is_floating_point]
        torch._foreach_lerp_([self.ema[k] for k in floats], [current[k] for k in floats], 1 - d)

    def become_that_of_the_leader(self, group: TrainingGroup) -> None:
        """The weights are ``DistributedDataParallel``'s part."""
        if group.size == 1:
            return
        parameters = self._parameters()
        moments = [self.optimizer.state.get(p, {}) for p in parameters]
        known = [[i, key, list(value.shape)] for i, m in enumerate(moments) for key, value in m.items() if torch.is_tensor(value)]
        self.step, self.seconds, known = group.share([self.step, self.seconds, known])
        for i, key, shape in known:
            p = parameters[i]
            if key not in self.optimizer.state[p]:
                made = torch.empty_like(p) if tuple(shape) == p.shape else torch.zeros(shape)
                self.optimizer.state[p][key] = made.detach()
        group.broadcast(self.optimizer.state[parameters[i]][key] for i, key, _ in known)
        group.broadcast(self.ema[key] for key in sorted(self.ema))  # one that was read from a file has another order

    @contextmanager
    def kept_where_another_is_lost(self, path: Path, group: TrainingGroup) -> Iterator[None]:
        """Save the last step that was finished where another process has ended."""
        try:
            yield
        except ProcessLost:
            if group.leads:
                self.save(path)
            raise

    def save(self, path: Path) -> None:
        tensors = {f"model.{k}": v for k, v in self.module.state_dict().items()}
        tensors |= {f"ema.{k}": v for k, v in self.ema.items()}
        for i, p in enumerate(self._parameters()):
            for key, value in self.optimizer.state.get(p, {}).items():
                if torch.is_tensor(value):
                    tensors[f"optimizer.{i}.{key}"] = value
        save_tensors(path, tensors, {"stage": self.name, "step": self.step, "seconds": self.seconds})

    def load(self, path: Path, device: torch.device) -> None:
        tensors, meta = load_tensors(path)
        if meta.get("stage") != self.name:
            raise ModelError(f"{path.name} is the state of stage {meta.get('stage')!r}, not of {self.name!r}")
        part = lambda prefix: {k[len(prefix) :]: v.to(device) for k, v in tensors.items() if k.startswith(prefix)}  # noqa: E731
        try:
            self.module.load_state_dict(part("model."))
        except RuntimeError as error:
            raise ModelError(f"{path.name} belongs to another network: {str(error).splitlines()[0]}") from None
        self.ema = {k: _laid_out_as(self.ema[k], v) if k in self.ema else v for k, v in part("ema.").items()}
        for i, p in enumerate(self._parameters()):
            values = {k: _laid_out_as(p, v) for k, v in part(f"optimizer.{i}.").items()}
            if values:
                step = {"step": values["step"].cpu()} if "step" in values else {}
                self.optimizer.state[p] = {**values, **step}
        self.step, self.seconds = int(meta["step"]), float(meta["seconds"])

    def _parameters(self) -> list[nn.Parameter]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]


def _laid_out_for(device: torch.device, module: nn.Module) -> nn.Module:
    """On a CPU 3D convolutions are trained quickest with their channels last: by a quarter for the fine network, a tenth for the
    coarse network. In 2D that is much slower."""
    volumes = [p for p in module.parameters() if p.dim() == 5]
    return laid_out(module, torch.channels_last_3d) if volumes and device.type == "cpu" else module


def _laid_out_as(like: Tensor, value: Tensor) -> Tensor:
    """The values in the memory layout they had before they were stored: arithmetic on another may differ in the last bit."""
    return torch.empty_like(like, dtype=value.dtype).copy_(value) if value.shape == like.shape else value
