"""Networks that turn an image into evidence about landmarks, and how that is encoded and decoded.

``presets`` names every model, ``build`` makes its networks. ``scn`` and ``global_local`` hold the published ones, ``default`` and
``fine_net`` our own. ``heatmaps`` encodes positions into maps and decodes maps; ``decoding`` decodes any network's output.
Decision: a network sees tensors on a grid (index order z, y, x in the array) and never a millimetre.
"""
