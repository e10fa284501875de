"""Who is annotating what: two annotators never get the same case, and what one leaves comes back to another."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from landmarklabel.errors import TooMany
from landmarklabel.io.locks import LockedJson
from landmarklabel.store.configuration import CONFIG
from landmarklabel.store.database import file_faults

_WHAT = "the list of cases in people's hands"


class Leases:
    """Cases handed out, in one small file; safe for threads, several processes and restarts (a power failure may lose it).

    Args:
        path: of the file; made when needed.
        seconds: after which a case that was not submitted is free again.
        clock: seconds since the epoch.
    """

    def __init__(self, path: str | Path, seconds: float = CONFIG.lease_s, clock: Callable[[], float] = time.time):
        self.seconds, self.clock = seconds, clock
        self._file = LockedJson(path, _parse, _empty, _WHAT, lambda: file_faults(_WHAT), durable=False)

    def take(
        self,
        client: str,
        open_ids: Sequence[str],
        choose: Callable[[list[str]], str],
        *,
        address: str | None = None,
        others: Iterable[str] = (),
    ) -> str | None:
        """The next case of a client; None when all are in other hands.

        What the client had and did not submit counts as skipped: it comes back when nothing else is left, longest ago first.

        Args:
            client: who asks. Those without a name are one client who skips all the time: each has a case of their own while
                fresh ones last.
            open_ids: cases that are not done.
            choose: picks one of those that are free.
            address: of a client that anybody can claim to be: it may hold half of the open cases, and always four.
            others: cases that are not done either and that somebody may hold, but not handed out now.

        Raises:
            TooMany: the address holds its share.
        """
        client = client[:200] or "somebody"
        with self._file.edit() as state:
            now = self.clock()
            known = {*open_ids, *others}
            given = state["held"] = {i: x for i, x in state["held"].items() if i in known}  # ended ones may be renewed
            for image_id in [i for i, x in given.items() if x["client"] == client and self._is_held(x, now)]:
                given.pop(image_id)
                state["skipped"][image_id] = now
            held = {i: x for i, x in given.items() if self._is_held(x, now)}
            state["skipped"] = {i: t for i, t in state["skipped"].items() if i in known}
            free = [i for i in open_ids if i not in held]
            fresh = [i for i in free if i not in state["skipped"]]
            if not free:
                return None
            if address is not None:
                _check_share(held, address, len(open_ids))
            chosen = choose(fresh) if fresh else min(free, key=lambda i: state["skipped"][i])
            state["skipped"].pop(chosen, None)
            given[chosen] = {"client": client, "since": now} | ({"address": address} if address is not None else {})
            return chosen

    def renew(self, client: str, image_id: str) -> None:
        """A client still works on a case that it was given: its time begins anew, unless another has been given it meanwhile."""
        with self._file.edit() as state:
            lease = state["held"].get(image_id)
            if lease is not None and lease["client"] == client[:200]:
                lease["since"] = self.clock()

    def held(self) -> dict[str, dict]:
        """Image id to {"client", "since"} of the cases in somebody's hands."""
        with self._file.edit() as state:
            held = {i: x for i, x in state["held"].items() if self._is_held(x, self.clock())}
            return {i: {"client": _shown(x["client"]), "since": x["since"]} for i, x in held.items()}

    def _is_held(self, lease: dict, now: float) -> bool:
        return 0 <= now - lease["since"] < self.seconds  # a clock that was set back holds nothing for ever


def _parse(content: Any) -> dict[str, dict[str, Any]]:
    held = {str(i): _lease(x) for i, x in content["held"].items()}
    return {"held": held, "skipped": {str(i): _time(t) for i, t in content["skipped"].items()}}


def _empty() -> dict[str, dict[str, Any]]:
    """The state without a file: losing one only means that a case may be given out twice."""
    return {"held": {}, "skipped": {}}


def _check_share(held: dict[str, dict], address: str, open_cases: int) -> None:
    count, most = (
        sum(x.get("address") == address for x in held.values()),
        max(CONFIG.min_cases_each, open_cases // CONFIG.share_divisor),
    )
    if count >= most:
        raise TooMany(f"this computer has {count} cases in hand, and no more than {most}: submit some, or use tokens")


def _lease(content: dict) -> dict:
    lease = {"client": str(content["client"]), "since": _time(content["since"])}
    return lease | ({"address": str(content["address"])} if "address" in content else {})


def _shown(client: str) -> str:
    """A name that a page can show, whatever the file holds."""
    return client.encode(errors="replace").decode()


def _time(value: str | float) -> float:
    seconds = float(value)
    if not math.isfinite(seconds):
        raise ValueError(f"{value!r} is no time")
    return seconds
