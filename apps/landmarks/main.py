"""LandmarkLabel as a MONAI Label app.

    monailabel start_server --app apps/landmarks --studies STUDY --conf task hand_xray --conf models scn

Everything lives in the package ``landmarklabel``; MONAI Label finds the one class below.
"""

from landmarklabel.server.running import starting

with starting():  # a taken port is said before anything slow is imported
    from landmarklabel.server.monailabel import LandmarkApp

__all__ = ["LandmarkApp"]
