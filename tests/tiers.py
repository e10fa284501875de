"""Which tests run when: ``scripts/dev.py test --fast``, ``test``, or only ``release-check``. ``conftest`` marks them.

Every test is of one tier:

* ``fast``: of the places in ``FAST``, less what is ``slow``; what needs no server, no training and no browser
* ``whole``: what ``test`` and CI run besides
* ``timed``: holds a time; ``test`` runs it alone, after the others
* ``release``: only ``release-check`` runs it; it repeats on more material what a test of the other tiers holds

Decision: one table instead of a marker in every file, so that a person sees at a glance what CI leaves out, and why.
"""

from __future__ import annotations

import re
from collections.abc import Container

TIERS = ("fast", "whole", "timed", "release")

# Folders and files of the fast tier.
FAST = (
    "tests/active",
    "tests/api/test_landmark_collection.py",
    "tests/architecture",
    "tests/cli/test_import_accounts.py",
    "tests/cli/test_import_layouts.py",
    "tests/cohort/test_manifest.py",
    "tests/data",
    "tests/inference",
    "tests/io",
    "tests/measurements",
    "tests/networks",
    "tests/report",
    "tests/server/test_guard.py",
    "tests/server/test_jobs.py",
    "tests/slicer/test_library.py",
    "tests/store",
    "tests/test_configuration.py",
    "tests/test_geometry.py",
    "tests/test_landmarks.py",
    "tests/test_metrics.py",
    "tests/test_paired_comparison.py",
    "tests/test_tasks.py",
    "tests/test_tiers.py",
    "tests/training/test_inflation.py",
    "tests/training/test_losses.py",
    "tests/training/test_votes_loss.py",
)

# Marked ``slow`` beside those that say so themselves: start of a test's id, and why.
SLOW = {
    "tests/active/test_annotator.py": "networks on many cases",
    "tests/active/test_campaign.py": "trains",
    "tests/active/test_unlabelled_pool.py": "trains",
    "tests/active/test_strategies.py::test_every_choice_is_*": "many rounds of every strategy",
    "tests/architecture/test_loaded_modules.py::test_a_model_trains_*": "trains",
    "tests/architecture/test_loaded_modules.py::test_the_training_path_imports_*": "starts a program for every module",
    "tests/architecture/test_loaded_modules.py::test_importing_really_loads_no_more_than_that": "starts programs",
    "tests/data/test_augment.py::*3]": "volumes; the same tests run on pictures",
    "tests/data/test_mean_shape.py::test_a_third_of_wild_detections_*": "hundreds of draws",
    "tests/data/test_synthetic.py": "hundreds of drawings",
    "tests/inference/test_export.py": "runs MONAI and ONNX Runtime",
    "tests/inference/test_localizer.py::test_a_volume_much_larger_than_in_training_*": "a large volume",
    "tests/inference/test_localizer.py::test_it_stops_looking_after_all_orientations": "looks from all sides",
    "tests/inference/test_localizer.py::test_a_case_that_does_not_look_like_the_mean_shape_*": "looks from all sides",
    "tests/inference/test_localizer.py::test_the_models_own_numbers_say_*": "networks on many cases",
    "tests/inference/test_memory.py": "trains",
    "tests/inference/test_model_record.py::test_a_record_of_version_1_*": "a network in full",
    "tests/inference/test_model_record.py::test_a_record_that_describes_far_larger_*": "starts a program",
    "tests/inference/test_orientations.py": "looks from all sides",
    "tests/inference/test_shape_fit.py::test_w*": "hundreds of draws",
    "tests/inference/test_shape_prior.py::test_it_grows_better_with_cases": "hundreds of draws",
    "tests/inference/test_regions.py::test_regions_hold_what_they_promise_a_landmark_and_a_case": "hundreds of draws",
    "tests/io/test_images.py::test_bombs_*": "gigabytes that must not be read",
    "tests/io/test_image_memory.py": "starts a program for every size",
    "tests/io/test_surface_volumes.py": "volumes of surfaces",
    "tests/io/test_surfaces.py": "volumes of surfaces",
    "tests/networks/test_default.py": "networks in full, forwards and backwards",
    "tests/networks/test_global_local.py": "networks in full",
    "tests/networks/test_heatmaps.py::*3]": "volumes; the same tests run on pictures",
    "tests/networks/test_scn_presets.py": "networks as large as published",
    "tests/networks/test_scn_values.py": "networks as large as published",
    "tests/report/test_report.py": "charts and pictures",
    "tests/store/test_made_before.py::test_the_model_answers_the_same*": "a network in full",
    "tests/store/test_many_writers.py": "many processes",
    "tests/store/test_postgresql.py": "a PostgreSQL server",
    "tests/store/test_races.py": "many processes",
    "tests/store/test_revisions.py": "every kind of store",
    "tests/store/test_sqlite.py::test_whatever_byte_of_the_file_changes_it_is_found_or_nothing_reads_otherwise": "every byte",
    "tests/store/test_study.py::test_ten_thousand_images_are_listed_quickly": "ten thousand files",
    "tests/store/test_tampering.py": "every kind of store",
    "tests/store/test_study_task.py::test_another_task_is_refused_*": "every kind of store",
    "tests/training/test_losses.py::test_minimizing_*": "trains",
    "tests/store/*[*postgresql*]": "a PostgreSQL server",
}

