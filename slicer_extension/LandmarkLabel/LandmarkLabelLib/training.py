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
        self._asked_at = self._began = 0.0
        self._waits = self._stopped = False  # an answer is on its way; a person has stopped it

    def start(self, model: str, minutes: float) -> None:
        """Train on all that was submitted; the server publishes what is better."""

        def job() -> object:
            before = self.client.info()["training"].get(model)
            self.client.train(model, minutes)
            return before.get("start_ts") if isinstance(before, dict) else None

        def done(before: object) -> None:
            self.model, self.is_running, self.percent, self.stats, self._before = model, True, 0, {}, before
            self._asked_at = self._began = time.monotonic()
            self._stopped = False
            self.say(self._("training started"))

        self.run(job, done, self._("starting the training"))

    def stop(self) -> None:
        """The next training goes on from where this one was."""

        def done(_: object) -> None:
            self._stopped = True
            self.say(self._("training stops"))

        self.run(self.client.stop_training, done, self._("stopping the training"))

    def given_up(self) -> None:
        """Answers on their way were given up."""
        self._waits = False

    def left(self) -> str:
        """Time left, in words; empty where it cannot be told yet."""
        share, spent = self.percent / 100, time.monotonic() - self._began
        if not self.is_running or share < 0.05 or spent < 5:
            return ""
        return self._("about {n} minutes left").format(n=max(1, round(spent * (1 - share) / share / 60)))

    def poll(self) -> None:
        """Ask how far it is, now and then."""
        if self.is_running and not self._waits and time.monotonic() - self._asked_at > POLL_S:
            self._waits, self._asked_at = True, time.monotonic()
            self.run(self._ask, self._told, "", failed=self.given_up)

    def _ask(self) -> tuple[dict, bool]:
        runs = self.client.training_runs()  # first: a run that ends between the two has its statistics
        return self.client.info()["training"], runs

    def _told(self, answer: tuple[dict, bool]) -> None:
        self._waits = False
        self.take(answer[0])
        if self.is_running and not answer[1]:  # it ended before it had statistics of its own
            self.is_running, self.percent = False, 0
            why = self._("you stopped it") if self._stopped else self._("the server says no more")
            self.say(self._("training {state}: {why}").format(state=self._("stopped"), why=why))

    def take(self, training: dict) -> None:
        """Statistics as ``/info`` has them: model name to the newest run's."""
        running = next((name for name, s in training.items() if isinstance(s, dict) and s.get("state") == "running"), None)
        if running is not None:
            if not self.is_running:
                self._began = time.monotonic()
            self.model, self.is_running, self.stats = running, True, training[running]
            epoch = self.stats.get("epoch", 0)
            self.percent = min(max(int(epoch), 0), 100) if isinstance(epoch, (int, float)) else 0
            return
        ended = training.get(self.model)
        new = isinstance(ended, dict) and ended.get("start_ts") != self._before
        if self.is_running and new and ended.get("state") in ("done", "failed", "stopped"):
            self.is_running, self.percent, self.stats = False, 100, ended
            text = self._("training {state}: {why}")
            self.say(text.format(state=self._(ended["state"]), why=str(ended.get("reason", ""))[:300]))
