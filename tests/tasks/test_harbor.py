"""Harbor's task folders: what is read from them, and how they are graded in real containers."""

import contextlib
import pickle
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException
from harbor_folders import DOCKERFILE, TEST, TOML, make_folder

from aem_swe.errors import ConfigError, SandboxError, TaskError
from aem_swe.sandboxes import Sandboxes, SandboxLimits
from aem_swe.sandboxes.docker import DockerSandboxes
from aem_swe.sandboxes.images import build_base
from aem_swe.tasks import _harbor_grader
from aem_swe.tasks.grading import Problem
from aem_swe.tasks.harbor import HarborGrader, build_image, grading_programs, read_harbor, read_settings, solve
from aem_swe.tasks.rows import BadRow
from aem_swe.types import Graded

# --- reading


def only(folder: Path) -> Problem | BadRow:
    (found,) = read_harbor(folder)
    return found


def test_a_folder_becomes_a_task_and_apart_from_it_a_grader(tmp_path: Path) -> None:
    problem = only(make_folder(tmp_path).parent)
    assert isinstance(problem, Problem)
    task = problem.task
    assert (task.id, task.text, task.workdir) == ("greet", "Make greet.sh say hello.", "/app")
    assert task.env == (("PLAIN", "a b"), ("OPTIONAL", "none"))
    assert task.image.startswith("aem-swe/harbor-greet:")
    grader = problem.grader
    assert isinstance(grader, HarborGrader)
    assert grader == HarborGrader(
        str(tmp_path / "greet"), (("deep/expected", b"you"), ("test.sh", TEST.encode())), 60.0, (("WANTED", "hello"),)
    )
    assert pickle.loads(pickle.dumps(problem)) == problem
    assert problem.gold == b""


def test_settings_carry_the_limits_that_a_task_asks_for(tmp_path: Path) -> None:
    settings = read_settings(make_folder(tmp_path))
    assert (settings.cpus, settings.memory_mb, settings.storage_mb) == (1.0, 2048.0, 10240.0)
    assert (settings.verifier_timeout_s, settings.agent_timeout_s, settings.build_timeout_s) == (60.0, 100.0, 300.0)
    bare = read_settings(make_folder(tmp_path, "bare", task_dot_toml=""))
    assert (bare.verifier_timeout_s, bare.agent_timeout_s, bare.memory_mb) == (600.0, None, None)


def test_an_image_that_is_named_is_taken_and_one_that_is_not_is_named_by_its_content(tmp_path: Path) -> None:
    named = TOML.replace("[environment]", '[environment]\ndocker_image = "some/image:1"\nworkdir = "/srv/x"')
    settings = read_settings(make_folder(tmp_path, "named", task_dot_toml=named, environment__Dockerfile=None))
    assert (settings.image, settings.built, settings.workdir) == ("some/image:1", False, "/srv/x")
    tags = {
        read_settings(folder).image
        for folder in (
            make_folder(tmp_path / "1", "a"),
            make_folder(tmp_path / "2", "a"),
            make_folder(tmp_path / "3", "a", **{"environment/greet.sh": "other"}),
            make_folder(tmp_path / "4", "a", environment__more="new"),
        )
    }
    assert len(tags) == 3
    (tmp_path / "2/a/environment/greet.sh").chmod(0o755)
    assert read_settings(tmp_path / "2/a").image not in tags
    (tmp_path / "2/a/tests/other").write_text("x")
    assert read_settings(tmp_path / "1/a").image in tags


@pytest.mark.parametrize(
    ("dockerfile", "workdir"),
    [
        ("FROM a\nWORKDIR /x\nworkdir sub/dir\n", "/x/sub/dir"),
        ('FROM a\nWORKDIR "/with space"\n', "/with space"),
        ("FROM a AS one\nWORKDIR /one\nFROM b\nWORKDIR /two/\n", "/two"),
        ("FROM a AS one\nWORKDIR /one\nFROM --platform=linux/amd64 one\nRUN true\n", "/one"),
        ("FROM a\nRUN echo \\\nWORKDIR /no\nWORKDIR /yes\n", "/yes"),
    ],
)
def test_the_working_folder_is_the_dockerfile_s(tmp_path: Path, dockerfile: str, workdir: str) -> None:
    assert read_settings(make_folder(tmp_path, environment__Dockerfile=dockerfile)).workdir == workdir


