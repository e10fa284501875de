"""Networks that turn an image into evidence about landmarks, and the maps they speak in.

``heatmaps`` encodes and decodes, ``registry`` names every preset, ``scn`` holds the published
SpatialConfiguration-Nets, ``default`` our own, ``refiner`` the local second stage they can all share.
Decision: a network sees tensors on a grid (index order z, y, x in the array) and never a millimetre.
"""
