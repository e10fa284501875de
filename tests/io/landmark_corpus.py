"""Malformed landmark files: (name, content, what the error must say). All are read for TASK, a task of three points."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable

from landmarklabel.landmarks import LandmarkTask

TASK = LandmarkTask("skull", ("nasion", "bregma", "lambda"), 3)
FLAT_TASK = LandmarkTask("flat", TASK.names, 2)


def valid_document() -> dict:
    """The content of a good .mrk.json file for TASK."""
    points = [
        {
            "id": str(i + 1),
            "label": name,
            "description": "",
            "associatedNodeID": "",
            "position": [1.5 + i, -2.25, 3.0],
            "selected": True,
            "locked": False,
            "visibility": True,
            "positionStatus": "defined",
        }
        for i, name in enumerate(TASK.names)
    ]
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "coordinateUnits": "mm", "controlPoints": points}
    return {"@schema": "https://x/markups-schema-v1.0.3.json#", "markups": [markup]}


VALID = json.dumps(valid_document())
VALID_FCSV = """# Markups fiducial file version = 5.10
# CoordinateSystem = LPS
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,1.5,-2.25,3,0,0,0,1,1,1,0,nasion,,,2,0
2,2.5,-2.25,3,0,0,0,1,1,1,1,bregma,,,2,0
3,0,0,0,0,0,0,1,1,1,0,lambda,,,3,0
"""


def _changed(change: Callable[[dict, dict, list], object]) -> bytes:
    document = valid_document()
    markup = document["markups"][0]
    change(document, markup, markup["controlPoints"])
    return json.dumps(document).encode()


def _markup(**values) -> bytes:
    return _changed(lambda d, m, p: m.update(values))


def _point(**values) -> bytes:
    """The second point (bregma) changed."""
    return _changed(lambda d, m, p: p[1].update(values))


def _second_list(d: dict, m: dict, p: list) -> None:
    other = copy.deepcopy(m)
    other["coordinateSystem"] = "RAS"
    d["markups"].append(other)


def _measured(*values: object, **more) -> bytes:
    return _markup(measurements=[{"name": "expected_error_mm", "controlPointValues": list(values), **more}])


def _text(old: str, new: str) -> bytes:
    assert old in VALID
    return VALID.replace(old, new).encode()


def _fcsv(old: str, new: str) -> bytes:
    assert old in VALID_FCSV
    return VALID_FCSV.replace(old, new).encode()


def _without_line(word: str) -> bytes:
    return "".join(line for line in VALID_FCSV.splitlines(keepends=True) if word not in line).encode()


MARKUPS = [
    ("empty", b"", "not JSON"),
    ("blank", b" \n\n", "not JSON"),
    ("binary", bytes(range(256)), r"not UTF-8 text \(byte 0x80 at position 128\)"),
    ("latin1", VALID.replace("nasion", "näsion").encode("latin-1"), "not UTF-8 text"),
    ("utf16", VALID.encode("utf-16"), "UTF-16; save it as UTF-8"),
    ("utf16 big endian", b"\xfe\xff" + VALID.encode("utf-16-be"), "UTF-16"),
    ("utf16 without mark", VALID.encode("utf-16-le"), "not JSON"),
    ("utf32", VALID.encode("utf-32-be"), "not JSON"),
    ("cut", VALID[:-20].encode(), "not JSON"),
    ("two documents", (VALID + VALID).encode(), "not JSON"),
    ("trailing comma", _text("3.0]", "3.0,]"), "not JSON"),
    ("comment", b"// points\n" + VALID.encode(), "not JSON"),
    ("null", b"null", 'no "markups" list'),
    ("number", b"12", 'no "markups" list'),
    ("list", b"[]", 'no "markups" list'),
    ("text", b'"markups"', 'no "markups" list'),
    ("other json", b'{"points": [1, 2, 3]}', 'no "markups" list'),
    ("markups object", b'{"markups": {}}', 'no "markups" list'),
    ("markups empty", b'{"markups": []}', "no control points"),
    ("markups of numbers", b'{"markups": [1, 2]}', "markups list 1 is 1: it has no list of controlPoints"),
    ("points null", _markup(controlPoints=None), "no list of controlPoints"),
    ("points object", _markup(controlPoints={"a": 1}), "no list of controlPoints"),
    ("points empty", _markup(controlPoints=[]), "no control points"),
    ("deep list", b"[" * 200_000, "nested too deep"),
    ("deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deep"),
    ("deep position", _point(position="DEEP").replace(b'"DEEP"', b"[" * 300 + b"]" * 300), "must be three numbers"),
    ("too large", b'{"a": "' + b"x" * 20_000_000 + b'"}', "larger than 20 MB"),
    ("too many values", b"[" + b"[]," * 1_200_000 + b"1]", "more than 1000000 values"),
    ("too many points", _markup(controlPoints=[{}] * 5001), "5001 control points; allowed are 1 to 5000"),
    ("schema of a table", _changed(lambda d, m, p: d.update({"@schema": "http://x/table-v1.json"})), "table-v1.json"),
    ("schema version 2", _text("schema-v1.0.3", "schema-v2.0.0"), "markups-schema-v2.0.0.* is not .* version 1"),
    ("schema number", _changed(lambda d, m, p: d.update({"@schema": 1})), '"@schema" 1 is not'),
    ("a line", _markup(type="Line"), "of type 'Line'; only Fiducial"),
    ("a curve", _markup(type="ClosedCurve"), "ClosedCurve"),
    ("no type", _changed(lambda d, m, p: m.pop("type")), "of type None"),
    ("type list", _markup(type=["Fiducial"]), r"of type \['Fiducial'\]"),
    ("two lists, two frames", _changed(_second_list), "2 markups lists hold points"),
    ("frame XYZ", _markup(coordinateSystem="XYZ"), "coordinateSystem 'XYZ' is unknown; allowed are LPS and RAS"),
    ("frame lower case", _markup(coordinateSystem="ras"), "coordinateSystem 'ras'"),
    ("frame IJK", _markup(coordinateSystem="IJK"), "coordinateSystem 'IJK'"),
    ("frame number", _markup(coordinateSystem=0), "coordinateSystem 0"),
    ("frame null", _markup(coordinateSystem=None), "coordinateSystem None"),
    ("frame list", _markup(coordinateSystem=["LPS"]), r"coordinateSystem \['LPS'\]"),
    ("micrometres", _markup(coordinateUnits="um"), "coordinateUnits 'um' are not supported"),
    ("units coded", _markup(coordinateUnits=["um", "UCUM", "micrometer"]), "coordinateUnits"),
    ("units null", _markup(coordinateUnits=None), "coordinateUnits None"),
    ("NaN literal", _text("-2.25", "NaN"), "NaN is not a JSON number.*nasion.*is not finite"),
    ("Infinity literal", _text("-2.25", "Infinity"), "Infinity is not a JSON number"),
    ("minus Infinity", _text("-2.25", "-Infinity"), "-Infinity is not a JSON number"),
    ("NaN elsewhere", _markup(display={"opacity": float("nan")}), "NaN is not a JSON number"),
    ("1e999", _text("-2.25", "1e999"), r"point 1 \('nasion'\): position \[1.5, inf, 3.0\] is not finite"),
    ("1e308", _text("-2.25", "1e308"), r"1e\+308.*more than 1e\+06 mm from the origin"),
    ("far away", _point(position=[0, 0, -1000001]), "-1000001.*more than"),
    ("huge integer", _text("-2.25", "9" * 4000), "999.*more than 1e.06 mm"),
    ("longer integer", _text("-2.25", "9" * 400_000), "(more than 1e.06 mm|not JSON)"),
    ("position text", _point(position="1,2,3"), "'1,2,3' must be three numbers"),
    ("position of texts", _point(position=["1", "2", "3"]), "not made of numbers"),
    ("position of booleans", _point(position=[True, False, 1.0]), "not made of numbers"),
    ("position of nulls", _point(position=[None, 1, 2]), "not made of numbers"),
    ("position nested", _point(position=[[1], [2], [3]]), "not made of numbers"),
    ("position short", _point(position=[1.0, 2.0]), r"\[1.0, 2.0\] must be three numbers"),
    ("position long", _point(position=[1.0, 2.0, 3.0, 1.0]), "must be three numbers"),
    ("position object", _point(position={"x": 1}), "must be three numbers"),
    ("position number", _point(position=5), "5 must be three numbers"),
    ("position empty", _point(position=""), "defined but has no position"),
    ("position null", _point(position=None), "defined but has no position"),
    ("position gone", _changed(lambda d, m, p: p[1].pop("position")), "defined but has no position"),
    (
        "status unknown",
        _point(positionStatus="placed"),
        "positionStatus 'placed' is none of undefined, preview, defined",
    ),
    ("status number", _point(positionStatus=2), "positionStatus 2 is none of"),
    ("status null", _point(positionStatus=None), "positionStatus None is none of"),
    ("locked text", _point(locked="yes"), "locked 'yes' must be true or false"),
    ("locked number", _point(locked=1), "locked 1 must be true or false"),
    ("label twice", _point(label="nasion"), "label 'nasion' appears 2 times"),
    (
        "label misspelt",
        _point(label="bregmma"),
        "label 'bregmma' is no landmark of task 'skull'; did you mean 'bregma'",
    ),
    ("label in capitals", _point(label="Bregma"), "did you mean 'bregma'"),
    ("label with a space", _point(label="bregma "), "did you mean 'bregma'"),
    ("label empty", _point(label=""), r"point 2 \(''\): a control point needs a label"),
    ("label null", _point(label=None), "point 2 .*needs a label"),
    ("label gone", _changed(lambda d, m, p: p[1].pop("label")), "point 2 .*needs a label"),
    ("label number", _point(label=7), r"point 2 \(7\): a label must be text"),
    ("label list", _point(label=["nasion"]), "a label must be text"),
    ("label surrogate", _point(label="\ud800"), "'.ud800' is no landmark"),
    ("label very long", _point(label="x" * 100_000), r"xxx\.\.\.xxx.*is no landmark"),
    (
        "other task",
        _changed(lambda d, m, p: [q.update(label=str(i)) for i, q in enumerate(p)]),
        "no label matches task",
    ),
    ("point null", _changed(lambda d, m, p: p.insert(1, None)), "point 2 is None, not an object"),
    ("point list", _changed(lambda d, m, p: p.append([1, 2, 3])), r"point 4 is \[1, 2, 3\], not an object"),
    ("key twice", _text('"label": "nasion"', '"label": "nasion", "label": "bregma"'), "'label' appears 2 times in one"),
    ("measurements text", _markup(measurements="none"), "\"measurements\" 'none' must be a list"),
    ("measurement null", _markup(measurements=[None]), "must be a list of objects"),
    ("measurement short", _measured(1.0, 2.0), "must be a list of 3 numbers"),
    ("measurement of texts", _measured("1", 2.0, 3.0), "expected_error_mm '1' is not a distance"),
    ("measurement null value", _measured(None, 2.0, 3.0), "expected_error_mm None is not a distance"),
    ("measurement infinite", _measured(1e308, 2.0, 3.0), r"1e\+308 is not a distance"),
    (
        "measurement twice",
        _markup(measurements=[{"name": "expected_error_mm", "controlPointValues": [1, 1, 1]}] * 2),
        "2 measurements are called expected_error_mm",
    ),
]

FCSV = [
    ("empty", b"", "version 'not given'.*CoordinateSystem 'not given'.*must name x, y, z, label"),
    ("utf16", VALID_FCSV.encode("utf-16"), "UTF-16"),
    ("binary", b"\x80\x81", "not UTF-8"),
    ("nul", _fcsv("nasion", "\0"), "(not a table|no landmark)"),
    ("no version", _without_line("version"), "version 'not given': not of Slicer 4.6 or newer"),
    ("version 4.5", _fcsv("5.10", "4.5"), "version '4.5': not of Slicer 4.6"),
    ("version text", _fcsv("5.10", "new"), "version 'new'"),
    ("no frame", _without_line("Coordinate"), "CoordinateSystem 'not given': the header needs"),
    ("frame XYZ", _fcsv("= LPS", "= XYZ"), "CoordinateSystem 'XYZ'"),
    ("frame twice", _fcsv("# columns", "# CoordinateSystem = RAS\n# columns"), "CoordinateSystem 'LPS and RAS'"),
    ("no columns", _without_line("columns"), "must name x, y, z, label once"),
    ("columns without y", _fcsv("id,x,y,z", "id,x,why,z"), "must name y once"),
    ("columns with two x", _fcsv("id,x,y,z", "x,x,y,z"), "must name x once"),
    ("no points", VALID_FCSV[: VALID_FCSV.index("1,1.5")].encode(), "no control points"),
    ("too many points", (VALID_FCSV + "1,0,0,0,0,0,0,1,1,1,0,n,,,2,0\n" * 5000).encode(), "too many control points"),
    ("too many cells", (VALID_FCSV + "," * 1_000_001).encode(), "more than 1000000 values"),
    ("too many blank lines", ("\n" * 1_000_001 + VALID_FCSV).encode(), "more than 1000000 values"),
    ("short row", _fcsv(",nasion,,,2,0", ",nasion"), "point 1: 12 cells, the columns line names 14"),
    ("long row", _fcsv("lambda,,,3,0", "lambda,,,3,0,0"), "point 3: 17 cells"),
    ("nan", _fcsv("1,1.5,", "1,nan,"), r"point 1 \('nasion'\): position \[nan, -2.25, 3.0\] is not finite"),
    ("inf", _fcsv("1,1.5,", "1,-inf,"), "is not finite"),
    ("1e308", _fcsv("1,1.5,", "1,1e308,"), "more than 1e.06 mm"),
    ("not a number", _fcsv("1,1.5,", "1,left,"), "not made of numbers"),
    ("number python likes", _fcsv("1,1.5,", "1,1_5,"), "'1_5'.*not made of numbers"),
    ("no number", _fcsv("1,1.5,", "1,,"), "not made of numbers"),
    ("status 4", _fcsv("nasion,,,2", "nasion,,,4"), "status '4' is unknown"),
    ("status word", _fcsv("nasion,,,2", "nasion,,,defined"), "status 'defined' is unknown"),
    ("lock 2", _fcsv("1,1,1,1,bregma", "1,1,1,2,bregma"), "lock '2' must be 0 or 1"),
    ("label twice", _fcsv("bregma", "nasion"), "label 'nasion' appears 2 times"),
    ("label unknown", _fcsv("bregma", "bregna"), "did you mean 'bregma'"),
    ("label empty", _fcsv("bregma", ""), "needs a label"),
    ("quote open", _fcsv("lambda", '"lambda'), "not a table"),
    ("json inside", VALID.encode(), "version 'not given'"),
]
