"""Harbor task folders made on the spot: a small shell project with a bug."""

from pathlib import Path

TOML = """schema_version = "1.4"
[task]
name = "aem/greet"
[metadata]
difficulty = "easy"
[verifier]
timeout_sec = 60.0
env = { WANTED = "hello" }
[agent]
timeout_sec = 100.0
[solution]
env = { WORD = "hello" }
[environment]
build_timeout_sec = 300.0
cpus = 1
memory = "2G"
storage_mb = 10240
env = { PLAIN = "a b", OPTIONAL = "${HOME_OF_NOBODY:-none}" }
"""
DOCKERFILE = """FROM aem-swe/base:latest
WORKDIR /app
COPY greet.sh conftest.py /app/
"""
TEST = """#!/bin/bash
mkdir -p /logs/verifier
if [ "$(bash greet.sh)" = "$(cat /tests/deep/expected) $WANTED" ]; then
    echo 1 > /logs/verifier/reward.txt
else
    echo 0.5 > /logs/verifier/reward.txt
fi
"""
SOLVE = """#!/bin/bash
sed -i "s/bye/$WORD/" greet.sh
cp /solution/note "$PWD/note"
exit 3
"""
INSTRUCTION = "<!-- BENCHMARK canary 123 -->\n# canary too\n\nMake greet.sh say hello.\n"


def make_folder(root: Path, name: str = "greet", **files: str | None) -> Path:
    """A good task folder; `files` replaces files (path with __ for / and _dot_ for .), None removes one."""
    contents: dict[str, str | None] = {
        "task.toml": TOML,
        "instruction.md": INSTRUCTION,
        "environment/Dockerfile": DOCKERFILE,
        "environment/greet.sh": "echo you bye\n",
        "environment/conftest.py": "raise SystemExit('untouched')\n",
        "tests/test.sh": TEST,
        "tests/deep/expected": "you",
        "solution/solve.sh": SOLVE,
        "solution/note": "noted\n",
    }
    contents |= {path.replace("__", "/").replace("_dot_", "."): content for path, content in files.items()}
    for path, content in contents.items():
        if content is not None:
            (root / name / path).parent.mkdir(parents=True, exist_ok=True)
            (root / name / path).write_text(content)
    return root / name
