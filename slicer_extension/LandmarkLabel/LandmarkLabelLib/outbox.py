"""Submissions that survive a lost network and a crash, and arrive exactly once.

Each is a file until the server has acknowledged it; it carries a key, and the server saves a key once, so sending it again
after a lost answer is harmless.
"""

from __future__ import annotations

import json
import time
import uuid
from pathlib import Path

from .client import Client, Conflict, Refused, Unreachable
from .session import write_atomically
from .wire import Task, parse_points, to_rows


class Outbox:
    """A folder of submissions, oldest first.

    Args:
        folder: made if needed; one for each server and study.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def waiting(self) -> list[Path]:
        """Files not delivered yet."""
        return sorted(self.folder.glob("*.json"))

    def put(self, image_id: str, points: list, task: Task, base_revision: int, author: str, repeat: bool = False) -> Path:
        """Keep a submission, or a second reading; it is safe once this returns."""
        path = self.folder / f"{time.time_ns():020d}-{uuid.uuid4().hex}.json"
        rows = to_rows(points)
        content = {"image": image_id, "landmarks": rows, "base_revision": base_revision, "author": author, "key": path.stem}
        content["repeat"] = repeat
        write_atomically(path, json.dumps(content, allow_nan=False))
        return path

    def deliver(self, client: Client, task: Task) -> list[tuple[str, object]]:
        """Send what waits, oldest first, until the server cannot be reached.

        Returns:
            (image id, new revision number) of each that arrived, (image id, Conflict or Refused) of each the server will not
            take: those are moved to ``refused/`` beside, never deleted.
        """
        results: list[tuple[str, object]] = []
        for path in self.waiting():
            try:
                content = json.loads(path.read_text(encoding="utf-8"))
                points = parse_points(content["landmarks"], task)
                where = (
                    content["image"],
                    points,
                    task,
                    content["base_revision"],
                    content["author"],
                    content["key"],
                    content.get("repeat") is True,
                )
            except (ValueError, KeyError) as error:
                results.append((path.stem, self._set_aside(path, Refused(f"{path.name} cannot be read: {error}"))))
                continue
            try:
                results.append((content["image"], client.save(*where)))
                path.unlink()
            except Unreachable:
                break
            except (Conflict, Refused) as error:
                results.append((content["image"], self._set_aside(path, error)))
        return results

    def _set_aside(self, path: Path, error: Refused) -> Refused:
        place = self.folder / "refused"
        place.mkdir(exist_ok=True)
        path.replace(place / path.name)
        return error
