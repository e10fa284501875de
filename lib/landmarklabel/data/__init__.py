"""Cases as networks see them: cached pixels, augmentation of image and points by one draw, fixed splits, phantoms.

Decision: randomness is drawn first, as plain data (``draw_warp``), and applied second; points go through the inverse of
the very transform the image was sampled with, never through warped heatmaps.
"""
