"""What of a patch reaches the tree: real git, a real folder, the real program."""

from pathlib import Path

import pytest
from folder_sandbox import FolderSandbox
from hypothesis import given
from hypothesis import strategies as st
from r2e_rows import changed, new_file, new_link

from aem_swe.errors import SandboxError
from aem_swe.tasks.patch_policy import PREPARE_AT, Patch, Prepared, excluded, prepare, programs
from aem_swe.types import Graded, Task

BASELINE = {
    "pkg/core.py": b"x = 1\n",
    "conftest.py": b"one = 1\n",
    "sub/conftest.py": b"two = 2\n",
    "crlf.txt": b"a\r\nb\r\n",
    ".gitattributes": b"* text=auto eol=lf\n*.txt text eol=crlf\n",
    "setup.cfg": b"[tool:pytest]\naddopts = -v\n",
    "tox.ini": b"[tox]\n",
    "pyproject.toml": b"[tool.black]\n[tool.pytest.ini_options]\naddopts = '-q'\n",
}


@pytest.fixture
def sandbox(tmp_path: Path) -> FolderSandbox:
    made = FolderSandbox(tmp_path / "testbed", programs())
    for path, content in BASELINE.items():
        made.write(path, content)
    return made


def task(sandbox: FolderSandbox) -> Task:
    return Task("t", (), workdir=str(sandbox.workdir))


def prepared(
    sandbox: FolderSandbox, *patches: bytes, files: dict[str, bytes] | None = None, clear: tuple[str, ...] = ()
) -> Prepared:
    made = [Patch(patch, tuple(excluded(["run_tests.sh"]))) for patch in patches]
    answer = prepare(task(sandbox), sandbox, made, files=files or {}, clear=clear, stem=".aem-x-")
    assert isinstance(answer, Prepared), answer
    return answer


def tree(sandbox: FolderSandbox) -> dict[str, bytes]:
    paths = [path for path in sandbox.workdir.rglob("*") if path.is_file() and not path.name.startswith(".aem-x-")]
    return {str(path.relative_to(sandbox.workdir)): path.read_bytes() for path in paths}


def test_configuration_is_copied_before_the_patch_in_pytests_order(sandbox: FolderSandbox) -> None:
    answer = prepared(sandbox, changed("setup.cfg", "[tool:pytest]\naddopts = -v\n", "[tool:pytest]\naddopts = -x\n"))
    contents = {name: (sandbox.workdir / name).read_bytes() for name in answer.configurations}
    assert list(contents.values()) == [BASELINE["pyproject.toml"], BASELINE["setup.cfg"], b"[pytest]\n"]
    assert [Path(name).suffix for name in answer.configurations] == [".toml", ".cfg", ".ini"]
    assert (sandbox.workdir / "setup.cfg").read_bytes() == b"[tool:pytest]\naddopts = -x\n"
    assert answer.names == tuple(sorted({path.split("/")[0] for path in BASELINE}))


DROPPED = """
conftest.py pkg/conftest.py sitecustomize.py pkg/usercustomize.so sitecustomize/__init__.py x.pth pkg/y.pth
pkg/core.pyc pkg/__pycache__/core.cpython-39.pyc __pycache__/a evil.dist-info/entry_points.txt evil.egg-link
deep/evil.egg-info/PKG-INFO .pytest_cache/v/x .venv/bin/python .venv/x r2e_tests/test_1.py r2e_tests/a/b run_tests.sh
"""
KEPT = """
pkg/new.py tests/test_new.py pytest.ini README a/conftest.py.txt my_conftest.py data/x.pth.txt json.py
pkg/run_tests.sh sub/.venv.txt src/r2e_tests/a.py
"""


def test_what_is_dropped_and_what_is_kept(sandbox: FolderSandbox) -> None:
    new = [path for path in (DROPPED + KEPT).split() if path != "conftest.py"]
    prepared(sandbox, b"".join(new_file(path, "new\n") for path in new))
    assert tree(sandbox).keys() - BASELINE.keys() == set(KEPT.split())
    assert {path: content for path, content in tree(sandbox).items() if path in BASELINE} == BASELINE


def test_a_patch_of_dropped_files_alone_applies(sandbox: FolderSandbox) -> None:
    prepared(sandbox, new_file("x/conftest.py", "new\n"))
    assert tree(sandbox) == BASELINE


def test_conftest_files_come_back_from_deletion_and_renaming(sandbox: FolderSandbox) -> None:
    gone = b"diff --git a/conftest.py b/conftest.py\ndeleted file mode 100644\n--- a/conftest.py\n+++ /dev/null\n"
    gone += b"@@ -1 +0,0 @@\n-one = 1\n"
    moved = b"diff --git a/sub/conftest.py b/sub/other.py\nsimilarity index 100%\n"
    moved += b"rename from sub/conftest.py\nrename to sub/other.py\n"
    prepared(sandbox, gone + moved)
    assert tree(sandbox) == {**BASELINE, "sub/other.py": b"two = 2\n"}


