"""A model server over HTTP that plays by a script, for evaluations of the project's own SWE-bench instances.

python scripted_server.py ROWS PLAN LOG: PLAN is JSON, {instance id: behaviour} (and "containers of": the label of the
agents' containers); LOG gets one JSON line when a request
comes in and one when it is answered. Prints its port. It speaks chat completions, as any OpenAI-compatible server.

Behaviours of the agent: solve, fail (a change that helps nobody), empty (finishes at once), hang (tests never end),
unfinished (the fix, and never a `finish`), hold (as solve, but its second answer takes HOLD_S the first time),
malformed (a call that is none, then as solve), chatty (looks around ten times, then as solve).
Faults of the server, each at the second turn, after which it plays `solve`: slow, busy (429 twice), broken (500 once),
drop (closes the connection once), torn (half an answer once), nonsense (no JSON once), long (more tokens than asked,
once), cut (finish_reason length), down (500 from the second turn on), kills (ends the containers of all agents once).
"""

import json
import subprocess
import sys
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

HOLD_S = 60.0
SLOW_S = 2.0
FAULTS = ("slow", "busy", "broken", "drop", "torn", "nonsense", "long", "cut", "down", "kills")


def call(name: str, **arguments: str) -> str:
    inside = "".join(f"<parameter={key}>{value}</parameter>\n" for key, value in arguments.items())
    return f"Let me see.\n<function={name}>\n{inside}</function>"


def bash(command: str) -> str:
    return call("execute_bash", cmd=command)


def patching(patch: str) -> str:
    return bash(f"cat > /tmp/p.diff <<'END_OF_PATCH'\n{patch}\nEND_OF_PATCH\ngit apply /tmp/p.diff && echo applied")


def hanging(row: dict[str, Any]) -> str:
    """Make the file that the fix changes wait for ever when it is imported."""
    file = next(line[6:] for line in row["patch"].splitlines() if line.startswith("+++ b/"))
    return bash(f"printf 'import time\\ntime.sleep(10000)\\n' | cat - {file} > /tmp/new && cp /tmp/new {file}")


def script(behaviour: str, row: dict[str, Any]) -> list[str]:
    solve = [bash("ls"), patching(row["patch"]), call("finish", command="submit")]
    return {
        "fail": [bash("ls"), bash("echo 'x = 1' > unrelated.py"), call("finish", command="submit")],
        "empty": [call("finish", command="submit")],
        "hang": [hanging(row), call("finish", command="submit")],
        "unfinished": [patching(row["patch"]), *[bash("date +%N")] * 200],
        "malformed": ["I would rather talk.", "<function=fly></function>", *solve],
        "chatty": [*[bash("ls")] * 10, *solve],
    }.get(behaviour, solve)


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, rows: Path, plan: Path, log: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.rows = [json.loads(line) for line in rows.read_text().splitlines()]
        self.plan_file = plan
        self.log = log.open("a")
        self.lock = threading.Lock()
        self.seen: Counter[tuple[str, int]] = Counter()

    @property
    def plan(self) -> dict[str, str]:
        """Read anew, so that a test can mend what it broke."""
        return dict(json.loads(self.plan_file.read_text()))

    def note(self, **entry: Any) -> None:
        with self.lock:
            self.log.write(json.dumps(entry) + "\n")
            self.log.flush()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, *arguments: Any) -> None:
        pass

    def answer(self, status: int, content: bytes, missing: int = 0) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content) + missing))
        if status in (429, 500):
            self.send_header("retry-after-ms", "5")
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = bool(missing)

    def do_GET(self) -> None:
        self.answer(200, json.dumps({"object": "list", "data": [{"id": "scripted", "object": "model"}]}).encode())

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        messages = body["messages"]
        text = "\n".join(str(message["content"]) for message in messages if message["role"] == "user")
        row = next((row for row in self.server.rows if row["problem_statement"].strip() in text), None)
        if row is None:  # the probe
            return self.complete(body, "Yes.", "stop")
        turn = sum(message["role"] == "assistant" for message in messages)
        name = row["instance_id"]
        behaviour = self.server.plan[name]
        with self.server.lock:
            self.server.seen[name, turn] += 1
            times = self.server.seen[name, turn]
        self.server.note(asked=name, turn=turn, seed=body["seed"])
        if not self.misbehave(behaviour, row, turn, times, body):
            lines = script(behaviour, row)
            self.complete(body, lines[min(turn, len(lines) - 1)], "stop")
        self.server.note(answered=name, turn=turn, seed=body["seed"])

    def misbehave(self, behaviour: str, row: dict[str, Any], turn: int, times: int, body: dict[str, Any]) -> bool:
        """True where the request was dealt with."""
        if turn < 1:
            return False
        if behaviour == "down":
            self.answer(500, b'{"error": {"message": "out of order"}}')
        elif turn != 1:
            return False
        elif behaviour == "hold" and times == 1:
            time.sleep(HOLD_S)
            return False
        elif behaviour == "slow":
            time.sleep(SLOW_S)
            return False
        elif behaviour == "kills" and times == 1:
            kill_containers(self.server.plan["containers of"])
            return False
        elif behaviour == "busy" and times <= 2:
            self.answer(429, b'{"error": {"message": "too many requests"}}')
        elif behaviour == "cut":
            self.complete(body, "Let me think about", "length")
        elif times > 1:
            return False
        elif behaviour == "broken":
            self.answer(500, b"<html>Internal\x1b[31m Server Error</html>")
        elif behaviour == "drop":
            self.close_connection = True
            self.connection.close()
        elif behaviour == "torn":
            self.answer(200, b'{"choices": [{"mess', missing=100)
        elif behaviour == "nonsense":
            self.answer(200, b'{"choices": []}')
        elif behaviour == "long":
            self.complete(body, "x " * 10, "stop", tokens=body["max_tokens"] + 1)
        else:
            return False
        return True

    def complete(self, body: dict[str, Any], text: str, finish: str, tokens: int | None = None) -> None:
        used = {"prompt_tokens": len(json.dumps(body["messages"])) // 4, "completion_tokens": tokens or len(text) // 4}
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": finish}
        made = {"id": "1", "object": "chat.completion", "model": body["model"], "choices": [choice], "usage": used}
        self.answer(200, json.dumps(made).encode())


def kill_containers(run: str) -> None:
    """End every container of agents of a run."""
    label = f"label=org.aem-swe.run={run}"
    found = subprocess.run(["docker", "ps", "-q", "--filter", label], capture_output=True, text=True, check=True)
    if names := found.stdout.split():
        subprocess.run(["docker", "kill", *names], capture_output=True, check=False)  # some have gone by themselves


if __name__ == "__main__":
    server = Server(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
    print(server.server_port, flush=True)
    server.serve_forever()
