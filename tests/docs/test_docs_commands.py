"""Every command that the documentation shows is one that the program takes, and every block of another kind can be read."""

from __future__ import annotations

import argparse
import ast
import configparser
import json
import re
import shlex
import subprocess
import sys
import tempfile
import tomllib

import pytest
import yaml
from tests.docs.pages import PAGES, ROOT, blocks, commands, name_of, prose

from landmarklabel import __version__
from landmarklabel.cli.parser import build_parser
from landmarklabel.cli.serve import _check_certificate
from landmarklabel.networks.presets import PRESETS
from landmarklabel.services.settings import ServerSettings
from landmarklabel.tasks import resolve_models, resolve_task

BLOCKS, COMMANDS = blocks(), commands()
SCRIPTS = ("dev.py", "reproduce.py", "results_tables.py", "http_page.py", "mutants.py", "code_figures.py", "wheel_check.py")


def test_there_is_something_to_look_at():
    """A pattern that finds nothing would let every other test here pass."""
    assert len(PAGES) > 20 and len(BLOCKS) > 30 and len(COMMANDS) > 60
    verbs = {words[1] for _, line in COMMANDS if (words := shlex.split(line, comments=True))[0] == "landmarklabel"}
    assert verbs == set(verbs_of(build_parser())), "a verb that no page shows, or one that is not there"


def verbs_of(parser: argparse.ArgumentParser) -> list[str]:
    return next(list(a.choices) for a in parser._actions if isinstance(a, argparse._SubParsersAction))


@pytest.mark.parametrize("block", BLOCKS, ids=str)
def test_blocks_have_a_language_and_can_be_read(block):
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "python":
        ast.parse(block.text)
    elif block.language == "yaml":
        assert isinstance(yaml.safe_load(block.text), dict)
    elif block.language == "toml":
        tomllib.loads(block.text)
    elif block.language == "text":
        assert not re.search(r"^(landmarklabel|monailabel|python3?|pip|mkdocs) ", block.text, re.MULTILINE), "use ```sh"
    elif name_of(block.page).startswith(("slicer_extension/", "apps/")):
        assert block.language in ("", "sh")
    else:
        assert block.language == "sh", f"{block}: no language, or one that no test reads"


