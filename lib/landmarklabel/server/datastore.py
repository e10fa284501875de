"""The study's datastore, as MONAI Label calls it."""

from __future__ import annotations

from monailabel.interfaces.datastore import Datastore

from landmarklabel.services.datastore import StudyDatastore


class LandmarkDatastore(StudyDatastore, Datastore):
    """MONAI Label's 26 methods, which ``StudyDatastore`` has under the same names."""
