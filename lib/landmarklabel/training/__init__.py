"""From labelled cases to a published model.

``losses`` say what is wrong, ``loop`` improves it within a budget and can be stopped and resumed anywhere, ``fit`` is the
whole recipe for one model, ``publishing`` decides whether the result replaces the live model.
Decision: every batch is a pure function of (seed, stage, step), so a resumed run repeats exactly what was lost.
"""