def test_bytes_stay_bytes_whatever_attributes_say(sandbox: FolderSandbox) -> None:
    patch = b"diff --git a/crlf.txt b/crlf.txt\n--- a/crlf.txt\n+++ b/crlf.txt\n@@ -1,2 +1,2 @@\n a\r\n-b\r\n+c\n"
    patch += b"diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+x\n"
    prepared(sandbox, patch)
    assert (tree(sandbox)["crlf.txt"], tree(sandbox)["new.txt"]) == (b"a\r\nc\n", b"x\n")


def test_only_new_links_out_of_the_tree_are_removed(sandbox: FolderSandbox) -> None:
    (sandbox.workdir / "old").symlink_to("/etc")
    links = {"out": "/etc", "up": "..", "in": "pkg", "self": ".", "dangling": "nowhere", "far": "pkg/../../x"}
    answer = prepared(sandbox, b"".join(new_link(path, target) for path, target in links.items()))
    assert sorted(answer.removed) == ["far", "out", "up"]
    assert {path.name for path in sandbox.workdir.iterdir() if path.is_symlink()} == {"old", "in", "self", "dangling"}


def test_a_link_that_leads_out_in_its_new_place_is_removed(sandbox: FolderSandbox) -> None:
    (sandbox.workdir / "sub/up").symlink_to("../pkg")
    moved = b"diff --git a/sub/up b/up\nsimilarity index 100%\nrename from sub/up\nrename to up\n"
    assert prepared(sandbox, moved).removed == ("up",)


def test_trusted_files_replace_whatever_is_in_their_place(sandbox: FolderSandbox) -> None:
    patch = new_link("link.py", "pkg/core.py") + new_file("folder/x", "1\n") + new_file("plain", "1\n")
    files = {"link.py": b"L", "folder": b"F", "plain/inside/file": b"P", "pkg/core.py": b"C"}
    prepared(sandbox, patch, files=files, clear=("sub", "nothing"))
    kept = {path: content for path, content in BASELINE.items() if not path.startswith("sub/")}
    assert tree(sandbox) == {**kept, **files}
    assert not (sandbox.workdir / "link.py").is_symlink()


def test_patches_apply_in_order_and_the_first_refusal_counts(sandbox: FolderSandbox) -> None:
    one, two = changed("pkg/core.py", "x = 1\n", "x = 2\n"), changed("pkg/core.py", "x = 2\n", "x = 3\n")
    prepared(sandbox, one, two, b"")
    assert tree(sandbox)["pkg/core.py"] == b"x = 3\n"
    answer = prepare(task(sandbox), sandbox, [Patch(one)], files={})
    assert isinstance(answer, Graded) and (answer.reward, answer.reason) == (0.0, "patch_does_not_apply")
    assert "pkg/core.py" in answer.output


def test_a_patch_is_applied_whole_or_not_at_all(sandbox: FolderSandbox) -> None:
    patch = changed("pkg/core.py", "x = 1\n", "x = 2\n") + changed("tox.ini", "other\n", "x\n")
    assert isinstance(prepare(task(sandbox), sandbox, [Patch(patch)], files={}), Graded)
    assert tree(sandbox) == BASELINE


@pytest.mark.parametrize("path", [".git/config", "../outside", "/etc/passwd", "pkg/.git/hooks/x"])
def test_no_patch_gets_out_of_the_tree_or_into_git(sandbox: FolderSandbox, path: str, tmp_path: Path) -> None:
    made = [Patch(new_file(path, "x\n"), tuple(excluded()))]
    answer = prepare(task(sandbox), sandbox, made, files={})
    assert isinstance(answer, Graded) or tree(sandbox) == BASELINE
    assert {entry.name for entry in tmp_path.iterdir()} == {"testbed"}


def test_a_tree_that_is_not_there_is_an_error_of_the_sandbox(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    sandbox = FolderSandbox(tmp_path / "here", programs())
    with pytest.raises(SandboxError, match=r"t: the tree could not be prepared for grading: .*FileNotFoundError"):
        prepare(Task("t", (), workdir=str(tmp_path / "gone")), sandbox, [], files={})
    assert sandbox.commands == [["python3", PREPARE_AT]]


def test_the_written_policy_names_everything_that_is_dropped() -> None:
    written = (Path(__file__).resolve().parents[2] / "docs/grading.md").read_text()
    names = {pattern.removesuffix("/*").removeprefix("*/") for pattern in excluded(["run_tests.sh"])}
    assert [name for name in sorted(names) if f"`{name}" not in written] == []


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1).filter(lambda path: "*" not in path))
def test_restored_names_are_patterns_of_themselves(path: str) -> None:
    pattern = excluded([path])[-1]
    plain = pattern.replace("\\\\", "\0").replace("\\", "").replace("\0", "\\")
    assert plain == path and pattern.count("[") == pattern.count("\\[") - pattern.count("\\\\[")
