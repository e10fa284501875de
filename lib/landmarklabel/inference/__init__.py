"""From an image to landmarks, with a person's corrections.

``localizer``: a trained model, image in, landmarks out. It runs the networks (``network_runner``, ``orientation_search``), which
gives ``evidence``; fits the shape to it (``shape_prior``, ``posterior``, ``shape_fit``); and decides (``suggestion``), with
expected errors (``calibration``). A corrected point enters in ``suggestion`` and moves the others in ``shape_fit``.
``model_folder``, ``model_record`` and ``model_card`` are its folder; ``template`` answers before anything is trained.
Decision: the localizer is the one path from pixels to positions; training, server and command line all measure through it.
"""
