"""From labelled cases to a published model.

``fit`` is the whole recipe for one model: ``planning`` (grid, networks, crops), ``stages`` and ``losses`` (what is trained),
``loop`` (within a budget; can be stopped and resumed anywhere), ``self_training`` (what unlabelled images teach), ``validation``
(validation and calibration). ``publishing`` compares the result with the live model and keeps the versions.
Decision: every batch is a pure function of (seed, stage, step), so a resumed run repeats exactly what was lost.
"""
