"""The tool programs under every Python from 3.6 on that is found here, in both kinds of locale: the same answers."""

import ast
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from aem_swe.resources import resource

PROGRAMS = sorted(Path(str(resource("agents", "tools"))).glob("*.py"))
VERSIONS = [f"3.{minor}" for minor in range(6, 15)]
LOCALES = ["C", "C.UTF-8"]
BODY = "".join(f"    x{i} = {i}\n" for i in range(5))
LONG = "import os\n\n\n" + "".join(f"def f{i}():\n{BODY}\n\n" for i in range(20))


def found(version: str) -> str | None:
    """A Python of this version that starts: on the PATH, or one of pyenv's."""
    kept = sorted(Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}"))
    for path in (*map(str, kept), shutil.which(f"python{version}")):
        if path and subprocess.run([path, "-c", ""], capture_output=True, check=False).returncode == 0:
            return path
    return None


def run(python: str, locale: str, folder: Path, program: str, **arguments: str) -> tuple[int, bytes]:
    request = json.dumps({"arguments": arguments, "options": {}}).encode()
    done = subprocess.run(
        [python, "-I", "-S", str(resource("agents", f"tools/{program}"))], input=request, cwd=folder,
        env={"TMPDIR": str(folder / ".tmp"), "LC_ALL": locale}, capture_output=True, check=False,
    )  # fmt: skip
    assert done.stderr == b""
    return done.returncode, done.stdout


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.name)
def test_a_program_is_python_3_6_and_imports_nothing_but_its_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 6))
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    assert names <= {"ast", "hashlib", "json", "os", "sys", "warnings"}  # each of them is in 3.6


@pytest.mark.parametrize("locale", LOCALES)
@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_gives_the_answers_of_this_one(tmp_path: Path, version: str, locale: str) -> None:
    python = found(version)
    if python is None:
        pytest.skip(f"no Python {version} here; with pyenv: pyenv install {version}")
    answers = []
    for number, interpreter in enumerate((python, sys.executable)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "long.py").write_text(LONG)
        (folder / "caf\u00e9.py").write_bytes(b"# \xff caf\xc3\xa9\r\nx = 1\r\n")
        edit, path = "file_editor.py", "caf\u00e9.py"
        new = {"old_str": "x = 1", "new_str": "y\n"}
        answers.append(
            [
                run(interpreter, locale, folder, edit, command="view", path="long.py"),
                run(interpreter, locale, folder, edit, command="view", path="long.py", view_range="[5, 9]"),
                run(interpreter, locale, folder, edit, command="view", path="."),
                run(interpreter, locale, folder, edit, command="view", path=path),
                run(interpreter, locale, folder, edit, command="str_replace", path=path, **new),
                run(interpreter, locale, folder, edit, command="insert", path=path, insert_line="1", new_str="\u2028"),
                run(interpreter, locale, folder, edit, command="undo_edit", path=path),
                run(interpreter, locale, folder, edit, command="create", path="neu/\u00fc.txt", file_text="\u00fc"),
                run(interpreter, locale, folder, edit, command="create", path="bad", file_text="\ud800"),
                run(interpreter, locale, folder, "search.py", search_term="caf\u00e9"),
                run(interpreter, locale, folder, "search.py", search_term="\u00fc", path="neu/\u00fc.txt"),
                run(interpreter, locale, folder, "search.py", search_term="\ud800", path="\ud800"),
                (0, b"".join((folder / name).read_bytes() for name in ("long.py", path, "neu/\u00fc.txt"))),
            ]
        )
    assert answers[0] == answers[1]
    codes = [code for code, _ in answers[0]]
    assert codes == [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 1, 0]
    assert b"caf\xc3\xa9.py: 1\n" in answers[0][9][1]


def test_half_a_character_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    says = b"ERROR: the request holds half of a surrogate pair, which is no character\n"
    (tmp_path / "a").write_text("a")
    arguments = {"command": "str_replace", "path": "a", "old_str": "a", "new_str": "\udfff"}
    assert run(sys.executable, "C.UTF-8", tmp_path, "file_editor.py", **arguments) == (1, says)
    assert (tmp_path / "a").read_text() == "a"
    assert run(sys.executable, "C", tmp_path, "file_editor.py", command="undo_edit", path="a")[0] == 1
