"""Training on the server: started, stopped and followed from here."""

from __future__ import annotations

import time
from collections.abc import Callable

from .client import Client

POLL_S = 2.0


class Training:
    """The newest training run.

    Args:
        client: of the server.
        run: ``LandmarkLogic``'s way into the background.
        say: shows a message.
        translate: for texts that people see.
    """

    def __init__(self, client: Client, run: Callable, say: Callable[[str], None], translate: Callable[[str], str]):
        self.client, self.run, self.say, self._ = client, run, say, translate
        self.model, self.percent, self.is_running = "", 0, False
        self.stats: dict = {}
        self._before: object = None  # start of the run before, whose statistics are not this one's
        self._asked_at = 0.0
        self._waits = False  # an answer is on its way

    def start(self, model: str, minutes: float) -> None:
        """Train on all that was submitted; the server publishes what is better."""

        def job() -> object:
            before = self.client.info()["training"].get(model)
            self.client.train(model, minutes)
            return before.get("start_ts") if isinstance(before, dict) else None

        def done(before: object) -> None:
            self.model, self.is_running, self.percent, self.stats, self._before = model, True, 0, {}, before
            self._asked_at = time.monotonic()
            self.say(self._("training started"))

        self.run(job, done, self._("starting the training"))

    def stop(self) -> None:
        """The next training goes on from where this one was."""
        self.run(self.client.stop_training, lambda _: self.say(self._("training stops")), self._("stopping the training"))

    def poll(self) -> None:
        """Ask how far it is, now and then."""
        if self.is_running and not self._waits and time.monotonic() - self._asked_at > POLL_S:
            self._waits, self._asked_at = True, time.monotonic()
            self.run(self._ask, self._told, "")

    def _ask(self) -> dict | Exception:
        try:
            return self.client.info()["training"]
        except Exception as error:  # shown by ``_told``, which asks again
            return error

    def _told(self, answer: dict | Exception) -> None:
        self._waits = False
        if isinstance(answer, dict):
            self.take(answer)

    def take(self, training: dict) -> None:
        """Statistics as ``/info`` has them: model name to the newest run's."""
        running = next((name for name, s in training.items() if isinstance(s, dict) and s.get("state") == "running"), None)
        if running is not None:
            self.model, self.is_running, self.stats = running, True, training[running]
            epoch = self.stats.get("epoch", 0)
            self.percent = min(max(int(epoch), 0), 100) if isinstance(epoch, (int, float)) else 0
            self.say("")
            return
        ended = training.get(self.model)
        new = isinstance(ended, dict) and ended.get("start_ts") != self._before
        if self.is_running and new and ended.get("state") in ("done", "failed", "stopped"):
            self.is_running, self.percent, self.stats = False, 100, ended
            text = self._("training {state}: {why}")
            self.say(text.format(state=self._(ended["state"]), why=str(ended.get("reason", ""))[:300]))
