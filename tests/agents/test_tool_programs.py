"""agents/tools/*.py as real processes, under Python 3.6 where there is one: old containers have it."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aem_swe.resources import resource

Edit = Callable[..., tuple[int, str]]


def works(python: str) -> bool:
    return subprocess.run([python, "-c", ""], check=False, capture_output=True).returncode == 0


@pytest.fixture(scope="session")
def python() -> str:
    """Python 3.6 if there is one, else the one that runs the tests."""
    kept = [str(path) for path in sorted(Path.home().glob(".pyenv/versions/3.6.*/bin/python3.6"))]
    return next((path for path in (*kept, shutil.which("python3.6")) if path and works(path)), sys.executable)


def run_program(python: str, folder: Path, program: str, request: object) -> tuple[int, bytes]:
    """Run a tool program in `folder`; it must print its answer and nothing to stderr."""
    done = subprocess.run(
        [python, "-I", "-S", str(resource("agents", f"tools/{program}"))],
        input=json.dumps(request).encode(),
        cwd=folder,
        env={"TMPDIR": str(folder / ".tmp"), "PATH": os.environ["PATH"]},
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""
    return done.returncode, done.stdout


def editor(python: str, folder: Path) -> Edit:
    """Run file_editor.py: edit("view", path="a.py", options={...}) -> (exit code, output)."""

    def call(command: str, options: dict[str, bool] | None = None, **arguments: str) -> tuple[int, str]:
        request = {"arguments": {"command": command, **arguments}, "options": options or {}}
        code, output = run_program(python, folder, "file_editor.py", request)
        return code, output.decode("utf-8", "surrogateescape")

    return call


@pytest.fixture
def edit(python: str, tmp_path: Path) -> Edit:
    return editor(python, tmp_path)


@pytest.fixture(params=["python3.6", "this python"])
def view(request: pytest.FixtureRequest, python: str, tmp_path: Path) -> Edit:
    """For views that depend on the version: `ast` knows where code ends since 3.8, and warns about more since 3.12."""
    return editor(sys.executable if request.param == "this python" else python, tmp_path)


@pytest.fixture
def search(python: str, tmp_path: Path) -> Edit:
    """Run search.py: search("term", path="a.py", options={...}) -> (exit code, output)."""

    def call(term: str, options: dict[str, bool] | None = None, **arguments: str) -> tuple[int, str]:
        request = {"arguments": {"search_term": term, **arguments}, "options": options or {}}
        code, output = run_program(python, tmp_path, "search.py", request)
        return code, output.decode("utf-8", "surrogateescape")

    return call


def numbered(first: int, *lines: str) -> str:
    return "".join(f"{first + i:6}\t{line}\n" for i, line in enumerate(lines))


# --- view


def test_view_numbers_the_lines_of_a_file(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\n\n  three")
    head = "Here is the result of running `cat -n` on a.py:\n"
    assert edit("view", path="a.py") == (0, head + numbered(1, "one", "", "  three"))
    assert edit("view", path="a.py", view_range="[2, 3]") == (0, head + numbered(2, "", "  three"))
    assert edit("view", path="a.py", view_range="[3, -1]") == (0, head + numbered(3, "  three"))


def test_view_without_numbers_is_the_file_itself(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\n\n  three\n")
    assert edit("view", {"line_numbers": False}, path="a.py") == (0, "one\n\n  three\n")
    assert edit("view", {"line_numbers": False}, path="a.py", view_range="[1, 1]")[1].endswith(numbered(1, "one"))


def test_view_of_an_empty_file_is_only_its_head(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"")
    assert edit("view", path="a.py") == (0, "Here is the result of running `cat -n` on a.py:\n")


def test_view_of_a_folder_lists_it_without_hidden_names(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "pkg").mkdir()
    for name in ("b.py", "a.txt", ".hidden", "pkg/c.py"):
        (tmp_path / name).write_text("")
    assert edit("view", path=".") == (0, "a.txt\nb.py\npkg/\n")


@pytest.mark.parametrize("bad", ["[0, 1]", "[2, 1]", "[1, 4]", "[4, 4]", "[-1, -1]"])
def test_a_view_range_outside_the_file_is_refused(edit: Edit, tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.py").write_text("1\n2\n3\n")
    assert edit("view", path="a.py", view_range=bad) == (1, f"ERROR: view_range {bad} is outside 1..3\n")


@pytest.mark.parametrize("bad", ["1, 2", "[1]", "[1, 2, 3]", "3", "{}", "[null, 1]", "[1, Infinity]", "[" * 9999])
def test_a_malformed_view_range_is_refused(edit: Edit, tmp_path: Path, bad: str) -> None:
    (tmp_path / "a.py").write_text("1\n2\n3\n")
    assert edit("view", path="a.py", view_range=bad) == (1, "ERROR: view_range must look like [1, 40]\n")


def test_long_output_is_clipped_and_says_so(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x" * 9_000 + "\n" + "y" * 3_000)
    output = edit("view", path="a.txt")[1]
    assert output.endswith("\n<output clipped: 10000 of 12065 characters shown>\n")
    assert len(output.rpartition("\n<output")[0]) == 10_000
    (tmp_path / "many").mkdir()
    for i in range(250):
        (tmp_path / "many" / f"{i:03}{'x' * 60}").write_text("")
    assert edit("view", path="many")[1].endswith("characters shown>\n")


BODY = ['        """Say it."""', "        a = 1", "        b = 2", "        return a + b", ""]
LONG = ["import os", "", "class A:", *(line for i in range(20) for line in (f"    def f{i}(self):", *BODY))]


def test_a_long_python_file_is_condensed_to_signatures(view: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("\n".join(LONG) + "\n")
    code, output = view("view", path="a.py")
    assert code == 0
    assert output.startswith("Condensed view of a.py (pass view_range for the hidden lines):\n")
    hidden = "      \t... lines 5-8 hidden ...\n"
    assert numbered(4, "    def f0(self):") + hidden + numbered(9, "", "    def f1(self):") in output
    assert "return a + b" not in output
    assert "return a + b" in view("view", path="a.py", view_range="[1, 20]")[1]
    assert "return a + b" in view("view", path="a.py", concise="false")[1]


def test_a_short_python_file_is_condensed_only_on_request(view: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("\n".join(LONG[:15]))
    assert "hidden" not in view("view", path="a.py")[1]
    assert "... lines 5-8 hidden ..." in view("view", path="a.py", concise="True")[1]


def test_a_function_of_three_lines_or_a_signature_with_its_body_stays_visible(view: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("def f():\n    1\n    2\n    3\n\ndef g(): return [\n1,\n2,\n3,\n4]\n")
    output = view("view", path="a.py", concise="true")[1]
    assert numbered(1, "def f():", "    1", "    2", "    3") in output
    assert numbered(6, "def g(): return [") in output


@pytest.mark.parametrize("content", [b"def f(:\n" * 120, b"\xff\n" * 120, b"\0\n" * 120, b"a = 1\rb = 2\n" * 120])
def test_a_long_file_that_does_not_parse_is_shown_plainly(view: Edit, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    code, output = view("view", path="a.py")
    assert code == 0
    assert output.startswith("Here is the result of running")


def test_code_that_python_warns_about_is_condensed_without_a_word(view: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("x = '\\d'\nassert (1, 2)\n1 is 1\n" + "\n" * 120)
    assert view("view", path="a.py")[1].startswith("Condensed view")


def test_a_long_file_that_is_not_python_is_shown_plainly(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("x\n" * 150)
    assert edit("view", path="a.txt")[1].startswith("Here is the result of running")


def test_lines_end_at_newlines_only_so_numbers_are_those_of_grep(edit: Edit, search: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("one\n\x0c\ntwo\u2028\x1c\x85 three\nfour\n", newline="")
    assert edit("view", path="a.py", view_range="[4, 4]")[1].endswith(numbered(4, "four"))
    assert search("four", path="a.py") == (0, "4:four\n")


# --- create


def test_create_makes_the_file_and_its_folders(edit: Edit, tmp_path: Path) -> None:
    assert edit("create", path="new/deep/a.py", file_text="  x\n") == (0, "The file new/deep/a.py was created.\n")
    assert (tmp_path / "new/deep/a.py").read_bytes() == b"  x\n"


def test_create_never_overwrites(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("old")
    assert edit("create", path="a.py", file_text="new") == (1, "ERROR: a.py exists already; use str_replace\n")
    assert edit("create", path=".", file_text="new")[0] == 1
    assert (tmp_path / "a.py").read_text() == "old"


def test_create_under_a_file_is_refused_and_leaves_nothing_to_undo(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("old")
    code, output = edit("create", path="a.py/b.py", file_text="new")
    assert code == 1
    assert output.startswith("ERROR: ")
    assert edit("undo_edit", path="a.py/b.py")[1] == "ERROR: no edit of a.py/b.py to undo\n"


# --- str_replace

EDITED = "The file a.py was edited.\nHere is `cat -n` of the lines around the edit:\n"


def test_str_replace_shows_the_lines_around_the_edit(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("".join(f"line {i}\n" for i in range(1, 21)))
    code, output = edit("str_replace", path="a.py", old_str="line 10\n", new_str="ten\nand more\n")
    assert code == 0
    around = [*(f"line {i}" for i in range(6, 10)), "ten", "and more", *(f"line {i}" for i in range(11, 16))]
    assert output == EDITED + numbered(6, *around)
    assert (tmp_path / "a.py").read_text().startswith("line 1\n")


def test_str_replace_without_echo_is_one_line(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("a")
    answer = edit("str_replace", {"echo": False}, path="a.py", old_str="a", new_str="b")
    assert answer == (0, "The file a.py was edited.\n")


def test_str_replace_without_new_str_deletes(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("keep drop")
    assert edit("str_replace", path="a.py", old_str=" drop")[0] == 0
    assert (tmp_path / "a.py").read_text() == "keep"


@pytest.mark.parametrize("old", ["c", "a", "", "A", " b"])
def test_old_str_must_occur_exactly_once(edit: Edit, tmp_path: Path, old: str) -> None:
    (tmp_path / "a.py").write_text("a\nb\na\n")
    found = "2 matches" if old == "a" else "no match"
    assert edit("str_replace", path="a.py", old_str=old, new_str="x") == (1, f"ERROR: {found} for old_str in a.py\n")
    assert (tmp_path / "a.py").read_text() == "a\nb\na\n"


HOSTILE = [
    pytest.param(b"x = 1\r\ny = 2\r\n", id="crlf"),
    pytest.param(b"x = 1\r\ny = 2\n", id="mixed ends"),
    pytest.param(b"x = 1\ry = 2\r", id="cr only"),
    pytest.param(b"# \xff\xfe caf\xe9\nx = 1\n\x80", id="latin-1"),
    pytest.param(b"\xef\xbb\xbfx = 1", id="byte order mark"),
    pytest.param(b"x = 1\n\x0c\nclass A: pass\n", id="form feed"),
    pytest.param("x = 1\n# \u2028 \x85 \U0001f600 \u0000".encode(), id="unicode"),
    pytest.param(b"\n\n\nx = 1\n\n\n\n", id="blank lines"),
]


@pytest.mark.parametrize("content", HOSTILE)
def test_every_byte_outside_the_edit_survives(edit: Edit, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert edit("str_replace", path="a.py", old_str="x = 1", new_str="  x = 2")[0] == 0
    assert (tmp_path / "a.py").read_bytes() == content.replace(b"x = 1", b"  x = 2")
    assert edit("undo_edit", path="a.py")[0] == 0
    assert (tmp_path / "a.py").read_bytes() == content


def test_lines_quoted_from_a_crlf_file_match_and_the_new_ones_end_like_it(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"a\r\nb\r\nc\r\n")
    assert edit("view", path="a.py")[1].endswith(numbered(1, "a", "b", "c"))
    code, output = edit("str_replace", path="a.py", old_str="a\nb", new_str="A\nnew\nb")
    assert code == 0
    assert output.endswith(numbered(1, "A", "new", "b", "c"))
    assert (tmp_path / "a.py").read_bytes() == b"A\r\nnew\r\nb\r\nc\r\n"
    assert edit("insert", path="a.py", insert_line="1", new_str="two")[0] == 0
    assert (tmp_path / "a.py").read_bytes() == b"A\r\ntwo\r\nnew\r\nb\r\nc\r\n"


# --- insert


@pytest.mark.parametrize(
    ("content", "after", "new", "result"),
    [
        (b"a\nb\n", "0", "x", b"x\na\nb\n"),
        (b"a\nb\n", "1", "x\n", b"a\nx\nb\n"),
        (b"a\nb\n", "2", "  x\n\ny", b"a\nb\n  x\n\ny\n"),
        (b"a\nb", "2", "x", b"a\nb\nx\n"),
        (b"a\nb", "1", "x", b"a\nx\nb"),
        (b"", "0", "x", b"x\n"),
        (b"a\x0cb\nc\n", "1", "x", b"a\x0cb\nx\nc\n"),
        (b"\xff\n\xfe", "1", "x", b"\xff\nx\n\xfe"),
    ],
)
def test_insert_puts_whole_lines_after_a_line(
    edit: Edit, tmp_path: Path, content: bytes, after: str, new: str, result: bytes
) -> None:
    (tmp_path / "a.py").write_bytes(content)
    assert edit("insert", path="a.py", insert_line=after, new_str=new)[0] == 0
    assert (tmp_path / "a.py").read_bytes() == result


def test_insert_shows_the_lines_around_the_edit(edit: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("".join(f"line {i}\n" for i in range(1, 21)))
    output = edit("insert", path="a.py", insert_line="10", new_str="new")[1]
    lines = [f"line {i}" for i in (7, 8, 9, 10)] + ["new"] + [f"line {i}" for i in (11, 12, 13, 14)]
    assert output == EDITED + numbered(7, *lines)


@pytest.mark.parametrize(
    ("line", "says"), [("x", "must be a number"), ("-1", "-1 is outside 0..2"), ("3", "3 is outside 0..2")]
)
def test_a_wrong_insert_line_is_refused(edit: Edit, tmp_path: Path, line: str, says: str) -> None:
    (tmp_path / "a.py").write_text("a\nb\n")
    assert edit("insert", path="a.py", insert_line=line, new_str="x") == (1, f"ERROR: insert_line {says}\n")
    assert (tmp_path / "a.py").read_text() == "a\nb\n"


# --- undo and errors


def test_undo_takes_edits_back_one_by_one_and_removes_a_created_file(edit: Edit, tmp_path: Path) -> None:
    edit("create", path="a.py", file_text="one")
    edit("str_replace", path="a.py", old_str="one", new_str="two")
    edit("insert", path=str(tmp_path / "a.py"), insert_line="0", new_str="zero")
    seen = []
    for _ in range(3):
        seen.append((tmp_path / "a.py").read_text())
        assert edit("undo_edit", path="a.py") == (0, "The last edit of a.py was undone.\n")
    assert seen == ["zero\ntwo", "two", "one"]
    assert not (tmp_path / "a.py").exists()
    assert edit("undo_edit", path="a.py") == (1, "ERROR: no edit of a.py to undo\n")


def test_undo_that_fails_can_be_tried_again(edit: Edit, tmp_path: Path) -> None:
    edit("create", path="pkg/a.py", file_text="one")
    edit("str_replace", path="pkg/a.py", old_str="one", new_str="two")
    (tmp_path / "pkg").rename(tmp_path / "gone")
    assert edit("undo_edit", path="pkg/a.py")[0] == 1
    (tmp_path / "gone").rename(tmp_path / "pkg")
    assert edit("undo_edit", path="pkg/a.py")[0] == 0
    assert (tmp_path / "pkg/a.py").read_text() == "one"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"command": "view", "path": "missing.py"}, "missing.py is not a file"),
        ({"command": "str_replace", "path": "missing.py", "old_str": "a"}, "missing.py is not a file"),
        ({"command": "str_replace", "path": ".", "old_str": "a"}, ". is not a file"),
        ({"command": "str_replace", "path": "a.py"}, "parameter old_str is missing for command str_replace"),
        ({"command": "create", "path": "b.py"}, "parameter file_text is missing for command create"),
        ({"command": "insert", "path": "a.py", "new_str": "x"}, "parameter insert_line is missing for command insert"),
        ({"command": "insert", "path": "a.py", "insert_line": "0"}, "parameter new_str is missing for command insert"),
        ({"command": "delete", "path": "a.py"}, "unknown command delete"),
        ({"command": "view", "path": "a\0.py"}, "path holds a NUL character"),
        ({"command": "create", "path": "a\0.py", "file_text": ""}, "path holds a NUL character"),
        ({"command": "undo_edit", "path": "a.py"}, "no edit of a.py to undo"),
    ],
)
def test_a_request_that_cannot_be_carried_out_says_why(
    python: str, tmp_path: Path, arguments: dict[str, str], says: str
) -> None:
    (tmp_path / "a.py").write_text("a")
    code, output = run_program(python, tmp_path, "file_editor.py", {"arguments": arguments})
    assert (code, output.decode()) == (1, f"ERROR: {says}\n")


def test_a_path_that_the_system_refuses_says_why(edit: Edit) -> None:
    code, output = edit("create", path="a" * 300, file_text="")
    assert code == 1
    assert "File name too long" in output


# --- search


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "pkg" / ".git").mkdir(parents=True)
    files = {
        "a.py": "add = 1\n  add(add)\n",
        "pkg/b.py": "no\nadd\n",
        "pkg/c.txt": "add\n",
        "pkg/.git/d.py": "add\n",
        ".e.py": "add\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


def test_search_counts_matching_lines_per_python_file(search: Edit, project: Path) -> None:
    assert search("add") == (0, "Matches per file:\na.py: 2\npkg/b.py: 1\n")
    assert search("add", path="pkg") == (0, "Matches per file:\npkg/b.py: 1\n")
    assert search("add", path=str(project / "pkg")) == (0, f"Matches per file:\n{project}/pkg/b.py: 1\n")


def test_search_can_show_the_matching_lines(search: Edit, project: Path) -> None:
    assert search("add", {"lines": True}) == (0, "a.py:1:add = 1\na.py:2:  add(add)\npkg/b.py:2:add\n")


def test_search_in_a_file_shows_numbered_lines(search: Edit, project: Path) -> None:
    assert search("add", path="pkg/c.txt") == (0, "1:add\n")
    assert search("(add)", path="a.py") == (0, "2:  add(add)\n")
    assert search(".", path="a.py") == (0, "No match in a.py\n")


def test_search_says_what_it_did_not_find(search: Edit, project: Path) -> None:
    assert search("sub") == (0, "No match\n")
    assert search("add", path="missing") == (1, "ERROR: missing does not exist\n")
    assert search("") == (1, "ERROR: search_term is empty\n")
    assert search("add", path="a\0") == (1, "ERROR: path holds a NUL character\n")


def test_search_asks_for_a_narrower_term_over_a_hundred_files(search: Edit, tmp_path: Path) -> None:
    for i in range(101):
        (tmp_path / f"m{i}.py").write_text("add\n")
    assert search("add") == (0, "101 files match (more than 100): use a narrower term\n")
    (tmp_path / "m0.py").unlink()
    assert search("add")[1].count("\n") == 101


def test_search_output_is_clipped(search: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("add\n" * 5000)
    output = search("add", path="a.py")[1]
    assert output.endswith("\n<output clipped>\n")
    assert len(output) < 10_100


def test_search_survives_files_that_are_not_text_or_cannot_be_read(search: Edit, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_bytes(b"\xff\x00add\n")
    (tmp_path / "b.py").symlink_to("missing")
    (tmp_path / "c.py").mkdir()
    assert search("add") == (0, "Matches per file:\na.py: 1\n")
