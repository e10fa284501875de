"""A LandmarkSet is a collection of named landmarks that can be compared, printed, drawn and handed on."""

from __future__ import annotations

import builtins
import copy
import pickle
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import landmarklabel as ll
from landmarklabel.errors import MissingPackage, TaskError
from landmarklabel.io.markups import parse_markups

NAN = float("nan")
_PLAIN = {"div", "p", "b", "svg", "circle", "title", "text", "details", "summary", "table", "tr", "th", "td"}
TASK = ll.LandmarkTask("hand", ("tip", "root", "wrist"), 2)


def a_set(**changes: object) -> ll.LandmarkSet:
    given = {
        "task": TASK,
        "positions_mm": [[1, 2], [3, 4], [NAN, NAN]],
        "status": ("predicted", "placed", "absent"),
        "expected_error_mm": [0.5, NAN, NAN],
        "covariance_mm2": np.stack([np.eye(2)] * 3),
        "presence": np.array([0.9, 1.0, 0.1]),
        "radius95_mm": np.array([1.25, NAN, NAN]),
    }
    return ll.LandmarkSet(**(given | changes))


def test_a_landmark_by_its_name():
    tip = a_set()["tip"]
    assert (tip.name, tip.status, tip.expected_error_mm, tip.presence, tip.radius95_mm) == ("tip", "predicted", 0.5, 0.9, 1.25)
    assert tip.position_mm.tolist() == [1, 2] and tip.covariance_mm2.tolist() == [[1, 0], [0, 1]] and tip.unit == "mm"
    bare = ll.LandmarkSet.empty(TASK)["root"]
    assert bare.status is ll.Status.UNSET and bare.covariance_mm2 is None
    assert np.isnan([*bare.position_mm, bare.expected_error_mm, bare.presence, bare.radius95_mm]).all()
    with pytest.raises(AttributeError):
        tip.name = "other"
    with pytest.raises(ValueError, match="read-only"):
        tip.position_mm[0] = 5


def test_an_unknown_name_is_a_key_error_that_names_the_nearest():
    with pytest.raises(KeyError) as caught:
        a_set()["tipp"]
    assert str(caught.value) == "task 'hand': no landmark called 'tipp'; did you mean 'tip'?"
    assert isinstance(caught.value, TaskError) and isinstance(caught.value, ll.LandmarkLabelError)
    with pytest.raises(KeyError, match="there are tip, root, wrist"):
        a_set()["zzz"]
    with pytest.raises(KeyError, match="no landmark called 0"):
        a_set()[0]


def test_length_names_iteration_and_membership():
    landmarks = a_set()
    assert len(landmarks) == 3 and landmarks.names == ("tip", "root", "wrist")
    assert [one.name for one in landmarks] == [*landmarks.names]
    assert list(landmarks) == [landmarks[name] for name in landmarks.names]
    assert "tip" in landmarks and "thumb" not in landmarks and None not in landmarks
    assert landmarks["wrist"] in landmarks and landmarks["tip"] not in ll.LandmarkSet.empty(TASK)


def test_equal_where_all_values_are_and_nan_equals_nan():
    assert a_set() == a_set() and a_set()["wrist"] == a_set()["wrist"] and a_set() != a_set(presence=None)
    assert a_set() == copy.deepcopy(a_set()) == pickle.loads(pickle.dumps(a_set()))
    assert a_set(unit="px") == a_set()  # files do not keep the unit
    assert a_set() != "a set" and a_set()["tip"] != "tip"
    with pytest.raises(TypeError, match="unhashable"):
        hash(a_set())
    with pytest.raises(TypeError, match="unhashable"):
        hash(a_set()["tip"])


@pytest.mark.parametrize(
    "changes",
    [
        {"positions_mm": [[1, 2.001], [3, 4], [NAN, NAN]]},
        {"status": ("placed", "placed", "absent")},
        {"status": ("predicted", "placed", "unset")},
        {"expected_error_mm": [0.5, 1, NAN]},
        {"covariance_mm2": None},
        {"presence": np.array([0.9, 1.0, 0.2])},
        {"radius95_mm": None},
        {"task": ll.LandmarkTask("hand", ("tip", "root", "elbow"), 2)},
    ],
)
def test_different_where_one_value_is(changes):
    assert a_set() != a_set(**changes)


@given(st.integers(0, 2), st.sampled_from(["predicted", "placed", "accepted", "absent", "unset"]))
def test_a_changed_landmark_is_the_only_one_that_differs(i, status):
    before = a_set()
    name, place = TASK.names[i], (7.0, 8.0) if ll.Status(status).has_position else None
    after = before.with_landmark(name, place, status)
    assert [one.name for one in before if one != after[one.name] and one.name != name] == []
    assert after[name].status.value == status and (after[name] == before[name]) <= (after == before)


