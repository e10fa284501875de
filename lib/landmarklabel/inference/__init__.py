"""From an image to landmarks, with a person's corrections.

``localizer``: a trained model, image in, landmarks out. It runs the networks (``network_runner``, ``pose_search``), which gives
``evidence``; fits the shape to it (``prior``, ``posterior``, ``shape_fit``); and decides (``suggest``), with expected errors
(``calibration``). A corrected point enters in ``suggest`` and moves the others in ``shape_fit``.
``model``, ``model_record`` and ``model_card`` are its folder; ``template`` answers before anything is trained.
Decision: the localizer is the one path from pixels to positions; training, server and command line all measure through it.
"""