BAD: dict[str, tuple[dict[str, str | None], str]] = {
    "no toml": ({"task.toml": None}, "has no task.toml"),
    "broken toml": ({"task.toml": "a = ["}, "task.toml cannot be read: .*"),
    "no instruction": ({"instruction.md": None}, "instruction.md cannot be read: .*"),
    "empty instruction": ({"instruction.md": "# canary\n\n"}, "instruction.md is empty"),
    "no tests": ({"tests/test.sh": None}, "has no tests/test.sh"),
    "no image": ({"environment/Dockerfile": None}, "has neither environment/Dockerfile nor a docker_image in .*"),
    "no workdir": ({"environment/Dockerfile": "FROM a\n"}, "its working folder is 'unknown'; name one below / .*"),
    "workdir root": ({"environment/Dockerfile": "FROM a\nWORKDIR /\n"}, "its working folder is '/'; .*"),
    "workdir variable": ({"environment/Dockerfile": "FROM a\nWORKDIR $X\n"}, r"its working folder is '/\$X'; .*"),
    "compose": ({"environment/docker-compose.yaml": ""}, "asks for docker-compose.yaml: several containers, .*"),
    "steps": ({"task.toml": '[[steps]]\nname = "a"\n'}, r"asks for \[\[steps\]\]: several steps, .*"),
    "gpu": ({"task.toml": "[environment]\ngpus = 1\n"}, "asks for environment.gpus, .*"),
    "windows": ({"task.toml": '[environment]\nos = "Windows"\n'}, "asks for environment.os: .*"),
    "separate": ({"task.toml": '[verifier]\nenvironment_mode = "separate"\n'}, "asks for verifier.environment: .*"),
    "host variable": ({"task.toml": '[environment]\nenv = {A = "${B}"}\n'}, r"environment.env.A .* wants \$\{B\} .*"),
    "bad number": (
        {"task.toml": '[verifier]\ntimeout_sec = "x"\n'},
        "timeout_sec in task.toml is 'x' and should be .*",
    ),
    "no number": ({"task.toml": "[verifier]\ntimeout_sec = nan\n"}, "timeout_sec in task.toml is nan and should be .*"),
    "bad size": ({"task.toml": '[environment]\nmemory = "much"\n'}, "memory in task.toml is 'much' and should look .*"),
    "bad table": ({"task.toml": "environment = 1\n"}, r"\[environment\] in task.toml is no table"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_is_no_task_is_reported_with_its_reason(tmp_path: Path, name: str) -> None:
    files, reason = BAD[name]
    make_folder(tmp_path, "bad", **files)
    make_folder(tmp_path, "good")
    bad, good = read_harbor(tmp_path)
    assert isinstance(good, Problem)
    assert isinstance(bad, BadRow) and bad.id == "bad"
    assert re.fullmatch(reason, bad.reason), bad.reason


def test_a_test_file_that_leads_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    (folder / "tests" / "inside").symlink_to("deep/expected")
    assert isinstance(only(folder), Problem)
    (folder / "tests" / "outside").symlink_to("/etc/passwd")
    assert only(folder) == BadRow("greet", "tests/outside leads out of its folder")


def test_a_solution_that_is_a_patch_is_the_gold(tmp_path: Path) -> None:
    folder = make_folder(tmp_path, **{"solution/solve.sh": None, "solution/fix.patch": "diff --git a/a b/a\n"})
    problem = only(folder)
    assert isinstance(problem, Problem)
    assert problem.gold == b"diff --git a/a b/a\n"


def test_a_folder_without_any_task_is_the_user_s_mistake(tmp_path: Path) -> None:
    (tmp_path / ".git").mkdir()
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(ConfigError, match=r"holds no task; a task is a folder in it with a task.toml"):
            list(read_harbor(folder))


REWARDS: list[tuple[str, bytes, float | None]] = [
    ("reward.txt", b" 1\n", 1.0),
    ("reward.txt", b".5", 0.5),
    ("reward.txt", b"", None),
    ("reward.txt", b"yes", None),
    ("reward.txt", b"nan", None),
    ("reward.json", b'{"reward": 0.25, "other": 1}', 0.25),
    ("reward.json", b'{"rewards": {"a": 1, "b": 0}}', 0.5),
    ("reward.json", b'{"score": 1}', 1.0),
    ("reward.json", b"1", 1.0),
    ("reward.json", b'{"a": 1, "b": 1}', None),
    ("reward.json", b'{"reward": "1"}', None),
    ("reward.json", b'{"reward": Infinity}', None),
    ("reward.json", b'{"reward": 1' + b"0" * 400 + b"}", None),
    ("reward.json", b"{}", None),
    ("reward.json", b"[" * 100_000, None),
    ("reward.json", b"\xff", None),
]


@pytest.mark.parametrize(("path", "content", "value"), REWARDS)
def test_a_reward_is_a_finite_number(path: str, content: bytes, value: float | None) -> None:
    assert _harbor_grader._reward(path, content) == value


# --- grading, in containers

docker_only = pytest.mark.docker
Grade = Callable[..., Graded]


@pytest.fixture(scope="module")
def sandboxes() -> Iterator[Sandboxes]:
    try:
        with contextlib.closing(docker.from_env()) as client:
            build_base(client)
    except (DockerException, SandboxError) as error:
        pytest.skip(f"no container engine: {error}; start one (dockerd) to run these tests")
    with DockerSandboxes(limits=SandboxLimits(disk_mb=64), programs=grading_programs()) as opened:
        yield opened


@pytest.fixture(scope="module")
def client() -> Iterator[docker.DockerClient]:
    with contextlib.closing(docker.from_env()) as opened:
        yield opened


@pytest.fixture
def grade(sandboxes: Sandboxes, client: docker.DockerClient, tmp_path: Path) -> Grade:
    """grade(change=shell script of the agent, files of the folder) -> the verdict on its patch."""

    def call(change: str = "true", *, whole_patch: bool = False, limit: float = 60.0, **files: str | None) -> Graded:
        folder = make_folder(tmp_path, **files)
        build_image(client, folder)
        (problem,) = read_harbor(folder, whole_patch=whole_patch)
        assert isinstance(problem, Problem) and isinstance(problem.grader, HarborGrader)
        with sandboxes.open(problem.task) as sandbox:
            assert sandbox.run(change).exit_code == 0
            diff = sandbox.diff()
        with sandboxes.open(problem.task, purpose="grading") as fresh:
            return replace(problem.grader, timeout_s=limit).grade(problem.task, diff, fresh)

    return call


@docker_only
def test_gold_is_1_and_no_op_0(sandboxes: Sandboxes, client: docker.DockerClient, grade: Grade, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    tag = build_image(client, folder)
    assert build_image(client, folder) == tag  # at once
    problem = only(folder)
    assert isinstance(problem, Problem) and problem.task.image == tag
    with sandboxes.open(problem.task) as sandbox:
        gold = solve(folder, sandbox)
    assert b"+echo you hello\n" in gold and b"+noted\n" in gold
    with sandboxes.open(problem.task, purpose="grading") as fresh:
        graded = problem.grader.grade(problem.task, gold, fresh)
    assert (graded.reward, graded.reason) == (1.0, "tests_passed")
    nothing = grade()
    assert (nothing.reward, nothing.reason) == (0.0, "tests_failed")
    assert "reward 0.5" in nothing.output


@docker_only
def test_neither_tests_nor_solution_are_in_the_agent_s_sandbox(
    sandboxes: Sandboxes, client: docker.DockerClient, tmp_path: Path
) -> None:
    folder = make_folder(tmp_path)
    build_image(client, folder)
    problem = only(folder)
    assert isinstance(problem, Problem)
    with sandboxes.open(problem.task) as sandbox:
        assert sandbox.run("pwd; echo $PLAIN; ls /tests /solution /logs 2>/dev/null").stdout == b"/app\na b\n"


@docker_only
def test_a_patch_that_does_not_apply_is_0(sandboxes: Sandboxes, client: docker.DockerClient, tmp_path: Path) -> None:
    folder = make_folder(tmp_path)
    build_image(client, folder)
    problem = only(folder)
    assert isinstance(problem, Problem)
    with sandboxes.open(problem.task, purpose="grading") as fresh:
        graded = problem.grader.grade(
            problem.task, b"diff --git a/no b/no\n--- a/no\n+++ b/no\n@@ -1 +1 @@\n-a\n+b\n", fresh
        )
    assert (graded.reward, graded.reason) == (0.0, "patch_does_not_apply")


FIX = "echo echo you hello > greet.sh"
CODE = "#!/bin/bash\n[ \"$(bash greet.sh)\" = 'you hello' ]\n"
FORGERIES = [
    pytest.param(
        "echo 'echo {\\\"reward\\\": 1} > /logs/verifier/reward.json' > greet.sh", TEST, "forged", id="other file"
    ),
    pytest.param(
        "echo 'mkdir -p /tmp/rllm; echo 1 > /tmp/rllm/reward.json' > greet.sh", TEST, "forged", id="rllm's file"
    ),
    pytest.param(
        "echo 'kill -9 $PPID' > greet.sh", "#!/bin/bash\nbash greet.sh\nexit 1\n", "tests_failed", id="killed"
    ),
    pytest.param("echo 'pkill -9 -f /tests/test.sh' > greet.sh", TEST, "tests_failed", id="killed before its reward"),
    pytest.param("mkdir tests; echo 'echo 1' > tests/test.sh", TEST, "tests_failed", id="tests of its own"),
    pytest.param("rm conftest.py; echo x > sitecustomize.py", TEST, "tests_failed", id="nothing that counts"),
]


@docker_only
@pytest.mark.parametrize(("change", "test", "reason"), FORGERIES)
def test_a_forgery_is_0(grade: Grade, change: str, test: str, reason: str) -> None:
    graded = grade(change, **{"tests/test.sh": test})
    assert (graded.reward, graded.reason) == (0.0, reason), graded.output


@docker_only
def test_without_a_reward_file_the_exit_code_counts(grade: Grade) -> None:
    assert grade(FIX, **{"tests/test.sh": CODE}).reward == 1.0
    assert grade(**{"tests/test.sh": CODE}).reason == "tests_failed"
    forgotten = TEST.replace("echo 1 >", "exit 0 #")
    assert grade(FIX, **{"tests/test.sh": forgotten}).reason == "forged"


@docker_only
def test_json_rewards_of_harbor_and_of_rllm_are_read(grade: Grade) -> None:
    for place in ("/logs/verifier/reward.json", "/tmp/rllm/reward.json"):
        script = f"#!/bin/sh\nbash greet.sh | grep -q hello && echo '{{\"reward\": 1.0}}' > {place} || exit 1\n"
        assert grade(FIX, **{"tests/test.sh": script}).reward == 1.0
        assert grade(**{"tests/test.sh": script}).reward == 0.0


@docker_only
def test_a_patch_is_kept_whole_only_on_demand(grade: Grade) -> None:
    script = "#!/bin/sh\ngrep -q mine conftest.py && echo 1 > /logs/verifier/reward.txt\n"
    assert grade("echo mine > conftest.py", **{"tests/test.sh": script}).reward == 0.0
    assert grade("echo mine > conftest.py", whole_patch=True, **{"tests/test.sh": script}).reward == 1.0


@docker_only
def test_tests_that_do_not_end_reach_their_limit(grade: Grade) -> None:
    graded = grade("echo 'sleep 100' > greet.sh", limit=1.0)
    assert (graded.reward, graded.reason) == (0.0, "tests_timeout")


@docker_only
def test_a_broken_solution_or_dockerfile_is_a_task_error_with_the_task_s_name(
    sandboxes: Sandboxes, client: docker.DockerClient, tmp_path: Path
) -> None:
    idle = make_folder(tmp_path, "idle", **{"solution/solve.sh": "#!/bin/sh\necho what now >&2; exit 3\n"})
    build_image(client, idle)
    problem = only(idle)
    assert isinstance(problem, Problem)
    with sandboxes.open(problem.task) as sandbox:
        with pytest.raises(TaskError, match=r"idle: solution/solve.sh changed nothing \(exit code 3\): what now"):
            solve(idle, sandbox)
    broken = make_folder(tmp_path, "broken", **{"environment/Dockerfile": DOCKERFILE + "COPY nowhere /x\n"})
    with pytest.raises(TaskError, match=r"broken: its image cannot be built: .*nowhere"):
        build_image(client, broken)