def test_what_is_printed_says_counts_positions_and_units():
    text = repr(a_set())
    assert text.splitlines()[0] == "LandmarkSet of task 'hand' (3 landmarks, 2D, LPS mm): 1 predicted, 1 placed, 1 absent"
    assert "tip    predicted at (1.00, 2.00) mm, expected error 0.50 mm" in text and "wrist  absent" in text
    assert "pixels): 1 predicted" in repr(a_set(unit="px")) and "(1.00, 2.00) px" in repr(a_set(unit="px"))
    assert repr(a_set()["root"]) == "Landmark('root': placed at (3.00, 4.00) mm)"
    many = ll.LandmarkTask("many", tuple(f"p{i}" for i in range(37)), 3)
    text = repr(ll.LandmarkSet.empty(many))
    assert text.endswith("… and 29 more") and len(text.splitlines()) == 10 and "37 unset" in text


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.assessments: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag, attrs):
        self.assessments.append((tag, dict(attrs)))


def drawing(landmarks: ll.LandmarkSet) -> list[ElementTree.Element]:
    """The SVG parts of the HTML, as XML must allow them."""
    html = landmarks._repr_html_()
    parts = [part.split("</svg>")[0] + "</svg>" for part in html.split("<svg")[1:]]
    return [ElementTree.fromstring("<svg" + part) for part in parts]


def dots(svg: ElementTree.Element) -> list[tuple[float, float]]:
    return [(float(c.get("cx")), float(c.get("cy"))) for c in svg.iter() if c.tag.endswith("circle") and c.get("r") == "3"]


def test_the_points_are_drawn_where_they_are():
    task = ll.LandmarkTask("line", ("a", "b", "c"), 2)
    (svg,) = drawing(ll.LandmarkSet.of_positions(task, [[0, 0], [50, 0], [50, 100]]))
    (ax, ay), (bx, by), (cx, cy) = dots(svg)
    assert (ax < bx == cx) and (ay == by < cy)  # LPS y goes down, as in the image
    assert (cy - by) == pytest.approx(2 * (bx - ax))
    assert all(0 < v < 240 for dot in dots(svg) for v in dot)
    (svg,) = drawing(a_set())
    assert len(dots(svg)) == 2  # an absent landmark has no place


def test_a_volume_is_drawn_from_three_sides_with_superior_up():
    task = ll.LandmarkTask("spine", ("head", "foot"), 3)
    axial, coronal, sagittal = drawing(ll.LandmarkSet.of_positions(task, [[0, 0, 100], [0, 10, 0]]))
    for view in (coronal, sagittal):
        (_, head), (_, foot) = dots(view)
        assert head < foot
    assert len(dots(axial)) == 2
    assert drawing(ll.LandmarkSet.empty(task)) == []


def test_names_are_escaped_and_nothing_comes_from_elsewhere():
    evil = '<img src="https://x.example/a.png" onerror=alert(1)>&"\''
    task = ll.LandmarkTask("evil", (evil, "b"), 2)
    html = ll.LandmarkSet.of_positions(task, [[0, 0], [1, 1]])._repr_html_()
    tags = _Tags()
    tags.feed(html)
    assert {tag for tag, _ in tags.assessments} <= _PLAIN
    assert not [k for _, attrs in tags.assessments for k in attrs if k.startswith("on") or k in ("src", "href", "style")]
    assert html.count("https://x.example") == html.count("&lt;img src=&quot;https://x.example") > 0
    assert any("<img" in (t.text or "") for t in drawing(ll.LandmarkSet.of_positions(task, [[0, 0], [1, 1]]))[0].iter())


def test_a_data_frame_has_a_row_a_landmark():
    pytest.importorskip("pandas")
    frame = a_set(unit="px").to_dataframe()
    assert list(frame.index) == [*TASK.names] and frame.index.name == "landmark"
    assert [*frame.columns] == ["status", "x_mm", "y_mm", "expected_error_mm", "radius95_mm", "presence"]
    assert frame.loc["root", ["x_mm", "y_mm"]].tolist() == [3, 4] and frame.loc["wrist", "status"] == "absent"
    assert frame.attrs == {"task": "hand", "frame": "LPS", "unit": "px"}
    assert frame["x_mm"].isna().tolist() == [False, False, True]


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match="pip install pandas") as caught:
        a_set().to_dataframe()
    assert isinstance(caught.value, builtins.ImportError)


def test_markups_read_back_as_the_same_set():
    landmarks = a_set(covariance_mm2=None, presence=None)
    assert parse_markups(landmarks.to_markups(), TASK, "text") == landmarks
