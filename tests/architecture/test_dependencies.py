"""What ``setup.cfg`` declares is what the library imports: nothing undeclared, nothing declared unused. Told by deptry."""

from __future__ import annotations

import configparser
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Extras whose packages the library itself needs.
OF_THE_LIBRARY = (
    "server",
    "pandas",
    "export",
    "postgresql",
    "mesh",
    "cohort",
    "ray",
)
UNDECLARED = {"monailabel"}  # no extra can express its installation: ``landmarklabel setup-monailabel`` makes it
WITHOUT_IMPORT = {
    "fire": "the command line of MONAI, for an exported bundle",
    "onnx": "imported by name where something is exported",
    "onnxruntime": "imported by name where something is exported",
    "pandas": "imported by name where a table is wanted",
    "psycopg": "SQLAlchemy's driver",
    "python-multipart": "FastAPI reads forms with it",
}
OURS = ("README.md", "docs", "lib", "apps", "slicer_extension", "scripts")


def declared() -> list[str]:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = config["options.extras_require"]
    lists = (config["options"]["install_requires"], *(extras[name] for name in OF_THE_LIBRARY))
    return [line for text in lists for line in text.split("\n") if line]


def faults(requirements: list[str], place: Path) -> dict[str, set[str]]:
    """Modules by the code of deptry's fault: DEP001 missing, DEP002 unused, DEP003 only another package's."""
    file, found = place / "requirements.txt", place / "found.json"
    file.write_text("\n".join(requirements), encoding="utf-8")
    command = [sys.executable, "-m", "deptry", "lib", "--requirements-files", str(file), "--json-output", str(found)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, timeout=120, text=True)
    assert found.exists(), done.stderr
    rows = [(one["error"]["code"], one["module"]) for one in json.loads(found.read_text(encoding="utf-8"))]
    return {code: {module for other, module in rows if other == code} for code, _ in rows}


def test_nothing_is_undeclared_and_nothing_is_declared_unused(tmp_path):
    found = faults(declared(), tmp_path)
    assert found.pop("DEP001", set()) | found.pop("DEP003", set()) <= UNDECLARED
    assert found == {"DEP002": set(WITHOUT_IMPORT)}


def test_what_is_left_out_and_what_is_too_much_is_told(tmp_path):
    found = faults([*(line for line in declared() if not line.startswith("filelock")), "requests"], tmp_path)
    assert "filelock" in found.get("DEP001", set()) | found.get("DEP003", set()) and "requests" in found["DEP002"]


def test_no_text_tells_people_to_install_by_a_name_that_no_index_has():
    by_name = re.compile(r"pip3? install (?!--no-index)[^`\n]*(?<![\w/.-])landmarklabel(?![\w.-]*\.whl|[-_])")
    suffixes = (".py", ".md", ".txt", ".yml", ".toml", "file")
    files = [p for start in OURS for p in ((ROOT / start).rglob("*") if (ROOT / start).is_dir() else [ROOT / start])]
    texts = {p: p.read_text(encoding="utf-8") for p in files if p.is_file() and p.name.endswith(suffixes)}
    assert len(texts) > 200
    assert [str(p) for p, text in texts.items() if by_name.search(text)] == []
    assert by_name.search("pip install landmarklabel fire") and by_name.search("pip install 'landmarklabel[server]'")
    assert not by_name.search('pip install --no-index --find-links FOLDER "landmarklabel[server]"')
    assert not by_name.search("pip install 'dist/landmarklabel-0.1.0-py3-none-any.whl[server]'")