@pytest.mark.parametrize("where, line", COMMANDS, ids=[f"{where} {line}" for where, line in COMMANDS])
def test_command_is_understood(where, line):
    words = shlex.split(line, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    READERS[words[0]](words[1:])


def landmarklabel(words: list[str]) -> None:
    arguments = build_parser().parse_args(words)
    assert arguments.run
    if words[0] == "train":
        assert resolve_models(arguments.model, 2)
    for name in ("task", "models"):
        check_setting(name, getattr(arguments, name, None))


def check_setting(name: str, value: str | None) -> None:
    """A task that is named and not a file is shipped; models exist."""
    if name == "task" and value and not value.endswith(".json") and value not in ("new", "NAME_OR_FILE", "TASK"):
        assert resolve_task(value)
    if name == "models" and value:
        assert resolve_models(value, 2)


def monailabel(words: list[str]) -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("verb", choices=["start_server"])
    for option in ("--app", "--studies", "--host", "--port"):
        parser.add_argument(option)
    parser.add_argument("--conf", nargs=2, action="append", default=[])
    arguments = parser.parse_args(words)
    if arguments.app.startswith("apps/landmarks"):
        assert (ROOT / arguments.app / "main.py").is_file()
        settings = dict(arguments.conf)
        ServerSettings.of(settings)
        assert "task" in settings
        for name, value in settings.items():
            if value.islower():
                check_setting(name, value)


def python(words: list[str]) -> None:
    if words[:2] == ["-m", "monai.bundle"]:
        assert words[2] == "run" and "--config_file" in words
    elif words[:2] == ["-m", "pip"]:
        pip(words[2:])
    elif words[0].startswith("scripts/"):
        script(words[0].removeprefix("scripts/"), words[1:])
    else:
        assert (ROOT / words[0]).is_file()


def torchrun(words: list[str]) -> None:
    from torch.distributed.run import get_args_parser

    arguments = get_args_parser().parse_args(words)
    assert arguments.module and arguments.training_script == "landmarklabel"
    landmarklabel(arguments.training_script_args)


def pip(words: list[str]) -> None:
    """A wheel that is named is the one this version makes, with an extra that it has."""
    if words[0] == "wheel":
        assert words[1:] == ["--no-deps", "-w", "dist", "."]
        return
    assert words[0] == "install" and len(words) == 2
    extras = configparser.ConfigParser()
    extras.read(ROOT / "setup.cfg", encoding="utf-8")
    wheel, _, extra = words[1].removesuffix("]").partition("[")
    assert wheel == f"dist/landmarklabel-{__version__}-py3-none-any.whl" and extra in extras["options.extras_require"]


def script(name: str, words: list[str]) -> None:
    assert name in SCRIPTS
    if name == "reproduce.py":  # its help imports all experiments
        sources = [path.read_text(encoding="utf-8") for path in (ROOT / "scripts").glob("*.py")]
        experiments = re.findall(r"\w+", " ".join(re.findall(r"^EXPERIMENTS = \((.*)\)$", "\n".join(sources), re.MULTILINE)))
        assert len(experiments) > 10 and words[0] in experiments, f"no experiment {words[0]}"
        assert words[1:] == ["--data", "DATA"]
        return
    said = helps(name)
    if name == "dev.py":
        assert re.search(rf"^ +{words[0]}\b", said, re.MULTILINE), f"no verb {words[0]}"
        assert all((ROOT / word).exists() for word in words[1:] if word.startswith("tests/"))
    assert all(word in said for word in words if word.startswith("--") and name != "dev.py")


_HELP: dict[str, str] = {}


def helps(name: str) -> str:
    if name not in _HELP:
        command = [sys.executable, str(ROOT / "scripts" / name), "--help"]
        done = subprocess.run(command, capture_output=True, timeout=120, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        _HELP[name] = done.stdout
    return _HELP[name]


def curl(words: list[str]) -> None:
    """The address is one of the routes on the page, with this method."""
    parser = argparse.ArgumentParser()
    parser.add_argument("-X", dest="method", default="GET")
    parser.add_argument("-d", dest="data", default="{}")
    parser.add_argument("-H", dest="header", default="")
    parser.add_argument("-F", dest="form", action="append", default=[])
    parser.add_argument("url")
    arguments = parser.parse_args(words)
    json.loads(arguments.data)
    for name, value in (field.split("=", 1) for field in arguments.form):
        assert (name == "file" and value.startswith("@")) or json.loads(value)
    assert arguments.data == "{}" or arguments.header == "Content-Type: application/json"
    path = re.sub(r"^http://127\.0\.0\.1:8000", "", arguments.url).partition("?")[0]
    listed = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", (ROOT / "docs" / "http.md").read_text(encoding="utf-8"), re.MULTILINE)
    shapes = [re.sub(r"\\\{\w+\\\}", "[^/]+", re.escape(route)) for method, route in listed if method == arguments.method]
    assert any(re.fullmatch(shape, path) for shape in shapes), f"no route {arguments.method} {path}"


def mkdocs(words: list[str]) -> None:
    assert words[0] in ("serve", "build")


def shell(words: list[str]) -> None:
    assert words[0] == ".venv/bin/activate" or "=" in words[0]


def openssl(words: list[str]) -> None:
    """The certificate that is made is one that the server takes, and its fingerprint is shown."""
    with tempfile.TemporaryDirectory() as folder:
        make = next(shlex.split(line)[1:] for _, line in COMMANDS if line.startswith("openssl req"))
        subprocess.run(["openssl", *make], cwd=folder, check=True, capture_output=True)
        _check_certificate(f"{folder}/cert.pem", f"{folder}/key.pem")
        if words[0] == "x509":
            said = subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True, encoding="utf-8").stdout
            assert re.search("Fingerprint=([0-9A-F]{2}:){31}[0-9A-F]{2}", said)


READERS = {
    "openssl": openssl,
    "landmarklabel": landmarklabel,
    "monailabel": monailabel,
    "python": python,
    "python3": python,
    "torchrun": torchrun,
    "curl": curl,
    "mkdocs": mkdocs,
    "source": shell,
    "export": shell,
}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_verbs_in_the_running_text(page):
    for words in re.findall(r"`landmarklabel ([a-z][^`]*)`", prose(page)):
        assert words.split()[0] in verbs_of(build_parser()), words


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_in_the_running_text(page):
    """Every --option is one of the program, of MONAI Label's starter, or of one of the scripts."""
    known = set(re.findall(r"--[a-z][\w-]*", " ".join(helps(name) for name in SCRIPTS if name != "reproduce.py")))
    known |= {option for parser in all_parsers(build_parser()) for action in parser._actions for option in action.option_strings}
    known |= {"--conf", "--app", "--fast", "--record-durations", "--only", "--help", "--testing", "--python-code"}
    known |= {"--config_file", "--dataset_dir", "--index-url"}
    said = set(re.findall(r"(?<![\w-])(--[a-z][\w-]*)", prose(page)))
    assert said <= known, said - known


def all_parsers(parser: argparse.ArgumentParser) -> list[argparse.ArgumentParser]:
    inner = [p for a in parser._actions if isinstance(a, argparse._SubParsersAction) for p in a.choices.values()]
    return [parser, *(p for one in inner for p in all_parsers(one))]


def test_every_model_is_listed():
    """The table of models has each one that ``train --help`` lists."""
    text = (ROOT / "docs" / "train.md").read_text(encoding="utf-8")
    rows = text[text.index("| `--model` |") :].split("\n\n")[0].splitlines()[2:]
    listed = {name for row in rows for name in re.findall(r"`([^`]+)`", row.split("|")[1])}
    known = {preset.key.removesuffix(":default") for preset in PRESETS}
    assert known and listed == known


def test_shipped_tasks_are_named():
    from landmarklabel.tasks import SHIPPED

    shipped = list(SHIPPED.glob("*.json"))
    assert shipped
    for path in shipped:
        assert f"`{path.stem}`" in (ROOT / "docs" / "index.md").read_text(encoding="utf-8")


def test_strategies_are_listed():
    source = (ROOT / "lib" / "landmarklabel" / "active" / "strategies.py").read_text(encoding="utf-8")
    known = re.findall(r'"(\w+)": \w+', re.search(r"^_OWN: .*$", source, re.MULTILINE)[0])
    text = (ROOT / "docs" / "active-learning.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)`", text.split("## What to expect")[0], re.MULTILINE) == known != []
