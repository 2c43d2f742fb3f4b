"""The offline images: what they are made of, and on an engine that what is in them works."""

import contextlib
import io
import marshal
import os
import re
import secrets
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import docker
import pytest
from docker.errors import DockerException

from aem_swe.errors import SandboxUnavailable, TaskError
from aem_swe.sandboxes import _image_host, _image_python
from aem_swe.sandboxes._image_layer import Layer
from aem_swe.sandboxes.images import (
    BASE_TAG,
    Client,
    Project,
    apply_patch,
    build_base,
    build_r2e_image,
    make_history,
    r2e_tag,
    run_once,
)

TESTS = b"""import sums

def test_two():
    assert sums.add(1, 2) == 3

def test_none():
    assert sums.add() == 0
"""
PROJECT = Project(
    name="sums",
    fixed=(("LICENSE", b"none\n"), ("sums.py", b"def add(*values):\n    return sum(values)\n")),
    buggy=(("LICENSE", b"none\n"), ("sums.py", b"def add(*values):\n    return len(values)\n")),
    tests=(("test_1.py", TESTS),),
    fix="Add the values",
    programs=(("/usr/local/bin/hello", b"#!/bin/sh\necho hello\n"),),
)


def saved(layer: Layer) -> bytes:
    with io.BytesIO() as file:
        layer.save(file)
        return file.getvalue()


def members(layer: Layer) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(saved(layer))) as tar:
        return {member.name: member for member in tar}


def test_equal_layers_make_equal_tars_whatever_the_order() -> None:
    one, two = Layer(), Layer()
    one.write("a/b", b"1")
    one.folder("tmp", 0o1777)
    two.folder("tmp", 0o1777)
    two.write("a/b", b"1")
    assert saved(one) == saved(two)
    assert one.digest() == two.digest() != one.digest("more")


def test_everything_belongs_to_root_and_folders_come_first() -> None:
    layer = Layer()
    layer.write("a/b/c", b"1", 0o755)
    found = members(layer)
    assert list(found) == ["a", "a/b", "a/b/c"]
    assert {(m.uid, m.gid, m.uname) for m in found.values()} == {(0, 0, "root")}
    assert found["a/b/c"].mode == 0o755


