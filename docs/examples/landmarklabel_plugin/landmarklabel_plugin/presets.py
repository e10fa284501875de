"""Models that can be trained. This file is read for the list of models, so it must not import torch."""

from dataclasses import replace

from landmarklabel.extending import find_preset

SMALL = replace(
    find_preset("scn:single", 2),
    method="example",
    name="small",
    about="an example: a small convolutional network of our own",
    network="landmarklabel_plugin.small_net:SmallNet",
    dims=(2,),
    grid_size={2: 96 * 96},  # samples of the grid that every image is brought to
    stride=4,  # samples of the grid a cell of the network's map
)

PRESETS = (SMALL,)
