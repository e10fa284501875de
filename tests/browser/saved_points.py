"""What a server has of a case."""

from __future__ import annotations


def points_of(server, image_id: str) -> dict[str, tuple[str, list[float] | None]]:
    return {row["name"]: (row["status"], row["position"]) for row in server.get(f"/landmarks/images/{image_id}")["landmarks"]}
