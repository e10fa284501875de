"""Numbers of the services that the servers and the command line share."""

from __future__ import annotations

from dataclasses import dataclass

from landmarklabel.configuration import Configuration, number


@dataclass(frozen=True)
class AssistantConfig(Configuration):
    """What the assistant remembers between requests."""

    open_bytes: int = number(512 * 2**20, 1)  # of stored pixels of images kept open
    remembered_images: int = number(16, 1)  # whose evidence is kept: a few MB each in 3D
    remembered_surfaces: int = number(16, 1)  # that points are put onto: a volume and a tree of its places each
    max_shapes: int = number(200, 1)  # labelled cases a shape is learned from while there is no model
    quick_learning_s: float = number(0.2, 0)  # a shape that is learned so quickly is always that of the newest labels
    many_shapes: int = number(20, 1)  # of so many one more changes little …
    many_shapes_kept_s: float = number(10.0, 0)  # … so it is looked for anew after so many seconds


@dataclass(frozen=True)
class PoolMonitorConfig(Configuration):
    """How the images of a study are watched in the background."""

    check_share: float = number(50.0, 1)  # times as long as a look at changed files took, until the next one
    rest_s: float = number(2.0, 0)  # between looks at what has changed
    retry_s: float = number(30.0, 0)  # after an error
    niceness: int = number(15, 0, 19)  # of the thread
    saved_every: int = number(10, 1)  # images
    first_look_pause: float = number(3.0, 0)  # times what an image took: a first look at all takes a quarter of one core
    thumbnail_pixels: int = number(128, 8)  # of a picture's longest side on the status page: some 4 kB an image


@dataclass(frozen=True)
class TrainingServiceConfig(Configuration):
    """Trainings that a server runs."""

    default_minutes: float = number(10.0, 0)
    max_reported: int = number(50, 1)  # texts on what could not be used, in the statistics
    memory_share: float = number(0.4, 0, 1)  # of the free memory, for images; the rest is for networks and for reading
    hard_factor: float = number(1.5, 1)  # times the median error of the proposals: such cases are shown twice as often


@dataclass(frozen=True)
class TableConfig(Configuration):
    """Tables of measurements and shapes."""

    digits: int = number(4, 0)  # after the point: a ten-thousandth of a degree or millimetre
    rounding: float = number(1e-9, 0)  # of coordinates, relative to the largest: closer ones are at one place
    fewest_specimens: int = number(2, 2)  # that can be laid over one another
    fewest_read_twice: int = number(3, 2)  # of two, a single difference would say how much specimens differ


@dataclass(frozen=True)
class ComparisonConfig(Configuration):
    """Two predictions of the same images, held against each other."""

    resamples: int = number(10_000, 100)  # of the images: an end of the interval then moves by a hundredth of its width
    at_once: int = number(250, 1)  # resamples, of all images: more take memory and are no quicker
    rounding: float = number(1e-12, 0)  # relative: sums of the same numbers in another order are as large
    fewest_images: int = number(6, 2)  # with fewer, no difference could have a two-sided p below 0.05: 2 / 2^5 is 0.06
    chance: float = number(0.05, 0, 1)  # from this p on, a difference is said to be perhaps chance
    least_p: float = number(0.001, 0, 1)  # that is said as a number: of 10 000 draws, ten are fewer than chance leaves alone


COMPARISON = ComparisonConfig()
TABLES = TableConfig()
TRAINING = TrainingServiceConfig()
