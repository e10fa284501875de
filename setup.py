"""Puts the tasks of ``apps/landmarks`` into the wheel; everything else is in setup.cfg."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithTasks(build_py):
    """A checkout uses the tasks where they lie; an installed package has its own copy."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            tasks = Path(__file__).parent / "apps" / "landmarks" / "tasks"
            shutil.copytree(tasks, Path(self.build_lib) / "landmarklabel" / "shipped_tasks", dirs_exist_ok=True)


setup(cmdclass={"build_py": WithTasks})
