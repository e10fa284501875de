"""Which part of the package stands above which, and what may not load PyTorch."""

from __future__ import annotations

# Lower numbers may not import higher ones.
LEVELS = {
    "errors": 0,
    "configuration": 0,
    "plugins": 0,
    "portability": 0,
    "landmarks": 1,
    "task_pictures": 1,
    "task_limits": 1,
    "scale_rules": 1,
    "measurement_precision": 1,
    "task_faults": 1,
    "landmark_arrays": 1,
    "measurement_definitions": 1,
    "measurements": 1,
    "measurement_program": 1,
    "task_measurements": 1,
    "agreement": 1,
    "display": 1,
    "geometry": 1,
    "metrics": 1,
    "io": 2,
    "store": 3,
    "data": 4,
    "networks": 4,
    "inference": 5,
    "training": 6,
    "active": 7,
    "report": 8,
    "cohort": 8,
    "services": 9,
    "tasks": 9,
    "server": 10,
    "cli": 10,
    "api": 10,
    "evaluation": 10,
    "extending": 10,
    "__main__": 11,
}
TORCH_FREE = (
    "errors",
    "configuration",
    "plugins",
    "landmarks",
    "measurement_definitions",
    "measurements",
    "measurement_program",
    "task_measurements",
    "display",
    "geometry",
    "metrics",
    "io.markups",
    "io.tables",
    "io.files",
    "store",
)
SERVER_PACKAGES = ("monailabel", "fastapi", "starlette", "uvicorn")


def level(module):
    return LEVELS.get(module.split(".")[0])
