"""Which tests run when: ``scripts/dev.py test --fast``, ``test``, or only ``release-check``. ``conftest`` marks them.

Decision: one table instead of a marker in every file, so that a person sees at a glance what CI leaves out, and why.
"""

from __future__ import annotations

# Folders and files of the fast tier (less what is slow): what needs no server, no training and no browser.
FAST = (
    "tests/architecture",
    "tests/active",
    "tests/data",
    "tests/inference",
    "tests/io",
    "tests/networks",
    "tests/report",
    "tests/store",
    "tests/test_geometry.py",
    "tests/test_landmarks.py",
    "tests/test_metrics.py",
    "tests/test_tasks.py",
)

# Marked ``slow`` beside those that say so themselves: start of a test's id, and why.
SLOW = {
    "tests/active/test_campaign.py": "trains",
    "tests/active/test_unlabelled_pool.py": "trains",
    "tests/inference/test_export.py": "runs MONAI and ONNX Runtime",
    "tests/inference/test_memory.py": "trains",
    "tests/store/test_many_writers.py": "many processes",
    "tests/store/test_postgresql.py": "a PostgreSQL server",
    "tests/store/test_races.py": "many processes",
    "tests/store/test_revisions.py": "every kind of store",
    "tests/store/test_tampering.py": "every kind of store",
}

# Marked ``release``: left out of ``test`` and CI. Each repeats on more material what a test of ``test`` holds.
_RELEASE_BY_FILE = {
    "tests/test_readme_run.py": {"": "README's block with its trainings, ten minutes; tests/docs parses its commands"},
    "tests/api/test_python_docs.py": {
        "test_the_notebook_runs_and_its_model_finds_landmarks": "a training through the Python API, minutes on two cores",
    },
    "tests/test_gpu_experiment.py": {
        "test_a_killed_run_goes_on_where_it_was_and_the_cpu_agrees_with_itself": "an experiment's program, five minutes",
    },
    "tests/server/test_stock_client.py": {
        "test_the_other_method_is_trained_and_answers_beside_it": "as the first method, on two studies",
    },
    "tests/slicer/test_end_to_end.py": {"test_a_round_on_real_images[mouse_skull-5]": "as on the hands"},
    "tests/cli/test_demo.py": {
        "test_a_half_whose_server_dies_leaves_the_other_half_and_its_report": "the demo a second time",
    },
    "tests/server/test_running.py": {
        "test_a_signal_ends_it_within_ten_seconds_with_fifty_inferences_and_a_training_under_way[serve]": "as by monailabel",
    },
    "tests/store/test_many_writers.py": {
        "test_eight_processes_lose_nothing_and_the_file_is_the_newest[postgresql]": "as on SQLite",
    },
    "tests/training/test_fit.py": {
        "test_unlabelled_images_teach_a_second_round_on_any_processor[True]": "as in the other arithmetic",
    },
}
RELEASE = {
    f"{file}::{test}" if test else file: reason for file, tests in _RELEASE_BY_FILE.items() for test, reason in tests.items()
}


def markers_of(node_id: str) -> list[str]:
    """``slow`` and ``release``, as far as a test has them."""
    tables = {"slow": SLOW, "release": RELEASE}
    return [marker for marker, table in tables.items() if any(_belongs(node_id, start) for start in table)]


def _belongs(node_id: str, start: str) -> bool:
    return node_id == start or node_id.startswith((f"{start}::", f"{start}["))
