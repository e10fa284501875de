"""From an image to landmarks: ``model`` (a model folder), ``localizer`` (image to LandmarkSet), ``calibration`` (how far
off a point may be), ``template`` (an answer before anything is trained).

Decision: the localizer is the one path from pixels to positions; training, server and command line all measure through it.
"""
