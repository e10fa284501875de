"""What the LandmarkLabel module is made of; only ``panel`` knows Qt, only ``markups`` knows MRML."""
