"""The set-up script on real repositories, with real git: history gone, tree untouched, tests sealed."""

import os
import re
import resource as resources
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from aem_swe.resources import resource
from aem_swe.tasks.hidden_tests import SEALED_AT, seal_key, unseal

SCRIPT = resource("sandboxes", "r2e_setup.sh").read_text()
KEY = seal_key("row")
ENVIRONMENT = {
    "PATH": os.environ["PATH"],
    "HOME": "/nonexistent",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
    **{f"GIT_{role}_{what}": "x@y" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")},
}
HIDDEN = ["r2e_tests", "run_tests.sh", "expected_test_output.json", "execution_result.json"]
HIDDEN += ["parsed_commit.json", "syn_issue.json"]


@dataclass
class Image:
    """What stands for an image's file system."""

    root: Path

    @property
    def repo(self) -> Path:
        return self.root / "testbed"

    def write(self, path: str, content: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
        return file

    def git(self, *arguments: str, cwd: str = ".") -> str:
        command = ["git", "-c", "protocol.file.allow=always", *arguments]
        done = subprocess.run(command, cwd=self.repo / cwd, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    def commit(self, message: str) -> str:
        self.git("add", "-A")
        self.git("commit", "-q", "-m", message)
        return self.git("rev-parse", "HEAD")

    def set_up(self, *, r2e: bool = True, key: str = KEY, check: bool = True) -> "subprocess.CompletedProcess[str]":
        settings = f"AEM_R2E={int(r2e) or ''}\nAEM_SEAL={key}\n"
        done = subprocess.run(
            ["bash", "-c", settings + SCRIPT],
            cwd=self.repo, env={**ENVIRONMENT, "AEM_ROOT": str(self.root)}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if check:
            assert (done.returncode, done.stderr) == (0, "")
        return done

    def tree(self) -> dict[str, bytes]:
        """Every file of the repository but git's own and caches."""
        files = [path for path in self.repo.rglob("*") if path.is_file() or path.is_symlink()]
        kept = [path for path in files if path.relative_to(self.repo).parts[0] != ".git"]
        return {
            str(path.relative_to(self.repo)): os.readlink(path).encode() if path.is_symlink() else path.read_bytes()
            for path in kept
        }


@pytest.fixture
def image(tmp_path: Path) -> Image:
    """A repository before a fix that its history holds, dirty, with all that R2E-Gym leaves in an image."""
    made = Image(tmp_path)
    made.repo.mkdir()
    made.git("init", "-q", "-b", "main")
    made.write("testbed/.gitignore", "*.so\nbuild/\n")
    made.write("testbed/pkg/core.py", "BUG = 1\n")
    made.write("testbed/pkg/gone.py", "x = 1\n")
    made.write("testbed/pkg/tool.sh", "true\n").chmod(0o755)
    (made.repo / "link").symlink_to("pkg/core.py")
    made.commit("before")
    made.write("testbed/pkg/core.py", "FIXED = 1\n")
    fix = made.commit("the fix")
    made.git("tag", "v1")
    made.git("remote", "add", "origin", "https://example.org/x.git")
    made.git("update-ref", "refs/remotes/origin/main", fix)
    made.git("pack-refs", "--all")
    made.git("checkout", "-q", "--detach", "HEAD~1")
    made.write("testbed/pkg/core.py", "STASHED = 1\n")
    made.git("stash")
    made.write("testbed/pkg/core.py", "BUG = 1\nDIRTY = 1\n")
    made.write("testbed/untracked.py", "y = 1\n")
    made.write("testbed/pkg/fast.so", "binary")
    (made.repo / "pkg/gone.py").unlink()
    made.write("testbed/.venv/lib/python3/site-packages/dep/__pycache__/dep.pyc", "kept")
    made.write("testbed/.venv/bin/pytest", "#!/bin/sh\n").chmod(0o755)
    (made.repo / ".venv/bin/python").symlink_to(sys.executable)
    made.write("testbed/pkg/__pycache__/core.cpython-39.pyc", "stale")
    made.write("testbed/pkg/sourceless.pyc", "stale")
    made.write("testbed/.pytest_cache/v/cache/lastfailed", "{}")
    for name in HIDDEN[1:]:
        made.write(f"testbed/{name}", f"secret {name}")
    made.write("testbed/modified_files.json", "[]")
    made.write("testbed/modified_entities.json", "[]")
    made.write("r2e_tests/test_1.py", "def test_secret(): pass\n")
    made.write("r2e_tests/fixtures/data.bin", "\0\1")
    made.write("r2e_tests/__pycache__/test_1.pyc", "stale")
    made.write("root/.local/bin/uv", "#!/bin/sh\n")
    return made


def test_history_is_one_commit_of_the_dirty_tree(image: Image) -> None:
    image.set_up()
    assert image.git("log", "--all", "--format=%s").splitlines() == ["baseline"]
    assert image.git("status", "--porcelain") == ""
    assert image.git("show", "HEAD:pkg/core.py") == "BUG = 1\nDIRTY = 1"
    listed = set(image.git("ls-files").splitlines())
    assert listed == {".gitignore", "pkg/core.py", "pkg/tool.sh", "link", "untracked.py"}
    assert [row.split()[0] for row in image.git("ls-files", "-s", "pkg/tool.sh", "link").splitlines()] == [
        "120000",
        "100755",
    ]


def test_no_other_object_ref_or_log_is_left(image: Image) -> None:
    image.set_up()
    objects = image.git("cat-file", "--batch-all-objects", "--batch-check").splitlines()
    reachable = image.git("rev-list", "--objects", "--all").splitlines()
    assert {row.split()[0] for row in objects} == {row.split()[0] for row in reachable}
    assert image.git("fsck", "--full", "--unreachable", "--no-reflogs") == ""
    assert image.git("for-each-ref", "--format=%(refname)") == "refs/heads/main"
    assert image.git("reflog") == "" and image.git("stash", "list") == "" and image.git("remote") == ""
    present = {path.name for path in (image.repo / ".git").rglob("*")}
    assert not present & {"ORIG_HEAD", "FETCH_HEAD", "packed-refs", "logs", "hooks", "description"}
    everything = b"".join(path.read_bytes() for path in (image.repo / ".git").rglob("*") if path.is_file())
    assert b"the fix" not in everything and b"example.org" not in everything


def test_files_that_the_agent_works_with_stay_as_they_are(image: Image) -> None:
    before = image.tree()
    image.set_up()
    gone = {
        name for name in before if name in HIDDEN or "pyc" in name or name.startswith((".pytest_cache", "modified_"))
    }
    gone -= {".venv/lib/python3/site-packages/dep/__pycache__/dep.pyc"}
    assert image.tree() == {name: content for name, content in before.items() if name not in gone}
    assert gone >= {"pkg/__pycache__/core.cpython-39.pyc", "pkg/sourceless.pyc", "run_tests.sh", "syn_issue.json"}


def test_hidden_tests_are_gone_and_only_the_key_opens_what_is_kept(image: Image) -> None:
    image.set_up()
    for folder in (image.root, image.repo, image.root / "root"):
        assert not [name for name in HIDDEN if (folder / name).exists()]
    assert [path.name for path in (image.root / "var/lib/aem-swe").iterdir()] == ["r2e_tests.sealed"]
    sealed = (image.root / SEALED_AT.lstrip("/")).read_bytes()
    assert b"secret" not in sealed and b"test_1" not in sealed
    assert unseal(sealed, KEY) == {
        "r2e_tests/test_1.py": b"def test_secret(): pass\n",
        "r2e_tests/fixtures/data.bin": b"\0\1",
        "run_tests.sh": b"secret run_tests.sh",
    }


def test_tests_inside_the_repository_are_sealed_too(image: Image) -> None:
    (image.root / "r2e_tests").rename(image.repo / "r2e_tests")
    image.set_up()
    assert "r2e_tests/test_1.py" in unseal((image.root / SEALED_AT.lstrip("/")).read_bytes(), KEY)
    assert not (image.repo / "r2e_tests").exists() and "r2e_tests" not in image.git("ls-files")


def test_the_environment_is_where_the_agents_of_r2e_gym_find_it(image: Image) -> None:
    image.set_up()
    assert os.readlink(image.root / "root/.venv") == str(image.repo / ".venv")
    links = {path.name: os.readlink(path) for path in (image.root / "root/.local/bin").iterdir() if path.is_symlink()}
    assert links == {
        name: str(image.repo / ".venv/bin" / target)
        for name, target in {"python": "python", "python3": "python", "pytest": "pytest"}.items()
    }
    assert (image.root / "root/.local/bin/uv").is_file()


def test_a_second_run_changes_nothing(image: Image) -> None:
    image.set_up()
    head, tree = image.git("rev-parse", "HEAD"), image.tree()
    sealed = (image.root / SEALED_AT.lstrip("/")).read_bytes()
    image.set_up()
    assert (image.git("rev-parse", "HEAD"), image.tree()) == (head, tree)
    assert (image.root / SEALED_AT.lstrip("/")).read_bytes() == sealed


def test_submodules_and_nested_repositories_become_ordinary_files(image: Image, tmp_path: Path) -> None:
    other = Image(tmp_path / "other")
    other.repo.mkdir(parents=True)
    other.git("init", "-q", "-b", "main")
    other.write("testbed/inner.py", "secret history")
    other.commit("inner")
    image.git("submodule", "add", "-q", str(other.repo), "vendored")
    image.git("commit", "-q", "-m", "submodule")
    image.write("testbed/sub/deep/.git/config", "[core]\n")
    image.write("testbed/sub/deep/file.py", "z = 1\n")
    image.set_up()
    assert "160000" not in image.git("ls-files", "-s")
    assert {"vendored/inner.py", "sub/deep/file.py", ".gitmodules"} <= set(image.git("ls-files").splitlines())
    assert [path for path in image.repo.rglob(".git") if path != image.repo / ".git"] == []
    assert not (image.repo / ".git/modules").exists()


def test_a_swe_bench_image_loses_its_history_and_nothing_else(image: Image) -> None:
    before = image.tree()
    image.set_up(r2e=False, key="")
    assert image.git("log", "--all", "--format=%s") == "baseline"
    assert (image.root / "r2e_tests/test_1.py").exists() and (image.repo / "run_tests.sh").exists()
    assert not (image.root / "root/.venv").exists()
    assert list((image.root / "var/lib/aem-swe").iterdir()) == []
    lost = before.keys() - image.tree().keys()
    assert all("pyc" in name or name.startswith(".pytest_cache") for name in lost)


def test_a_folder_without_a_repository_gets_one(tmp_path: Path) -> None:
    image = Image(tmp_path)
    image.write("testbed/a b/ü.py", "x\n")
    image.set_up()
    assert image.git("-c", "core.quotePath=false", "ls-files") == "a b/ü.py"
    assert image.git("log", "--all", "--format=%s") == "baseline"


def spoil_folder(image: Image) -> str:
    image.repo.rename(image.root / "elsewhere")
    image.repo.parent.joinpath("testbed").mkdir()
    (image.repo / ".git").write_text(f"gitdir: {image.root}/elsewhere/.git\n")
    return "the history of .* is kept elsewhere"


def spoil_alternates(image: Image) -> str:
    image.write("testbed/.git/objects/info/alternates", "/somewhere\n")
    return "is shared with /somewhere"


def spoil_index(image: Image) -> str:
    (image.repo / ".git/index").write_bytes(b"broken")
    return "index"


@pytest.mark.parametrize("spoil", [spoil_folder, spoil_alternates, spoil_index])
def test_what_cannot_be_squashed_fails_and_says_so(image: Image, spoil: Callable[[Image], str]) -> None:
    said = spoil(image)
    done = image.set_up(check=False)
    assert done.returncode != 0
    assert re.search(said, done.stderr)


def test_thousands_of_files_take_seconds_of_processor_time(image: Image) -> None:
    for number in range(4000):
        path = image.repo / f"many/{number % 50}/{number}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"x = {number}\n" * 20)
    image.git("add", "-A")
    image.git("commit", "-q", "-m", "many")
    before = resources.getrusage(resources.RUSAGE_CHILDREN)
    image.set_up()
    after = resources.getrusage(resources.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 5.0
