"""Sizes of pages and pictures."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class ReportConfig(Configuration):
    """Sizes of pages and pictures."""

    sheet_pixels: int = number(240, 0)  # of a picture on a contact sheet
    sheet_images: int = number(400, 0)  # on a contact sheet
    worst_points: int = number(20, 0)  # in the table
    worst_images: int = number(6, 0)  # shown
    typical_images: int = number(2, 0)  # shown
    calibration_bins: int = number(5, 0)  # of expected errors
    image_rows: int = number(100, 0)  # of the table of images
    far: float = number(10.0, 0)  # mm or px: as the usual measure of outliers
    unwarned_factor: float = number(3.0, 0)  # times the expected error; of a circular normal error, 1 in 1000 is as large
    named_landmarks: int = number(3, 0)  # on an image: those with the largest errors
    picture_bytes: int = number(36_000, 0)  # of a picture in a page
    pixels_per_inch: int = number(96, 0)  # of a screen
    bars: int = number(60, 0)  # of a chart
    black_percentile: float = number(0.5, 0)  # shown as black
    white_percentile: float = number(99.7, 0)  # shown as white
    samples_2d: int = number(900, 8)  # along the longest side of a whole image
    samples_3d: int = number(160, 8)
    close_samples_2d: int = number(400, 8)  # along a side of a close-up
    close_samples_3d: int = number(112, 8)

    def samples(self, dims: int) -> int:
        """Along the longest side of a picture of a whole image."""
        return self.samples_2d if dims == 2 else self.samples_3d

    def close_samples(self, dims: int) -> int:
        """Along a side of a close-up."""
        return self.close_samples_2d if dims == 2 else self.close_samples_3d


CONFIG = ReportConfig()
