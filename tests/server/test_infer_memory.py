"""What the assistant remembers of an image: an update needs no network, and waits for nobody's."""

from __future__ import annotations

import threading

import pytest
import torch
from serving import phantoms

from landmarklabel.networks.presets import find_preset
from landmarklabel.server.infer import answer_to_wire
from landmarklabel.services.assistant import Given
from landmarklabel.services.cases import load_cases
from landmarklabel.services.inference import ServedModel
from landmarklabel.store.study import Study
from landmarklabel.training.fit import FitConfig, fit
from landmarklabel.training.loop import Budget
from landmarklabel.training.publishing import Decision

DEADLINE_S = 60


@pytest.fixture(scope="module")
def infer(tmp_path_factory):
    """A task whose live model has learned next to nothing."""
    material = phantoms(tmp_path_factory.mktemp("memory"), 5)
    study = Study(material.study, material.task)
    cases, preset = load_cases(study, material.truth), find_preset("scn", 2)
    config = FitConfig(preset, Budget(steps=4), device=torch.device("cpu"))
    fit(material.task, cases[:4], [], config, material.registry.candidate)
    material.registry.finalize_candidate(Decision(True, "for the test"))
    yield ServedModel(study, preset, material.registry)
    study.close()


@pytest.fixture()
def path(infer):
    return infer.study.image_path(sorted(infer.study.images())[-1])


def given(infer, *places) -> Given:
    return Given(dict(zip(infer.study.task.names, places, strict=False)))


def test_an_update_runs_no_network_once_the_image_was_looked_at(infer, path):
    assistant, passes = infer.assistant, []
    assistant.suggest(path, given(infer))
    networks = assistant.model().networks
    hooks = [m.register_forward_hook(lambda *_: passes.append(1)) for m in (networks.coarse_net, networks.fine_net)]
    for places in ([(30.0, 40.0)], [(30.0, 40.0), (50.0, 60.0)], [(70.0, 20.0)]):
        answer = assistant.suggest(path, given(infer, *places), wait_for_second_pass=False)
        assert answer.suggestion.landmarks.positions_mm[0].tolist() == list(places[0])
    assert passes == []
    assistant.second_pass(path, given(infer, (5.0, 5.0)))
    for hook in hooks:
        hook.remove()


def test_an_update_does_not_wait_for_another_requests_network_pass(infer, path, monkeypatch):
    assistant = infer.assistant
    assistant.suggest(path, given(infer))
    model, begun, go_on = assistant.model(), threading.Event(), threading.Event()

    def slow(case, evidence, shape_fit):
        begun.set()
        assert go_on.wait(DEADLINE_S)
        return evidence

    monkeypatch.setattr(model, "second_pass", slow)
    monkeypatch.setattr(model, "needs_second_pass", lambda *_: True)
    other = threading.Thread(target=assistant.second_pass, args=(path, given(infer, (11.0, 12.0))))
    other.start()
    assert begun.wait(DEADLINE_S)
    answered = threading.Event()

    def update() -> None:
        answer_to_wire(infer, assistant.suggest(path, given(infer, (33.0, 44.0)), wait_for_second_pass=False), path)
        answered.set()

    threading.Thread(target=update, daemon=True).start()
    quick = answered.wait(DEADLINE_S / 4)
    go_on.set()
    other.join(DEADLINE_S)
    assert quick


def test_a_changed_image_is_looked_at_again(infer, path):
    first = infer.assistant.suggest(path, given(infer)).suggestion
    path.write_bytes(infer.study.image_path(sorted(infer.study.images())[0]).read_bytes())
    second = infer.assistant.suggest(path, given(infer)).suggestion
    assert (first.detected_mm != second.detected_mm).any()
