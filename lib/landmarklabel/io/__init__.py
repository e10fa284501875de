"""Files in and out: images (checked), markups (.mrk.json, .fcsv), tables (CSV), checkpoints (safetensors).

Decision: readers are strict, because SimpleITK and Slicer accept damaged files silently; every fault of a file is listed
in one error. Writers are atomic: a reader sees the old file or the new one.
"""
