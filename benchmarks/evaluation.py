"""What an evaluation costs beside the model and the tests: `aem-swe eval` against the tests alone, in one run.

    python benchmarks/evaluation.py --json benchmarks/results/evaluation.json

    tests   the eval_script of every instance with its reference fix applied, in containers that are already started
    eval    the whole command, from the start of its process to its report: 3 turns per instance against a server that
            answers at once, container starts, tools, diffs, official grading, pages

Both run the same instances with the same number of gradings at a time; the model's own seconds are added to the tests'.
The project's own tests take a second, those of SWE-bench minutes: each script is made to wait `--seconds` first, and
the ratio is for tests of that length (bound 1.15 for 30 s and 16 instances, start-up and report included). Needs a
Docker engine, swebench, and the images of `aem-swe sandbox build`.
"""

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
from ratios import Result, divided, lacking, parse, report

BOUND = 1.15
SIZES = {"instances": (16, 4), "workers": (4, 4), "seconds": (30, 3), "repeats": (1, 1)}
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


def missing_images(rows: list[dict[str, Any]]) -> str:
    """Return why the rows cannot be played, or nothing."""
    with contextlib.closing(docker.from_env()) as client:
        for row in rows:
            try:
                client.images.get(row["image"])
            except docker.errors.ImageNotFound:
                return f"needs the image {row['image']}; run aem-swe sandbox build"
    return ""


def main() -> int:
    arguments = parse(__doc__, SIZES, {"rows": "data/swe-bench-demo/rows.jsonl"})
    path, workers = Path(arguments.rows), arguments.workers
    reason = lacking("docker", "swebench") or ("" if path.is_file() else f"needs {path}; run aem-swe sandbox build")
    if reason:
        return report(Result("evaluation", skipped=reason), arguments)
    rows = [json.loads(line) for line in path.read_text().splitlines()][: arguments.instances]
    if reason := missing_images(rows):
        return report(Result("evaluation", skipped=reason), arguments)
    for row in rows:
        row["eval_script"] = row["eval_script"].replace(START, f"sleep {arguments.seconds}\n{START}", 1)
    seconds: dict[str, list[float]] = {"model": [], "tests": [], "eval": []}
    for _ in range(arguments.repeats):
        seconds["tests"].append(tests_alone(rows, workers))
        with tempfile.TemporaryDirectory() as folder:
            whole, model = evaluation(Path(folder), rows, workers)
        seconds["eval"].append(whole)
        seconds["model"].append(model)
    needed = [model + tests for model, tests in zip(seconds["model"], seconds["tests"], strict=True)]
    beside = [(whole - n) * workers / len(rows) for whole, n in zip(seconds["eval"], needed, strict=True)]
    tests = f"its model and tests of {arguments.seconds} s"
    ratio = divided("evaluation", "aem-swe eval", tests, seconds["eval"], needed, BOUND)
    details = {"instances": len(rows), "workers": workers, "seconds each test waits": arguments.seconds}
    details |= {"seconds": seconds, "seconds beside them, of an instance": beside}
    print(json.dumps(details, indent=2))
    return report(Result("evaluation", (ratio,), details), arguments)


if __name__ == "__main__":
    sys.exit(main())
