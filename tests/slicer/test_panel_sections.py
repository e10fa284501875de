"""Sections of the panel through their buttons: trust for a certificate, many images, the export, a server on this computer."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import qt_harness
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from qt_harness import idle, press, wait_for
from serving import phantoms

qt = qt_harness.install()

import slicer  # noqa: E402
from LandmarkLabelLib.volumes import CaseVolume  # noqa: E402
from LandmarkLabelLib.widgets import RESOURCES  # noqa: E402
from program_wheel import program_wheel  # noqa: E402


@pytest.fixture()
def panel(panel_at_server):
    return panel_at_server


def test_a_folder_and_the_open_volumes_are_predicted_as_a_table_and_as_markups(panel, material, tmp_path):
    folder, out = tmp_path / "images", tmp_path / "results"
    folder.mkdir()
    for image_id in sorted(material.truth)[:2]:
        shutil.copy(material.image(image_id), folder)
    (folder / "broken.png").write_text("no picture", encoding="utf-8")
    shown = CaseVolume(slicer.mrmlScene)
    assert shown.show(material.image(sorted(material.truth)[3]), "open one")
    elsewhere = CaseVolume(slicer.mrmlScene)
    assert elsewhere.show(material.image(sorted(material.truth)[4]), "moved one")
    elsewhere.node.SetAndObserveTransformNodeID(slicer.mrmlScene.AddNewNodeByClass("vtkMRMLLinearTransformNode").GetID())
    panel.ui.batchFolder.setText(str(folder))
    panel.ui.batchVolumes.setChecked(True)
    press(panel, "batchButton")
    assert panel.ui.batchText.text() == "choose images, and where the results go"
    panel.ui.batchOut.setText(str(out))
    press(panel, "batchButton")
    idle(panel)
    panel.refresh()
    said = panel.ui.batchText.text()
    left_out = "moved one is left out: a transform moves it"
    assert said.startswith(f"3 predicted, 0 there before, 1 failed, 0 left; see {out}; {left_out}; broken: "), said
    with (out / "predictions.csv").open(newline="", encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert {row["image"] for row in rows} == {*sorted(material.truth)[:2], "open one"}
    assert (out / "open one.mrk.json").is_file()
    panel.ui.batchVolumes.setChecked(False)
    press(panel, "batchButton")
    idle(panel)
    panel.refresh()
    assert panel.ui.batchText.text().startswith("0 predicted, 2 there before"), panel.ui.batchText.text()
    shown.close()
    elsewhere.close()


def test_labelled_cases_are_exported_for_gpa_without_what_is_left_out(panel, material, tmp_path):
    left_out = material.task.names[0]
    panel.logic.review.cases = []  # as long ago, when nothing was labelled
    panel.ui.batchOut.setText(str(tmp_path / "gpa"))
    panel.ui.leaveOut.setText(f"{left_out}, ")
    press(panel, "exportButton")
    idle(panel)
    panel.refresh()
    written = sorted((tmp_path / "gpa").glob("*.mrk.json"))
    assert panel.ui.batchText.text() == f"{len(written)} specimens written to {tmp_path / 'gpa'}" and len(written) >= 5
    nodes = slicer.vtkMRMLMarkupsJsonStorageNode()
    nodes.SetFileName(str(written[0]))
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLMarkupsFiducialNode")
    assert nodes.ReadData(node)
    labels = [node.GetNthControlPointLabel(i) for i in range(node.GetNumberOfControlPoints())]
    assert labels == list(material.task.names[1:])
    slicer.mrmlScene.RemoveNode(node)


def said(panel) -> str:
    """What is wrong, without the places where a line may break."""
    return panel.ui.trouble.text().replace("\u200b", "")


def certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate that nobody vouches for, and its key."""
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "scanner")])
    now = datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(key.public_key())
    made = made.serial_number(x509.random_serial_number()).not_valid_before(now).not_valid_after(now + timedelta(days=2))
    made = made.add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), False).sign(key, hashes.SHA256())
    (folder / "cert.pem").write_bytes(made.public_bytes(Encoding.PEM))
    (folder / "key.pem").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return folder / "cert.pem", folder / "key.pem"