# Marked ``release``. ``*`` stands for anything: ``*[hands]`` are all tests with that parameter.
_RELEASE_BY_FILE = {
    "tests/test_tiers.py": {
        "test_release_check_collects_what_the_table_names_and_every_test_is_run_by_one_command": "slow: it looks at all",
    },
    "tests/cohort/test_ray.py": {"": "a Ray cluster of its own, a minute"},
    "tests/cohort/test_slurm_cluster.py": {"": "a cluster of its own, minutes; tests/cohort/test_slurm.py has the script"},
    "tests/api/test_import.py": {
        "test_a_script_that_uses_it_is_checked_by_its_types": "a type check of the whole package, as the next",
        "test_the_public_interface_is_fully_typed": "a type check of the whole package; tests/architecture has another",
    },
    "tests/server/test_responsive.py": {
        "test_info_is_quick_meanwhile[inference]": "as with a training beside it, which is harder",
    },
    "tests/slicer/test_surface_files.py": {"": "volumes of surfaces, a minute; tests/io/test_surfaces.py has formats and frames"},
    "tests/test_readme_run.py": {"": "README's block with its trainings, ten minutes; tests/docs parses its commands"},
    "tests/api/test_python_docs.py": {
        "test_the_notebook_runs_and_its_model_finds_landmarks": "a training through the Python API, minutes on two cores",
    },
    "tests/test_gpu_experiment.py": {
        "test_a_killed_run_goes_on_where_it_was_and_the_cpu_agrees_with_itself": "an experiment's program, five minutes",
        "test_without_arrays_it_says_how_to_make_them": "an experiment's program",
        "test_without_time_it_says_call_again": "an experiment's program",
    },
    "tests/server/test_stock_client.py": {
        "test_the_other_method_is_trained_and_answers_beside_it": "a training, as of the first method",
        "*[hands]": "as on the phantoms; tests/slicer has a round with a server on these radiographs",
    },
    "tests/inference/test_export.py": {
        "test_monai_verifies_the_metadata[votes-3D]": "as with absent landmarks",
        "test_monai_verifies_the_networks_input_and_output[votes-3D]": "as with absent landmarks",
        "test_monai_runs_the_bundle_and_finds_what_the_localizer_finds[votes-3D]": "as with absent landmarks",
        "test_monai_verifies_the_metadata[scn-2D]": "as with absent landmarks",
        "test_monai_runs_the_bundle_and_finds_what_the_localizer_finds[scn-2D]": "as with absent landmarks",
        "test_monai_verifies_the_networks_input_and_output[scn-2D]": "as with absent landmarks",
    },
    "tests/cli/test_mouse.py": {
        "test_predictions_lie_in_the_volume_and_do_not_depend_on_how_it_is_stored": "as in tests/property",
    },
    "tests/slicer/test_local_server.py": {
        "test_a_whole_installation_from_a_copy_of_the_repository": "downloads half a gigabyte; the other tests install less",
    },
    "tests/training/test_fit_presets.py": {
        "test_every_preset_trains_predicts_and_is_read_back[scn:payer2016-2D]": "as the presets of our own",
        "test_every_preset_trains_predicts_and_is_read_back[scn:payer2019-2D]": "as the presets of our own",
        "test_every_preset_trains_predicts_and_is_read_back[scn:payer2019-3D]": "as the presets of our own",
        "test_every_preset_trains_predicts_and_is_read_back[global_local:noothout2020-3D]": "as in 2D",
        "test_a_thin_volume_is_no_problem_for_a_preset[scn:payer2019]": "as of the presets of our own",
        "test_a_thin_volume_is_no_problem_for_a_preset[global_local:noothout2020]": "as of the presets of our own",
    },
    "tests/io/test_surfaces.py": {"test_a_study_keeps_a_surface_as_a_volume_that_simpleitk_reads": "volumes at full size"},
    "tests/slicer/test_panel_measurements.py": {
        "test_while_the_server_is_away_the_last_values_are_grey_and_it_is_asked_again": "it waits for time limits",
        "test_after_predicting_values_and_intervals_are_the_librarys": "as while a point is dragged",
    },
    "tests/slicer/test_day.py": {
        "test_a_day_with_mishaps": "a minute for each seed; the other tests of tests/slicer have every mishap by itself",
    },
    "tests/slicer/test_end_to_end.py": {"test_a_round_on_real_images[mouse_skull-5]": "as on the hands"},
    "tests/training/test_processes.py": {
        "test_two_processes_train_what_one_does[scn/fine/2]": "as for the coarse network",
        "test_two_processes_train_what_one_does[global_local/coarse/2]": "as for the other method",
        "test_two_processes_train_what_one_does[scn/coarse/3]": "as in 2D",
        "test_two_processes_train_what_one_does[scn/fine/3]": "as in 2D",
        "test_in_single_precision_the_first_step_is_the_same": "as in double precision, which shows more",
        "test_a_batch_in_parts_gives_the_same_as_at_once": "as for two processes, which take a part each",
    },
    "tests/cli/test_train_together.py": {
        "*[program1]": "started by torchrun instead of --devices",
        "test_a_killed_process_ends_all_with_one_line_and_the_training_goes_on": "as in tests/training/test_processes.py",
        "test_stopped_in_order_all_is_kept[kill-2]": "as by Ctrl-C",
        "test_stopped_in_order_all_is_kept[kill-15]": "as by Ctrl-C",
        "test_stopped_in_order_all_is_kept[killpg-15]": "as by Ctrl-C",
        "test_where_who_started_them_is_killed_they_stop_and_keep_all": "as by Ctrl-C",
        "test_they_share_images_without_labels_and_trainings_that_leave_a_case_out": "six hundred steps",
        "test_more_parts_than_images_in_a_batch_are_no_fault": "as in tests/training/test_processes.py",
    },
    "tests/server/test_training_process.py": {
        "test_a_process_that_is_busy_with_something_else_*[study]": "as where the server is lost",
    },
    "tests/server/test_training_devices.py": {
        "": "trainings by two processes, minutes; tests/training/test_processes.py is quicker"
    },
    "tests/cli/test_surface_folders.py": {
        "test_a_report_says_that_the_unit_of_its_pictures_is_wrong": "as without a report",
        "test_half_a_file_on_which_vtk_breaks_off_takes_no_other_with_it[.ply]": "as of another format",
    },
    "tests/cli/test_demo.py": {
        "test_a_half_whose_server_dies_leaves_the_other_half_and_its_report": "the demo a second time",
    },
    "tests/server/test_running.py": {
        "test_a_setting_that_is_wrong_is_one_line_and_code_2_for_the_other_entrance[number]": "as for another setting",
        "test_a_setting_that_is_wrong_is_one_line_and_code_2_for_the_other_entrance[truth]": "as for another setting",
        "test_a_setting_that_is_wrong_is_one_line_and_code_2_for_the_other_entrance[model]": "as for another setting",
        "test_a_signal_ends_it_within_ten_seconds_with_fifty_inferences_and_a_training_under_way[serve]": "as by monailabel",
    },
    "tests/store/test_many_writers.py": {
        "test_eight_processes_lose_nothing_and_the_file_is_the_newest[postgresql]": "as on SQLite",
        "test_eight_threads_lose_nothing_and_the_file_is_the_newest[postgresql]": "as on SQLite",
    },
    "tests/training/test_fit.py": {
        "test_unlabelled_images_teach_a_second_round_on_any_processor[True]": "as in the other arithmetic",
    },
}
RELEASE = {
    f"{file}::{test}" if test else file: reason for file, tests in _RELEASE_BY_FILE.items() for test, reason in tests.items()
}


def tier_of(markers: Container[str]) -> str:
    """The one tier of a test with these markers."""
    return next((tier for tier in ("release", "timed", "fast") if tier in markers), "whole")


def markers_of(node_id: str, own: Container[str] = ()) -> list[str]:
    """``slow``, ``release`` and ``fast``, as far as a test that has its ``own`` markers has them too."""
    tables = {"slow": SLOW, "release": RELEASE}
    found = [marker for marker, table in tables.items() if any(belongs(node_id, place) for place in table)]
    if not found and not any(m in own for m in ("slow", "timed", "release")) and any(belongs(node_id, p) for p in FAST):
        found.append("fast")
    return found


def belongs(node_id: str, place: str) -> bool:
    """Whether a test is of a folder, a file or a function, has this very id, or one that agrees where ``*`` is anything."""
    if "*" in place:
        return re.fullmatch(".*".join(map(re.escape, place.split("*"))), node_id, re.DOTALL) is not None
    return node_id == place or node_id.startswith((f"{place}/", f"{place}::", f"{place}["))