def test_libraries_of_the_root_are_those_of_usr(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    layer = Layer()
    layer.copy(tmp_path / "x", "/lib64/x")
    layer.links_into_usr()
    found = members(layer)
    assert "usr/lib64/x" in found
    assert (found["lib64"].issym(), found["lib64"].linkname) == (True, "usr/lib64")


def test_hard_links_stay_one_file(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1" * 1000)
    os.link(tmp_path / "x", tmp_path / "y")
    layer = Layer()
    layer.copy(tmp_path / "x", "one")
    layer.copy(tmp_path / "y", "two")
    assert (members(layer)["two"].islnk(), members(layer)["two"].linkname) == (True, "one")


def test_a_changed_file_changes_the_digest(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"1")
    layer = Layer()
    layer.copy(tmp_path / "x", "x")
    before = layer.digest()
    os.utime(tmp_path / "x", (1, 1))
    assert layer.digest() != before


def test_missing_programs_are_named_at_once_with_their_packages(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bash").write_text("#!/bin/true\n")
    (tmp_path / "bash").chmod(0o755)
    monkeypatch.setattr(_image_host, "_PLACES", str(tmp_path))
    with pytest.raises(SandboxUnavailable) as caught:
        _image_host.find_programs()
    said = str(caught.value)
    assert "git (package git)" in said and "kill pgrep pkill ps (package procps)" in said
    assert "apt-get install coreutils" in said and "(package bash)" not in said and "\n" not in said


def test_the_interpreter_is_the_one_below_the_virtual_environment() -> None:
    found = _image_python.host_python()
    assert found.prefix == Path(sys.base_prefix).resolve()
    assert found.version == f"{sys.version_info[0]}.{sys.version_info[1]}"
    names = {str(path.relative_to(found.stdlib)) for path in found.files()}
    assert {"os.py", "json/__init__.py", "encodings/utf_8.py"} <= names
    assert not [name for name in names if re.match(r"(test|idlelib|tkinter|site-packages)/|.*\.(a|pyc)$", name)]


def test_byte_code_is_valid_whatever_the_time_of_its_source(tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text("value = 1\n")
    layer = Layer()
    layer.copy(tmp_path / "x.py", "lib/x.py")
    python = _image_python.host_python()
    _image_python.add_byte_code(layer, python)
    member = layer.members[f"usr/lib/__pycache__/x.{python.tag}.pyc"]
    assert member.content is not None
    assert int.from_bytes(member.content[4:8], "little") == 1, "PEP 552: hash-based, not checked"
    code = marshal.loads(member.content[16:])
    assert code.co_filename == "/usr/lib/x.py"
    space: dict[str, int] = {}
    exec(code, space)
    assert space["value"] == 1


def test_every_requirement_is_pinned_by_version_and_hash() -> None:
    lines = [line for line in _image_python.requirements().splitlines() if line and not line.startswith("#")]
    assert {line.partition("==")[0] for line in lines} == {"pytest", "pluggy", "iniconfig", "packaging", "pygments"}
    for line in lines:
        assert re.fullmatch(r"[a-z]+==[0-9.]+ --hash=sha256:[0-9a-f]{64}", line)


def test_pip_says_why_it_cannot(tmp_path: Path) -> None:
    with pytest.raises(SandboxUnavailable, match=r"^pip download failed.*package index"):
        _image_python.run_pip("download", "-r", str(tmp_path / "missing.txt"))


def test_equal_projects_have_equal_commits() -> None:
    one, two = dict(make_history(PROJECT).files), dict(make_history(replace(PROJECT, programs=())).files)
    assert one["refs/heads/main"] == two["refs/heads/main"]
    assert one["HEAD"] != one["refs/heads/main"], "detached before the fix"


def test_the_diff_of_a_history_is_the_fix() -> None:
    lines = make_history(PROJECT).diff.decode().splitlines()
    assert [line for line in lines if line[0] in "+-"][2:] == ["-    return len(values)", "+    return sum(values)"]


@pytest.mark.parametrize(
    "change",
    [{"name": "x"}, {"fixed": ()}, {"buggy": ()}, {"tests": ()}, {"programs": ()}, {"fix": "x"}],
    ids=lambda change: next(iter(change)),
)
def test_whatever_differs_gives_another_image(change: dict[str, str]) -> None:
    assert r2e_tag(replace(PROJECT, **change)) != r2e_tag(PROJECT) == r2e_tag(replace(PROJECT))  # type: ignore[arg-type]  # one field each


def test_a_patch_that_does_not_apply_is_refused_with_the_name() -> None:
    patch = make_history(PROJECT).diff
    assert apply_patch(PROJECT.buggy, patch, "sums") == PROJECT.fixed
    with pytest.raises(TaskError, match=r"^sums: bug\.patch does not apply"):
        apply_patch(PROJECT.fixed, patch, "sums")


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    try:
        opened = docker.from_env(timeout=120)
    except DockerException as error:
        pytest.skip(f"no container engine: {str(error)[:200]}; start one (dockerd) to run these tests")
    with contextlib.closing(opened):
        yield opened


@pytest.fixture(scope="module")
def base(client: Client) -> str:
    return build_base(client)


@pytest.fixture(scope="module")
def image(client: Client, base: str) -> Iterator[str]:
    tag = build_r2e_image(client, PROJECT)
    yield tag
    client.images.remove(tag)


@pytest.mark.docker
def test_the_base_is_small_and_built_once(client: Client, base: str) -> None:
    before = client.images.get(base)
    assert 40_000_000 < before.attrs["Size"] < 120_000_000
    said: list[str] = []
    assert build_base(client, progress=said.append) == BASE_TAG
    assert client.images.get(base).id == before.id and not said


LOOK = """set -e
python3 -c 'import sys; print(sys.prefix, "%d.%d" % sys.version_info[:2])'
python3 -c 'import ssl, sqlite3, ctypes, lzma, bz2, zlib, decimal, asyncio, multiprocessing, curses'
cd /tmp && mkdir project && cd project
git init -q . && echo 'def test_one(): assert 1' > test_one.py
git add . && git -c user.name=a -c user.email=a@b commit -qm one && git gc -q && git log --oneline | wc -l
sed s/one/two/ test_one.py > test_two.py && diff test_one.py test_two.py > two.patch || patch -s test_one.py < two.patch
python -m pytest -q | tail -1
(setsid sleep 99 &) ; sleep 0.1; pgrep sleep > /dev/null && kill -9 $(pgrep sleep) && ps > /dev/null
find . -name '*.py' | xargs grep -c two | awk -F: '{n += $2} END {print n}'
tar cz . | gzip -t && stat -c %a /tmp && whoami && echo "$LANG"
"""


@pytest.mark.docker
def test_what_the_base_holds_works(client: Client, base: str) -> None:
    code, output = run_once(client, base, LOOK)
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    lines = output.splitlines()
    assert code == 0, output
    assert lines[:2] == [f"/usr/local {version}", "1"] and lines[2].startswith("2 passed in"), output
    assert lines[3:] == ["2", "1777", "root", "C.UTF-8"]


@pytest.mark.docker
def test_the_command_line_runs_the_base_without_network(base: str) -> None:
    command = ["docker", "run", "--rm", "--network", "none", base, "bash", "-lc", "echo $((6 * 7)); ls /sys/class/net"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("no docker command line: apt-get install docker.io")
    assert (done.returncode, done.stdout) == (0, "42\nlo\n"), done.stderr


@pytest.mark.docker
def test_the_first_run_of_pytest_compiles_nothing_but_the_tests(client: Client, base: str) -> None:
    start = "cd /tmp; echo 'def test_a(): pass' > test_a.py; python -m pytest -q > /dev/null"
    script = f"{start}; find / -xdev -newer /tmp/test_a.py -name '*.pyc'"
    code, output = run_once(client, base, script)
    assert code == 0
    assert re.fullmatch(r"/tmp/__pycache__/test_a\.cpython-\d+-pytest-[0-9.]+\.pyc\n", output), output


@pytest.mark.docker
def test_the_fix_can_be_reached_and_the_tree_is_dirty(client: Client, image: str) -> None:
    script = (
        "exec 2>&1; git log --all --format=%s; git diff HEAD main --stat | head -1; "
        "git status --porcelain; git symbolic-ref HEAD"
    )
    _, output = run_once(client, image, script)
    assert output.splitlines() == [
        "Add the values",
        "Import sums",
        " sums.py | 2 +-",
        " M install.sh",
        "?? .venv/",
        "?? run_tests.sh",
        "fatal: ref HEAD is not a symbolic ref",
    ]


@pytest.mark.docker
def test_hidden_tests_tell_the_fix_from_the_bug(client: Client, image: str) -> None:
    script = (
        "ls /r2e_tests; ln -s /r2e_tests r2e_tests; bash run_tests.sh | grep ::; git apply /tmp/fix; bash run_tests.sh"
    )
    code, output = run_once(client, image, script + " | grep ::; hello", [("fix", make_history(PROJECT).diff)])
    assert code == 0
    assert [line.partition(" - ")[0] for line in output.splitlines()] == [
        "test_1.py",
        "PASSED r2e_tests/test_1.py::test_none",
        "FAILED r2e_tests/test_1.py::test_two",
        "PASSED r2e_tests/test_1.py::test_two",
        "PASSED r2e_tests/test_1.py::test_none",
        "hello",
    ]


@pytest.mark.docker
def test_its_python_is_in_the_project_and_sees_pytest(client: Client, image: str) -> None:
    script = (
        "python -c 'import sys, pytest; print(sys.executable, sys.prefix, sys.base_prefix)'; ls -d /root/.local/bin"
    )
    _, output = run_once(client, image, script)
    assert output == "/testbed/.venv/bin/python /testbed/.venv /usr/local\n/root/.local/bin\n"


@pytest.mark.docker
def test_a_run_leaves_no_container(client: Client, base: str) -> None:
    script = f"cat /tmp/note; exit 3 # {secrets.token_hex(8)}"
    assert run_once(client, base, script, [("note", b"kept")]) == (3, "kept")
    left = client.containers.list(all=True, ignore_removed=True)
    assert script not in [
        container.attrs["Config"]["Cmd"][-1] for container in left if container.attrs["Config"]["Cmd"]
    ]
