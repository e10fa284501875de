"""What the checkout installs for MONAI Label is what ``setup-monailabel`` installs."""

from __future__ import annotations

from pathlib import Path

from landmarklabel.cli.setup_monailabel import NEEDED, VERSION

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_the_checkouts_list_has_all_that_the_verb_installs():
    listed = {line.partition("[")[0].strip() for line in (SCRIPTS / "requirements.txt").read_text(encoding="utf-8").splitlines()}
    assert set(NEEDED) <= listed and f'"monailabel=={VERSION}"' in (SCRIPTS / "dev.py").read_text(encoding="utf-8")
