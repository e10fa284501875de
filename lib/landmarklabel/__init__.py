"""LandmarkLabel: finds anatomical landmarks in medical images and learns from the people who correct them.

Reading order: ``landmarks`` and ``geometry`` (the data model), ``io`` (files), ``store`` (a study and its
revisions), ``data`` and ``networks`` (what is learned from what), ``training``, ``inference``, ``report``,
and at the top ``server`` (the MONAI Label app) and ``cli``. Imports point from the end of this list to its start.
Decision: every position outside a network is in LPS millimetres, float64; 2D is not a second code path.
"""

import os

# Our numpy sums are small: waking its second thread costs more than they do. Torch has threads of its own.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

__version__ = "0.1.0"
