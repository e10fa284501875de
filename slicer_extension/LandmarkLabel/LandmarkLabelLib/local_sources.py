"""What a server on this computer may be installed from, and the Python that may run it."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .local_programs import WINDOWS, LocalServerError

VERSIONS = ((3, 13), (3, 12), (3, 11))  # of Python that the program is tried with, best first


def candidates(environment: Mapping[str, str], versions: Sequence[tuple[int, int]]) -> Iterator[list[str]]:
    """Commands that may be a Python: those with one of the versions in their name, best first, then any other on PATH."""
    folders = [Path(p) for p in environment["PATH"].split(os.pathsep) if os.path.isabs(p)]
    end = ".exe" if WINDOWS else ""
    for version in versions:
        named = [folder / f"python{dotted(version)}{end}" for folder in folders]
        yield from ([str(path)] for path in (*named, *_usual_places(environment, version)) if path.is_file())
        if WINDOWS and (starter := shutil.which("py", path=environment["PATH"])):
            yield [starter, f"-{dotted(version)}"]
    if sys.platform == "darwin":  # Apple's own asks people to install developer tools, and is too old
        folders = [folder for folder in folders if folder != Path("/usr/bin")]
    named = [folder / f"{name}{end}" for name in ("python3", "python") for folder in folders]
    yield from ([str(path)] for path in named if path.is_file())


def _usual_places(environment: Mapping[str, str], version: tuple[int, int]) -> Iterator[Path]:
    """Where interpreters are that PATH does not name, as for a Slicer that was started from a desktop."""
    home, named = Path(environment.get("USERPROFILE" if WINDOWS else "HOME") or Path.home()), dotted(version)
    if WINDOWS:
        bases = [Path(environment[n]) for n in ("LOCALAPPDATA", "PROGRAMFILES") if environment.get(n)]
        short = "Python" + named.replace(".", "")
        yield from (base / middle / short / "python.exe" for base in bases for middle in ("Programs/Python", ""))
        yield from sorted(home.glob(f".pyenv/pyenv-win/versions/{named}.*/python.exe"), reverse=True)
        return
    yield from sorted(home.glob(f".pyenv/versions/{named}.*/bin/python"), reverse=True)
    yield from sorted(home.glob(f".local/share/uv/python/cpython-{named}.*/bin/python{named}"), reverse=True)
    if sys.platform == "darwin":
        framework = f"/Library/Frameworks/Python.framework/Versions/{named}/bin"
        yield from (Path(place) / f"python{named}" for place in (framework, "/opt/homebrew/bin", "/usr/local/bin"))


def checked_source(source: str | Path) -> tuple[Path, Path | None]:
    """The wheel or copy of the repository to install, and the folder of wheels that has all it needs, where it is one.

    Raises:
        LocalServerError: it is neither.
    """
    allowed = "name the program's wheel (landmarklabel-….whl), a folder with it and all it needs, or a copy of its repository"
    if not str(source).strip():
        raise LocalServerError(allowed)
    path = Path(source).expanduser().absolute()
    if path.is_file():
        if path.suffix != ".whl":
            raise LocalServerError(f"{path.name} is no wheel: {allowed}")
        name = _name_in(path)
        if name != "landmarklabel":
            raise LocalServerError(f"{path.name} is {f'a wheel of {name}' if name else 'damaged'}: {allowed}")
        return path, None
    if not path.is_dir():
        raise LocalServerError(f"{path}: no such file or folder, and nothing is taken from an index by its name: {allowed}")
    wheels = sorted(path.glob("landmarklabel-*.whl"))
    if len(wheels) > 1:
        raise LocalServerError(f"{path} has {len(wheels)} wheels of the program: leave one, or name it")
    if wheels:
        return checked_source(wheels[0])[0], path
    if (path / "setup.cfg").is_file() and (path / "lib" / "landmarklabel" / "__init__.py").is_file():
        return path, None
    raise LocalServerError(f"{path} has no wheel of the program and is no copy of its repository: {allowed}")


def _name_in(wheel: Path) -> str:
    """The name that a wheel gives itself, in lower case; empty where it cannot be read."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            inside = next(n for n in archive.namelist() if n.count("/") == 1 and n.endswith(".dist-info/METADATA"))
            found = re.search(r"^Name: *([\w.-]+) *$", archive.read(inside).decode("utf-8", "replace"), re.MULTILINE)
    except (OSError, zipfile.BadZipFile, StopIteration):
        return ""
    return found[1].lower() if found else ""


def versions_of(house: Path | None) -> Sequence[tuple[int, int]]:
    """The versions of Python that a folder of wheels was made for, as its torch says; all where it does not."""
    names = [] if house is None else [path.name for path in house.glob("torch-*.whl")]
    made_for = {(3, int(minor)) for name in names for minor in re.findall(r"-cp3(\d+)-", name)}
    return [version for version in VERSIONS if version in made_for] or VERSIONS


def dotted(version: tuple[int, int]) -> str:
    return ".".join(map(str, version))
