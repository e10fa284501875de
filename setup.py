"""Puts the tasks of ``apps/landmarks`` and the browser front end into the wheel; everything else is in setup.cfg."""

import shutil
import sys
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT / "scripts"))
import web  # noqa: E402


class WithTasksAndFrontEnd(build_py):
    """A checkout uses the tasks where they lie, and builds the front end there; an installed package has its own copies."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        inside = Path(self.build_lib) / "landmarklabel"
        shutil.copytree(ROOT / "apps" / "landmarks" / "tasks", inside / "shipped_tasks", dirs_exist_ok=True)
        try:
            web.build()
        except web.WebError as error:
            sys.exit(f"the browser front end cannot be built: {error}")
        shutil.copytree(web.BUILT, inside / "server" / "web" / "dist", dirs_exist_ok=True)


def needed_to_build() -> list[str]:
    """Node, where the machine has none and nothing was built before."""
    return [] if web.is_built() or web.has_node() else [web.NODE_PACKAGE]


setup(cmdclass={"build_py": WithTasksAndFrontEnd}, setup_requires=needed_to_build())
