"""Campaigns over known labels: what is chosen and trained in which round, going on after a stop, and the figures."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from test_unlabelled_pool import phantom, small, small_networks  # noqa: F401

from landmarklabel.active import campaign as campaigns
from landmarklabel.active.campaign import Campaign, summarize_campaigns
from landmarklabel.active.strategies import STRATEGIES
from landmarklabel.active.unlabelled_pool import ImageAssessment
from landmarklabel.cli import main
from landmarklabel.data.cases import Case
from landmarklabel.data.split import split_ids
from landmarklabel.errors import UsageError
from landmarklabel.geometry import ImageGeometry
from landmarklabel.io.files import write_json
from landmarklabel.io.images import Image, write_image
from landmarklabel.landmarks import LandmarkSet, LandmarkTask, Status
from landmarklabel.networks import presets
from landmarklabel.networks.presets import find_preset
from landmarklabel.store.study import Study
from landmarklabel.training.loop import Budget

# --- the figures -----------------------------------------------------------------------------------------------------


def rounds(**errors: float) -> dict[int, dict]:
    return {int(n[1:]): {"mre_mm": e} for n, e in errors.items()}


def test_the_figures_of_a_worked_example():
    """The target is 2.2 mm. ``a`` reaches it between rounds, ``b`` in its first one, ``c`` not with every seed."""
    runs = {
        "a": {0: rounds(n4=4.2, n8=3.2, n16=1.2), 1: rounds(n4=3.0, n8=2.2, n16=2.0)},
        "b": {0: rounds(n4=2.1, n8=9.0), 1: rounds(n4=2.7, n8=2.1)},
        "c": {0: rounds(n4=1.0), 1: rounds(n4=3.0, n8=2.3)},
    }
    result = summarize_campaigns(runs, full_mre=2.0)
    assert result["target_mm"] == pytest.approx(2.2) and result["full_mre_mm"] == 2.0
    assert result["labels_to_target"] == {
        "a": pytest.approx((12 + 8) / 2),  # 3.2 to 1.2 mm passes 2.2 halfway from 8 to 16
        "b": pytest.approx((4 + 4 + 4 * 5 / 6) / 2),
        "c": None,
    }
    assert result["worst_seed"] == {"a": pytest.approx(12), "b": pytest.approx(4 + 4 * 5 / 6), "c": None}
    assert result["curves"] == {
        "a": [[4, [4.2, 3.0]], [8, [3.2, 2.2]], [16, [1.2, 2.0]]],
        "b": [[4, [2.1, 2.7]], [8, [9.0, 2.1]]],
        "c": [[4, [1.0, 3.0]], [8, [2.3]]],
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_the_margin_sets_the_target():
    runs = {"a": {0: rounds(n2=4.0, n4=2.0)}}
    assert summarize_campaigns(runs, 2.0, margin=0.5)["labels_to_target"] == {"a": pytest.approx(3.0)}
    assert summarize_campaigns(runs, 2.0, margin=0.0)["labels_to_target"] == {"a": pytest.approx(4.0)}


def test_rounds_and_seeds_count_in_their_order_not_in_the_order_they_were_done():
    runs = {"a": {1: rounds(n8=1.0, n2=4.0), 0: rounds(n8=2.0, n2=6.0)}}
    result = summarize_campaigns(runs, 2.0, margin=0.0)
    assert result["curves"] == {"a": [[2, [6.0, 4.0]], [8, [2.0, 1.0]]]}
    assert result["worst_seed"] == {"a": pytest.approx(8.0)}
    assert result["labels_to_target"] == {"a": pytest.approx((8 + 6) / 2)}


def test_a_strategy_that_was_never_played_reaches_nothing():
    result = summarize_campaigns({"a": {}}, 2.0)
    assert (result["labels_to_target"], result["worst_seed"], result["curves"]) == ({"a": None}, {"a": None}, {"a": []})


def test_a_round_whose_model_found_nothing_has_not_reached_the_target():
    runs = {"a": {0: {2: {"mre_mm": None}, 4: {"mre_mm": 3.0}, 8: {"mre_mm": 1.0}}}, "b": {0: {2: {"mre_mm": None}}}}
    result = summarize_campaigns(runs, 2.0, margin=0.0)
    assert result["labels_to_target"] == {"a": pytest.approx(6.0), "b": None}


# --- rounds, with a stand-in for training ----------------------------------------------------------------------------

TASK = LandmarkTask("three", ("a", "b", "c"), 2)
COUNTS = (2, 4, 7)


def _case(image_id: str, seed: int) -> Case:
    numbers = np.random.default_rng(seed)
    image = Image(ImageGeometry.identity((16, 16), 1.0), numbers.normal(100, 20, (16, 16)).astype(np.float32))
    return Case(image_id, image, LandmarkSet.of_positions(TASK, numbers.uniform(0, 15, (3, 2))))


CASES = {f"i{k}": _case(f"i{k}", k) for k in range(9)}
TESTS = [_case(f"t{k}", 100 + k) for k in range(3)]


@dataclass
class Guess:
    """A model that is off by so much."""

    off: float

    def case(self, image_id: str, image: Image) -> str:
        return image_id

    def predict(self, case: str) -> LandmarkSet:
        truth = next(c.landmarks for c in TESTS if c.image_id == case)
        return LandmarkSet.of_positions(TASK, truth.positions_mm + [self.off, 0], Status.PREDICTED)


@dataclass
class Training:
    """Stands in for ``fit``: remembers what it was asked for, and stops at a given training as Ctrl-C would."""

    stop_at: int | None = None
    asked: list[dict] = field(default_factory=list)

    def __call__(self, task, train, valid, config, folder):
        if len(self.asked) + 1 == self.stop_at:
            raise KeyboardInterrupt
        ids = [c.image_id for c in train]
        unlabelled = [p.stem for p in config.unlabelled]
        asked = {"ids": ids, "valid": list(valid), "unlabelled": unlabelled, "seed": config.seed, "from": config.start_from}
        self.asked.append(asked | {"steps": config.budget.steps})
        folder.mkdir(parents=True)
        model = Guess(12.0 / len(ids))
        (folder / "model").write_text(str(model.off), encoding="utf-8")
        return model, {}


@pytest.fixture
def training(monkeypatch):
    """Instead of training: models that doubt ``i0`` most, then ``i1`` …"""

    def assess(model, case):
        return ImageAssessment(float(9 - int(case.image_id[1:])), 0.0, "b", ((1.0, 2.0), (3.0, 4.0), (5.0, 6.0)))

    monkeypatch.setattr(campaigns, "assess_image", assess)
    return use_training(monkeypatch, Training())


def use_training(monkeypatch, stand_in: Training) -> Training:
    monkeypatch.setattr(campaigns, "fit", stand_in)
    monkeypatch.setattr(campaigns, "load_model", lambda folder, *_: Guess(float((folder / "model").read_text(encoding="utf-8"))))
    return stand_in


def played(counts=COUNTS, **options) -> Campaign:
    paths = {i: Path(f"/nowhere/{i}.png") for i in CASES}
    return Campaign(TASK, CASES, paths, TESTS, find_preset("scn", 2), Budget(steps=2), counts, **options)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_each_round_adds_labels_trains_on_all_of_them_and_is_measured(training, tmp_path, strategy):
    told = []
    done = played().run(strategy, 3, tmp_path, told.append)
    assert list(done) == list(COUNTS)
    order = done[7]["chosen"]
    assert len(set(order)) == 7 and set(order) <= set(CASES)
    for count, asked in zip(COUNTS, training.asked, strict=True):
        assert done[count]["chosen"] == asked["ids"] == order[:count]
        assert asked["unlabelled"] == [i for i in CASES if i not in order[:count]] and asked["valid"] == [] and asked["seed"] == 3
        assert done[count]["mre_mm"] == pytest.approx(12 / count)
        assert done[count]["n_missed"] == 0 and set(done[count]["outliers"]) == {"2", "4", "10"}
    assert told == [f"{strategy}, seed 3: training on {n} labels" for n in COUNTS]
    assert [asked["from"] for asked in training.asked] == [None, Guess(12 / COUNTS[0]), Guess(12 / COUNTS[1])]


def test_the_first_training_may_be_longer_also_in_a_campaign_that_goes_on(training, tmp_path):
    played((2,), first=3).run("first", 0, tmp_path)
    played(COUNTS, first=3).run("first", 0, tmp_path)
    assert [asked["steps"] for asked in training.asked] == [6, 2, 2]
    with pytest.raises(UsageError, match="holds rounds of another task, model, time or set of images"):
        played(COUNTS).run("first", 0, tmp_path)


def test_the_model_of_a_round_decides_on_the_next_one(training, tmp_path):
    order = played().run("uncertain", 0, tmp_path)[7]["chosen"]
    assert order[2:] == [f"i{k}" for k in range(9) if f"i{k}" not in order[:2]][:5]
    assert played().run("first", 0, tmp_path / "first")[7]["chosen"] == [f"i{k}" for k in range(7)]


def test_more_labels_than_there_are_cases_are_all_cases(training, tmp_path):
    done = played((4, 50)).run("random", 0, tmp_path)
    assert sorted(done[50]["chosen"]) == sorted(CASES) and training.asked[-1]["unlabelled"] == []


def test_a_seed_repeats_its_order_and_another_has_another(training, tmp_path):
    orders = [tuple(played().run("random", seed, tmp_path / f"{k}")[7]["chosen"]) for k, seed in enumerate((0, 0, 1, 2))]
    assert orders[0] == orders[1] and len(set(orders)) == 3


@pytest.mark.parametrize("stop_at", [1, 2, 3])
@pytest.mark.parametrize("strategy", ["adaptive", "random"])
def test_a_stopped_campaign_goes_on_to_the_same_end(monkeypatch, training, tmp_path, strategy, stop_at):
    straight = played().run(strategy, 5, tmp_path / "straight")
    use_training(monkeypatch, Training(stop_at))
    with pytest.raises(KeyboardInterrupt):
        played().run(strategy, 5, tmp_path / "stopped")
    rest = use_training(monkeypatch, Training())
    done = played().run(strategy, 5, tmp_path / "stopped")
    assert len(rest.asked) == 4 - stop_at
    assert rest.asked[0]["from"] == (Guess(12 / COUNTS[stop_at - 2]) if stop_at > 1 else None)
    assert json.dumps(done) == json.dumps(straight)
    nothing = use_training(monkeypatch, Training(stop_at=1))
    assert json.dumps(played().run(strategy, 5, tmp_path / "stopped")) == json.dumps(straight) and nothing.asked == []


def test_a_round_is_kept_when_the_model_found_no_place_for_a_landmark(monkeypatch, training, tmp_path):
    monkeypatch.setattr(
        campaigns, "assess_image", lambda model, case: ImageAssessment(1.0, 0.5, "c", ((1.0, 2.0), (3.0, 4.0), (None, None)))
    )
    straight = played().run("uncertain", 0, tmp_path)
    use_training(monkeypatch, Training(stop_at=1))
    assert [r["chosen"] for r in played().run("uncertain", 0, tmp_path).values()] == [r["chosen"] for r in straight.values()]


# --- the command line ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


def simulate(place: Path, *words: object) -> Done:
    """``simulate labels`` on the study, in this process."""
    out, err = io.StringIO(), io.StringIO()
    files = ("--task", place / "task.json", "--valid", place / "valid.txt", "--out", place / "out")
    command = ["simulate", "labels", place / "study", *files, *words]
    with redirect_stdout(out), redirect_stderr(err):
        code = main([str(w) for w in command])
    return Done(code, out.getvalue(), err.getvalue())


QUICK = ("--steps", 4, "--counts", "2,4", "--seeds", 1)


@pytest.fixture(scope="module")
def place(tmp_path_factory, small_networks):  # noqa: F811
    """A study of ten labelled phantoms; models are measured on two of them."""
    place = tmp_path_factory.mktemp("campaign")
    cases = {f"phantom{seed:02d}": phantom(seed) for seed in range(10)}
    task = cases["phantom00"].landmarks.task
    write_json(place / "task.json", task.to_json())
    (place / "valid.txt").write_text("phantom03\nphantom08\n", encoding="utf-8")
    (place / "study").mkdir()
    for image_id, case in cases.items():
        write_image(place / "study" / f"{image_id}.png", case.image)
    study = Study(place / "study", task)
    for image_id, case in cases.items():
        study.save(image_id, case.landmarks)
    study.close()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(presets, "find_preset", lambda key, dims: small())
        patch.setattr("landmarklabel.networks.devices.use_all_cores", lambda: None)
        yield place


@pytest.fixture(scope="module")
def first_call(place):
    done = simulate(place, *QUICK, "--json")
    assert done.code == 0, done
    return done


def test_the_figures_are_printed_and_kept(place, first_call):
    result = json.loads(first_call.out)
    assert {"target_mm", "labels_to_target", "worst_seed", "curves"} <= set(result)
    assert json.loads((place / "out" / "labels.json").read_text(encoding="utf-8")) == result
    assert result["target_mm"] == pytest.approx(1.1 * result["full_mre_mm"]) and result["target_mm"] > 0
    for strategy in ("adaptive", "random"):
        kept = {n: json.loads((place / "out" / strategy / "seed0" / f"000{n}.json").read_text(encoding="utf-8")) for n in (2, 4)}
        assert result["curves"][strategy] == [[n, [kept[n]["mre_mm"]]] for n in (2, 4)]
        assert kept[4]["chosen"][:2] == kept[2]["chosen"] and len(set(kept[4]["chosen"])) == 4
        assert not {"phantom03", "phantom08"} & set(kept[4]["chosen"])
    for key in ("labels_to_target", "worst_seed"):
        assert set(result[key]) == {"adaptive", "random"}
    for strategy, ((_, (two,)), (_, (four,))) in result["curves"].items():  # of one seed
        target, needed = result["target_mm"], None
        if two <= target:
            needed = 2.0
        elif four <= target:
            needed = pytest.approx(2 + 2 * (two - target) / (two - four))
        assert result["labels_to_target"][strategy] == needed and result["worst_seed"][strategy] == needed


def test_every_training_is_told(first_call):
    every = [("random", 8), ("adaptive", 2), ("adaptive", 4), ("random", 2), ("random", 4)]
    assert first_call.err.splitlines() == [f"landmarklabel: {s}, seed 0: training on {n} labels" for s, n in every]


def test_the_report_names_every_strategy(place, first_call):
    page = (place / "out" / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") == 1 and "error against labels" in page
    for strategy in ("adaptive", "random"):
        assert f"<td>{strategy}</td>" in page and f"{strategy}, seed 0: phantom" in page


def _changed(folder: Path) -> dict[str, int]:
    return {str(p): p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and p.parent != folder}


def test_a_second_call_trains_nothing_and_says_the_same_to_people(place, first_call):
    before = _changed(place / "out")
    again = simulate(place, *QUICK, "--json")
    assert (again.code, again.out, again.err) == (0, first_call.out, "")
    said = simulate(place, *QUICK).out
    result = json.loads(first_call.out)
    assert f"all 8 labels: {result['full_mre_mm']:.2f} px; target {result['target_mm']:.2f} px" in said
    for strategy, needed in result["labels_to_target"].items():
        reached = "not reached" if needed is None else f"{needed:.1f} labels, at most {needed:.1f}"
        (two, four) = (errors[0] for _, errors in result["curves"][strategy])
        assert f"{strategy:<10}{reached}; px by labels  2: {two:.2f}  4: {four:.2f}\n" in said
    assert said.endswith(f"report: {place / 'out' / 'report.html'}\n")
    assert _changed(place / "out") == before


def test_a_lost_round_is_played_again_to_the_same_figures(place, first_call):
    (place / "out" / "adaptive" / "seed0" / "0004.json").unlink()
    again = simulate(place, *QUICK, "--json")
    assert again.err == "landmarklabel: adaptive, seed 0: training on 4 labels\n"
    assert again.out == first_call.out


NAMES = "adaptive, diverse, uncertain, random, first"
COUNTED = "must be whole numbers from 1 on, such as 3,5,8,12"


@pytest.mark.parametrize(
    "words, text",
    [
        (("--strategies", "adaptive,clever"), f"--strategies: no strategy called 'clever'; there are {NAMES}"),
        (("--strategies", ","), f"--strategies: no strategy called ''; there are {NAMES}"),
        (("--counts", "2,x"), f"--counts '2,x' {COUNTED}"),
        (("--counts", "2,,4"), f"--counts '2,,4' {COUNTED}"),
        (("--counts", "0,4"), f"--counts '0,4' {COUNTED}"),
        (("--counts", "2.5"), f"--counts '2.5' {COUNTED}"),
        (("--counts", ""), f"--counts '' {COUNTED}"),
        (("--seeds", "0"), "--seeds 0 must be at least 1"),
        (("--seeds", "-3"), "--seeds -3 must be at least 1"),
        (("--steps", "0"), "--minutes and --steps must be positive"),
        (("--minutes", "-1"), "--minutes and --steps must be positive"),
    ],
)
def test_mistakes_end_with_one_clear_line_before_anything_is_trained(monkeypatch, place, tmp_path, words, text):
    monkeypatch.setattr(campaigns, "fit", Training(stop_at=1))
    done = simulate(place, "--out", tmp_path / "out", *words)
    assert (done.code, done.out, done.err) == (2, "", f"landmarklabel: {text}\n")
    assert not (tmp_path / "out").exists()


def test_a_study_that_cannot_be_played_is_named(place, tmp_path):
    (place / "all.txt").write_text("".join(f"phantom{k:02d}\n" for k in range(10)), encoding="utf-8")
    done = simulate(place, "--out", tmp_path / "out", "--valid", place / "all.txt")
    text = f"{place / 'study'}: 0 labelled images to choose from and 10 to measure on"
    assert (done.code, done.err) == (2, f"landmarklabel: {text}\n")
    done = simulate(tmp_path, "--task", place / "task.json", "--valid", place / "all.txt")
    assert (done.code, done.err) == (
        2,
        f"landmarklabel: {tmp_path / 'study'}: no such study folder; landmarklabel import makes one\n",
    )


def test_without_a_list_the_fixed_fifth_is_measured_on(monkeypatch, place, tmp_path):
    training = Training(stop_at=2)
    monkeypatch.setattr(campaigns, "fit", training)
    monkeypatch.setattr(Campaign, "measured", lambda self, model: {"mre_mm": 1.0, "ids": [c.image_id for c in self.tests]})
    words = ["simulate", "labels", place / "study", "--task", place / "task.json", "--out", tmp_path / "out"]
    with redirect_stderr(io.StringIO()):
        assert main([str(w) for w in words]) == 130  # stopped after the training on all labels
    train, valid = split_ids(f"phantom{k:02d}" for k in range(10))
    assert sorted(training.asked[0]["ids"]) == train and len(valid) == 4
    assert json.loads((tmp_path / "out" / "all" / "0006.json").read_text(encoding="utf-8"))["ids"] == valid
