"""Valid landmark files of TASK, a task of three points; the malformed ones are in tests/hostile."""

from __future__ import annotations

import json

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