def test_a_certificate_is_confirmed_once_and_another_one_is_refused(tmp_path):
    study = phantoms(tmp_path / "study", 2)
    shown = study.task.names[0]
    content = json.loads(study.task_file.read_text(encoding="utf-8"))
    content["landmarks"][0] |= {"definition": "Where it begins.", "image": "tip.png"}
    study.task_file.write_text(json.dumps(content), encoding="utf-8")
    (study.task_file.parent / "tip.png").write_bytes((RESOURCES / "Icons" / "state_accepted.png").read_bytes())
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    with tls_server(study, *certificate(tmp_path / "first")) as url:
        fingerprint = fingerprint_of(tmp_path / "first")
        panel.ui.url.setText(url)
        press(panel, "connectButton")
        wait_for(panel, lambda: panel.ui.trouble.text(), "what is wrong")
        assert panel.ui.serverStatus.text() == "nobody vouches for this server"
        assert said(panel) == f"nobody vouches for the certificate of {url}, fingerprint {fingerprint}"
        assert not panel.ui.nextButton.isEnabled()
        press(panel, "trustButton")
        idle(panel)
        assert panel.ui.serverStatus.text().startswith("connected") and panel.ui.troubleFrame.isHidden()
        press(panel, "nextButton")
        idle(panel)
        panel.select(shown)
        panel.refresh()
        assert panel.ui.definition.text() == f"{shown}: to do. Where it begins."  # the task's, through the server
        green = panel.ui.picture.pixmap().toImage().pixelColor(16, 40)
        assert not panel.ui.picture.isHidden() and green.green() > 1.5 * green.red()
        tip = panel.ui.table.item(0, 0).toolTip()
        assert "Where it begins." in tip and '<img src="data:image/png;base64,' in tip
        port = int(url.rpartition(":")[2])
        panel.close()
        window.close()
    panel, window = qt_harness.open_panel(tmp_path / "panel")  # after a restart it is still believed, and only it
    with tls_server(study, *certificate(tmp_path / "second"), port=port):
        press(panel, "connectButton")
        wait_for(panel, lambda: panel.ui.trouble.text(), "what is wrong")
        renewed = (
            "another certificate than the one you confirmed: believe it only where its operator has renewed it and names this"
        )
        assert said(panel) == f"{url} has {renewed} fingerprint: {fingerprint_of(tmp_path / 'second')}"
        press(panel, "trustButton")
        idle(panel)
        assert panel.ui.serverStatus.text() == "nobody vouches for this server" and "press again" in panel.ui.message.text()
        press(panel, "trustButton")
        idle(panel)
        assert panel.ui.serverStatus.text().startswith("connected"), panel.ui.trouble.text()
        panel.ui.certificate.setText(str(tmp_path / "second" / "cert.pem"))
        panel.ui.url.setText(f"https://localhost:{port}")
        press(panel, "connectButton")
        idle(panel)
        assert panel.ui.serverStatus.text().startswith("connected"), panel.ui.trouble.text()
    panel.close()
    window.close()


def fingerprint_of(folder: Path) -> str:
    """As operators read it: in pairs."""
    found = x509.load_pem_x509_certificate((folder / "cert.pem").read_bytes()).fingerprint(hashes.SHA256())
    return found.hex(":").upper()


class tls_server:
    """A server over https, and its address."""

    def __init__(self, study, cert: Path, key: Path, port: int = 0):
        from LandmarkLabelLib.local_server import free_port

        self.port = port or free_port()
        words = ["serve", "--studies", study.study, "--task", study.task_file, "--port", self.port]
        self.words = [sys.executable, "-m", "landmarklabel", *map(str, words), "--certificate", str(cert), "--key", str(key)]

    def __enter__(self) -> str:
        import socket
        import time

        self.process = subprocess.Popen(self.words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=dict(os.environ))
        end = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return f"https://127.0.0.1:{self.port}"
            except OSError:
                assert self.process.poll() is None and time.monotonic() < end
                time.sleep(0.05)

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()


def test_a_server_on_this_computer_is_installed_started_connected_and_stopped(tmp_path, monkeypatch):
    only = {**os.environ, "HOME": str(tmp_path), "PATH": str(Path(sys.executable).parent)}  # of all Pythons, that of the tests
    monkeypatch.setattr(slicer.util, "startupEnvironment", lambda: only)
    study = phantoms(tmp_path / "Studie für Müller", 2)
    panel, window = qt_harness.open_panel(tmp_path / "panel")
    press_when_ready = lambda name: (wait_for(panel, lambda: getattr(panel.ui, name).isEnabled(), name), press(panel, name))  # noqa: E731
    panel.refresh()
    assert panel.ui.localStatus.text() == "nothing is installed yet" and not panel.ui.startButton.isEnabled()
    panel.ui.source.setText(str(program_wheel(tmp_path / "wheel")))
    panel.ui.study.setText(f"{study.study}s")
    panel.ui.task.setText(str(study.task_file))
    panel.refresh()
    press_when_ready("installButton")
    wait_for(panel, lambda: panel.ui.localStatus.text().endswith("is installed"), "the installation", 120)
    panel.refresh()
    press_when_ready("startButton")
    assert panel.ui.localStatus.text() == f"there is no folder {study.study}s: press Start again to make it"
    panel.ui.study.setText(str(study.study))
    press_when_ready("startButton")
    wait_for(panel, lambda: panel.ui.serverStatus.text().startswith("connected"), "the server", 120)
    panel.refresh()
    panel.ui.study.setText("another")  # which says nothing of the one that is served
    assert panel.ui.localStatus.text().startswith(f"serves at {panel.ui.url.text()}; who else uses this study now needs a token")
    press(panel, "nextButton")
    idle(panel)
    case, first = panel.logic.session.image_id, panel.ui.url.text()
    panel.select(study.task.names[2])
    press(panel, "absentButton")
    press(panel, "haltButton")
    wait_for(panel, lambda: panel.ui.localStatus.text() == "stopped", "the server to stop", 60)
    wait_for(panel, lambda: "does not answer" in panel.ui.serverStatus.text(), "the panel to notice")
    panel.ui.study.setText(str(study.study))
    press_when_ready("startButton")
    wait_for(panel, lambda: panel.ui.url.text() != first, "another port", 120)
    wait_for(panel, lambda: panel.ui.serverStatus.text().startswith("connected"), "the server", 120)
    idle(panel)
    assert panel.ui.caseLabel.text().startswith(case)  # what was not sent belongs to the study, not to the port
    assert panel.logic.session.point(study.task.names[2]).state == "absent" and panel.logic.session.unsent
    panel.local.server._server.kill()
    wait_for(panel, lambda: panel.ui.localStatus.text().startswith("the server has ended by itself; "), "the panel to notice", 60)
    assert panel.ui.startButton.isEnabled()
    panel.close()
    window.close()
