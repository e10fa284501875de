"""``export``: a trained model for other programs."""

from __future__ import annotations

import argparse


def export(a: argparse.Namespace) -> None:
    """Write a MONAI bundle, or ONNX graphs that agree with torch."""
    if a.bundle:
        from landmarklabel.inference.export import export_bundle

        apart = export_bundle(a.model, a.bundle, a.authors)
        print(
            f"{a.bundle}: MONAI bundle, run on one image: landmarks differ from the model's by at most {apart:.6f}; "
            "docs/README.md in it says how to run it"
        )
        return
    from landmarklabel.inference.onnx_export import export_onnx

    apart = export_onnx(a.model, a.onnx)
    print(f"{a.onnx}: ONNX graphs; positions differ from torch's by at most {apart:.6f} samples")
