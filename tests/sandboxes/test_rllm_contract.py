"""As much of the contract as a door to this very machine can keep: ours, and rLLM's local backend.

Left out: what names /testbed, what looks at all processes, and what removes files of the machine.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest
from contract import (  # noqa: F401  (the fixture and the tests)
    sandbox,
    test_a_closed_sandbox_is_gone,
    test_a_command_reports_its_exit_code_and_both_outputs,
    test_a_diff_ends_what_still_runs,
    test_a_diff_makes_a_fresh_sandbox_the_same,
    test_a_diff_of_too_much_is_an_os_error,
    test_a_missing_program_or_folder_is_the_command_s_failure,
    test_a_signal_is_a_negative_exit_code,
    test_a_task_whose_files_collide_or_do_not_fit_is_refused,
    test_a_task_with_a_path_that_leaves_its_workdir_is_refused,
    test_an_argv_is_not_read_by_a_shell,
    test_an_untouched_tree_has_an_empty_diff,
    test_output_and_names_need_not_be_text,
    test_output_is_cut_at_its_cap_and_the_rest_thrown_away,
    test_reading_what_is_no_file_is_file_not_found,
    test_stages_are_recorded_in_order,
    test_stdin_is_what_is_given_and_then_ends,
    test_the_diff_has_git_prefixes_and_full_hashes,
    test_the_environment_is_the_given_one_only,
    test_writing_where_the_agent_is_in_the_way_is_an_os_error,
)
from doors import LIMITS, HostDoor, Moved

from aem_swe.errors import ConfigError
from aem_swe.sandboxes.rllm import RllmSandboxes, rllm_backend

KINDS = ["host", pytest.param("local", marks=pytest.mark.rllm)]


@pytest.fixture(params=KINDS)
def sandboxes(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Moved]:
    try:
        create = rllm_backend("local") if request.param == "local" else lambda task: HostDoor()
    except ConfigError as error:
        pytest.skip(str(error))
    with RllmSandboxes(create, limits=LIMITS) as opened:
        yield Moved(opened, tmp_path)
