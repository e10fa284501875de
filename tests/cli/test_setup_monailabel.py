"""What the checkout installs for MONAI Label is what ``setup-monailabel`` installs."""

from __future__ import annotations

from pathlib import Path

import pytest

from landmarklabel.cli.setup_monailabel import APP, NEEDED, VERSION, put_app
from landmarklabel.errors import UsageError

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def test_the_checkouts_list_has_all_that_the_verb_installs():
    listed = {line.partition("[")[0].strip() for line in (SCRIPTS / "requirements.txt").read_text(encoding="utf-8").splitlines()}
    assert set(NEEDED) <= listed and f'"monailabel=={VERSION}"' in (SCRIPTS / "dev.py").read_text(encoding="utf-8")


def test_the_app_that_it_writes_is_that_of_the_repository_and_replaces_no_other(tmp_path):
    assert (SCRIPTS.parent / "apps" / "landmarks" / "main.py").read_text(encoding="utf-8") == APP
    put_app(tmp_path / "app")
    put_app(tmp_path / "app")
    assert (tmp_path / "app" / "main.py").read_text(encoding="utf-8") == APP
    (tmp_path / "app" / "main.py").write_text("print(1)", encoding="utf-8")
    with pytest.raises(UsageError, match="main.py is another program's: name a new folder"):
        put_app(tmp_path / "app")
