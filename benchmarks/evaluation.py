"""What an evaluation costs beside the model and the tests: `aem-swe eval` against the tests alone, in one run.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

    tests   the eval_script of every instance with its reference fix applied, in containers that are already started
    eval    the whole command, from the start of its process to its report: 3 turns per instance against a server that
            answers at once, container starts, tools, diffs, official grading, pages

Both run the same instances with the same number of gradings at a time. The project's own tests take a second, those
of SWE-bench minutes: each script is made to wait `--seconds` first, and the ratio is for tests of that length (bound
1.15 for 30 s and 16 instances, start-up and report included). Needs a Docker engine, swebench, and the images of
`aem-swe sandbox build`.
"""

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import docker

BOUND = 1.15
START = ": '>>>>> Start Test Output'"


class Model(ThreadingHTTPServer):
    """Answers at once: look, apply the reference fix, finish. Counts the seconds that it takes itself."""

    daemon_threads = True

    def __init__(self, rows: list[dict[str, Any]]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows, self.seconds, self.lock = rows, 0.0, threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Model

    def log_message(self, *arguments: Any) -> None:
        pass

    def send(self, answer: dict[str, Any]) -> None:
        content = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.send({"object": "list", "data": [{"id": "model", "object": "model"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        started = time.perf_counter()
        turn = sum(message["role"] == "assistant" for message in body["messages"])
        asked = body["messages"][-2 * turn - 1]["content"]
        row = next((row for row in self.server.rows if row["problem_statement"].strip() in asked), None)
        fix = f"cat > /tmp/p <<'END_OF_FIX'\n{row['patch']}\nEND_OF_FIX\ngit apply /tmp/p" if row else ""
        commands = ["<parameter=cmd>ls</parameter>", f"<parameter=cmd>{fix}</parameter>"]
        acts = [f"<function=execute_bash>\n{command}\n</function>" for command in commands]
        text = [*acts, "<function=finish>\n</function>"][min(turn, 2)]
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        with self.server.lock:
            self.server.seconds += time.perf_counter() - started
        self.send(
            {"choices": [choice], "usage": {"prompt_tokens": 1000, "completion_tokens": min(50, body["max_tokens"])}}
        )


def tests_alone(rows: list[dict[str, Any]], workers: int) -> float:
    """Seconds of all eval_scripts, `workers` at a time, in containers that run already."""
    with contextlib.closing(docker.from_env()) as client, ThreadPoolExecutor(workers) as pool:
        made = [client.containers.run(row["image"], "sleep infinity", detach=True, network_mode="none") for row in rows]
        try:
            for row, container in zip(rows, made, strict=True):
                for name, text in (("p", row["patch"]), ("eval.sh", row["eval_script"])):
                    put(container, name, text)
                assert container.exec_run("git apply /p", workdir="/testbed").exit_code == 0
            started = time.perf_counter()
            done = list(pool.map(lambda one: one.exec_run("bash /eval.sh").output, made))
            seconds = time.perf_counter() - started
            assert all(START[2:-1].encode() in output for output in done)
            return seconds
        finally:
            for container in made:
                container.remove(force=True)


def put(container: Any, name: str, text: str) -> None:
    command = ["bash", "-c", f"cat > /{name} <<'END_OF_TEXT'\n{text}\nEND_OF_TEXT"]
    assert container.exec_run(command).exit_code == 0


def evaluation(folder: Path, rows: list[dict[str, Any]], workers: int) -> tuple[float, float]:
    """Seconds of the command, and of the model."""
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = Model(rows)
    command = [sys.executable, "-m", "aem_swe.cli", "eval", "model", "-c", "swebench_demo", "--runs", "1"]
    command += ["--endpoint", f"http://127.0.0.1:{model.server_port}/v1", "-d", str(folder / "rows.jsonl")]
    command += ["-o", str(folder / "out"), "-w", str(workers), "--grading-workers", str(workers)]
    command += ["play.agent=r2egym", "play.context=50000", "play.max_response_tokens=4000"]
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - started
    lines = (folder / "out" / "results.jsonl").read_text().splitlines()
    assert [json.loads(line)["status"] for line in lines] == ["resolved"] * len(rows)
    return seconds, model.seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=Path, default=Path("data/swe-bench-demo/rows.jsonl"))
    parser.add_argument("--instances", type=int, default=16)
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--seconds", type=int, default=30, help="that the tests of an instance wait")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in asked.rows.read_text().splitlines()][: asked.instances]
    for row in rows:
        row["eval_script"] = row["eval_script"].replace(START, f"sleep {asked.seconds}\n{START}", 1)
    alone = tests_alone(rows, asked.workers)
    with tempfile.TemporaryDirectory() as folder:
        whole, model = evaluation(Path(folder), rows, asked.workers)
    found = {
        "command": "python benchmarks/evaluation.py --json benchmarks/results/evaluation.json",
        "instances": len(rows),
        "workers": asked.workers,
        "seconds each test waits": asked.seconds,
        "seconds": {"model": model, "tests": alone, "eval": whole},
        "seconds beside them, of an instance": (whole - model - alone) * asked.workers / len(rows),
        f"eval / (model + tests) (bound {BOUND}, for tests of that length)": whole / (model + alone),
    }
    print(json.dumps(found, indent=2))
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
