"""``MODEL_CARD.md``: what a model is, what it was made from, how well it does, and what it is not, for the person who uses it.

The headings follow Mitchell 2019 (Model Cards for Model Reporting).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from landmarklabel.inference.calibration import ENOUGH_CASES

CARD = "MODEL_CARD.md"


def model_card(record: Mapping[str, Any]) -> str:
    """The card as Markdown, from the content of ``model.json``."""
    task = record.get("task") or {}
    names = [str(one.get("name")) for one in task.get("landmarks", [])]
    lines = [
        f"# Landmark model: {task.get('name', 'unnamed task')}",
        "",
        "**Not a medical device.** For research and for drafts that a person checks; not tested for any clinical use.",
        "",
        "## Model",
        "",
        f"- Finds {len(names)} landmarks in {task.get('dims')}D images: {', '.join(names)}",
        f"- Kind: `{record.get('preset')}`; made by LandmarkLabel {record.get('program', '?')}",
        f"- Weights: sha256 `{record.get('weights_sha256')}`",
        *_never_labelled(record),
        "",
        "## Training data",
        "",
        *_training(record),
        "",
        "## Figures",
        "",
        *_figures(record),
        "",
        "## Limits",
        "",
        "- The figures hold for images like the training images: same anatomy, device and view. Measure it on your own labelled",
        "  images with `landmarklabel evaluate` before you rely on it.",
        *([f"- **Hardly trained** ({few}): for trying things out only."] if (few := hardly_trained(record)) else []),
        *_limits(record),
        "",
    ]
    return "\n".join(lines)


def _never_labelled(record: Mapping[str, Any]) -> list[str]:
    names = record.get("untaught") or []
    return [f"- Never labelled in the training cases, so answered unset: {', '.join(map(str, names))}"] if names else []


def _training(record: Mapping[str, Any]) -> list[str]:
    labels, valid = record.get("train_labels") or {}, record.get("valid_ids") or []
    steps = ", ".join(f"{count} of {stage}" for stage, count in (record.get("steps") or {}).items())
    lines = [
        f"- {len(labels)} labelled training cases, {len(valid)} validation cases; "
        "ids and hashes of labels and pixels are in `model.json`"
    ]
    if record.get("minutes") is not None:
        lines.append(
            f"- Trained for {float(record['minutes']):.1f} minutes on {record.get('device', 'cpu')} (steps: {steps or 'none'})"
        )
    return [*lines, f"- Seed {record.get('seed')}"] if record.get("seed") is not None else lines


def _figures(record: Mapping[str, Any]) -> list[str]:
    metrics, unit = record.get("metrics") or {}, (record.get("metrics") or {}).get("unit", "mm")
    if metrics.get("mre_mm") is None:
        return ["Not measured: there were no validation cases."]
    errors = [("Mean radial error", "mre_mm"), ("median", "median_mm")]
    said = [", ".join(f"{name} {metrics[key]:.2f} {unit}" for name, key in errors if metrics.get(key) is not None)]
    said.append(", ".join(f"{s:.1f} % within {r} {unit}" for r, s in (metrics.get("sdr") or {}).items() if s is not None))
    cases = f"the {metrics['n_images']}" if "n_images" in metrics else "its"
    return [
        f"On {cases} validation cases, which also calibrated it (so the figures are slightly optimistic):",
        "",
        *(f"- {line}" for line in said if line),
    ]


def hardly_trained(record: Mapping[str, Any]) -> str:
    """Which stages had fewer steps than the training itself thought needed, in words; empty where none had."""
    least = ((record.get("training") or {}).get("gate") or {}).get("min_steps")
    few = {stage: count for stage, count in (record.get("steps") or {}).items() if least is not None and count < least}
    said = ", ".join(f"{count} of {stage}" for stage, count in few.items())
    return f"{said} steps; {least} of each are a minimum" if few else ""


def cautions(record: Mapping[str, Any]) -> list[str]:
    """What whoever looks at a model's answers should know of it first."""
    few, measured = hardly_trained(record), len(record.get("valid_ids") or [])
    said = [f"the model was hardly trained ({few}): for trying things out only, until it is trained for longer"] if few else []
    if "valid_ids" not in record:  # made by another way of training
        return said
    if not measured:
        said.append("how far the model is off was never measured: it had no validation cases")
    elif measured < ENOUGH_CASES:
        on = "one case" if measured == 1 else f"{measured} cases"
        said.append(
            f"how far the model is off was measured on {on} only, which tells little of others; {ENOUGH_CASES} are needed for "
            "95 % regions and intervals"
        )
    return said


def _limits(record: Mapping[str, Any]) -> list[str]:
    calibration = record.get("calibration") or {}
    if calibration.get("intercept") is None:
        return ["- Too few validation points: it states no expected errors."]
    if not calibration.get("quantiles"):
        return [f"- It states expected errors but no 95 % regions: those need {ENOUGH_CASES} validation cases."]
    said = [f"- Expected errors and regions rest on {calibration.get('cases')} validation cases."]
    factors = calibration.get("interval_factors")
    return [*said, f"- So do the intervals of {len(factors)} measurements."] if factors else said
