"""A wheel of the program that pip installs in seconds without a network: it only leads to this checkout and its packages."""

from __future__ import annotations

import sysconfig
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def wheel_in(folder: Path, name: str = "landmarklabel", places: tuple = (), requires: str = "") -> Path:
    """A wheel that only puts folders on the path of Python."""
    folder.mkdir(parents=True, exist_ok=True)
    path, about = folder / f"{name}-0.1.0-py3-none-any.whl", f"{name}-0.1.0.dist-info"
    files = {
        f"{name}_elsewhere.pth": "".join(f"{place}\n" for place in places),
        f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 0.1.0\nProvides-Extra: server\n"
        + (f"Requires-Dist: {requires}\n" if requires else ""),
        f"{about}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for inside, text in files.items():
            archive.writestr(inside, text)
        archive.writestr(f"{about}/RECORD", "".join(f"{inside},,\n" for inside in (*files, f"{about}/RECORD")))
    return path


def program_wheel(place: Path) -> Path:
    """This checkout, and the packages that are installed here but for MONAI Label, which takes the doctor long."""
    packages = place / "packages"
    packages.mkdir(parents=True)
    for path in Path(sysconfig.get_paths()["purelib"]).iterdir():
        if not path.name.startswith(("monailabel", "landmarklabel", "__pycache__")):
            (packages / path.name).symlink_to(path)
    return wheel_in(place / "wheels", places=(ROOT / "lib", packages))
