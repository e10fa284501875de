"""Longer texts of ``--help``."""

EXAMPLE = """\
from a folder of images to a served model:
  landmarklabel task new hand --names names.txt --dims 2 --out hand.json
  landmarklabel import STUDY --task hand.json --images scans/ --table points.csv
  landmarklabel train STUDY --model scn --minutes 30 --out model/
  landmarklabel predict model/ new_scans/ --out predictions/
  landmarklabel evaluate predictions/ truth.csv --task hand.json --images new_scans/ --report report.html
  landmarklabel serve --studies STUDY
"""

NAMES = 'where names differ: JSON {"name in the files": "landmark of the task", "to leave out": null}'
LAYOUTS = """\
layouts, at most one of:
  --table    rows id,x0,y0[,z0],x1,… (LPS mm; pixels for pictures), with or without a header;
             or rows id,label,x,y[,z][,annotator], one row per point
  --markups  one <image id>.mrk.json or .fcsv per image
  --isbi     <image id>.txt: a row x,y (pixels) per landmark, lines with a single number after them are ignored;
             --annotators both keeps each folder's points as a revision of that author before the mean
  --voxels   <image id>.txt, .nii.txt or .nii.gz.txt: a row "z y x" (2D: "x y") per landmark, indices from 0
  --masks    an image of label values per image; centroid: a landmark per label, labels ascending or as "label N" in the
             task's definitions; extremes: per label the outermost samples towards -x +x -y +y [-z +z] of LPS
"""

PREDICTIONS = """\
in --out:
  <id>.mrk.json        the landmarks of one image, for 3D Slicer. A file that was changed by hand since is kept and said; one
                       that predict did not write is never overwritten.
  predictions.csv      a row for each image of this call: id, then position (LPS mm), status and expected error (mm) of each
                       landmark; pixels for pictures without spacing. Names that a spreadsheet would run as a formula
                       (= + - @ first) begin with an apostrophe.
  predictions_long.csv the same with a row for each point: id,landmark,x,y,z,status,expected_error
  .predictions.jsonl   of which model and pixels each file is; a stopped call goes on from there
"""

COHORT = """\
examples:
  landmarklabel cohort plan scans/ --model model/ --out run/
  landmarklabel cohort run run/
  landmarklabel cohort status run/
  landmarklabel cohort merge run/

on a cluster, instead of run:
  landmarklabel cohort submit run/ --slurm 64 --sbatch=--time=12:00:00 --dry-run
"""
