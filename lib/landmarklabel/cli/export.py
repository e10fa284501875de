"""``export``: a trained model for other programs."""

from __future__ import annotations

import argparse


def export(args: argparse.Namespace) -> None:
    """Write a MONAI bundle, or ONNX graphs that agree with torch."""
    if args.bundle:
        from landmarklabel.inference.export import export_bundle

        difference = export_bundle(args.model, args.bundle, args.authors)
        print(
            f"{args.bundle}: MONAI bundle, run on one image: landmarks differ from the model's by at most {difference:.6f}; "
            "docs/README.md in it says how to run it"
        )
        return
    from landmarklabel.inference.onnx_export import export_onnx

    difference = export_onnx(args.model, args.onnx)
    print(f"{args.onnx}: ONNX graphs; positions differ from torch's by at most {difference:.6f} samples")
