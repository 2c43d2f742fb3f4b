"""The program that games run in: `python server.py FD`, started by games.py.

textworld keeps its planner in a C library with global state and alfworld changes the environment, so both live here,
in three generations of processes:

    server     imports textworld and alfworld once
    template   one per game: loads it and stops before the first move (about a second for a large room)
    player     one per episode: a fork of its template, so it starts in milliseconds; killed without harm to any other

The server gets {"game": PATH, ...} and one end of a socket; the player at its end answers with one JSON object a line.
It is started with PYTHONHASHSEED=0. That is a precaution: textworld keeps facts in sets of strings, and nothing that it
says was seen to depend on their order.
"""

import json
import os
import random
import resource
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, cast  # Any: textworld has no types

MOST_TEMPLATES = 48
"""Games that are kept loaded; the one that was used longest ago goes first."""
MAX_MESSAGE = 1 << 16


@dataclass(frozen=True, slots=True)
class _Template:
    control: socket.socket


def main() -> None:
    control = socket.socket(fileno=int(sys.argv[1]))
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for templates and players
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the host's to handle: it hangs up
    load = _engine()
    templates: dict[str, _Template] = {}
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        if not message:
            return
        game = str(json.loads(message)["game"])
        for _ in range(2):  # a template that has died is made anew, once
            template = templates.pop(game, None) or _new_template(game, load, control, templates)
            templates[game] = template
            try:
                socket.send_fds(template.control, [message], descriptors)
                break
            except OSError:
                template.control.close()
                del templates[game]
        for descriptor in descriptors:
            os.close(descriptor)
        while len(templates) > MOST_TEMPLATES:
            templates.pop(next(iter(templates))).control.close()


def _new_template(
    game: str, load: Callable[[str], Any], control: socket.socket, others: dict[str, _Template]
) -> _Template:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork():
        theirs.close()
        return _Template(ours)
    for other in (control, ours, *(template.control for template in others.values())):
        other.close()
    _serve(game, load, theirs)


def _serve(game: str, load: Callable[[str], Any], control: socket.socket) -> NoReturn:
    """A template's life: the first request says its limits; each request becomes a player."""
    environment = None
    while True:
        message, descriptors, _, _ = socket.recv_fds(control, MAX_MESSAGE, 1)
        if not message:
            os._exit(0)
        request = json.loads(message)
        if environment is None:
            megabytes = int(request["memory_mb"]) << 20
            resource.setrlimit(resource.RLIMIT_DATA, (megabytes, megabytes))
            signal.alarm(int(request["load_s"]))  # the default action ends this process: whoever waits sees it hang up
            environment = load(game)
            signal.alarm(0)
        if os.fork() == 0:
            control.close()
            _play(environment, socket.socket(fileno=descriptors[0]), request)
        for descriptor in descriptors:
            os.close(descriptor)


def _engine() -> Callable[[str], Any]:
    """Import textworld and alfworld; return what loads a game file and takes it to its first observation."""
    import textworld  # type: ignore[import-not-found,unused-ignore]  # an extra
    from alfworld.agents.environment.alfred_tw_env import (  # type: ignore[import-not-found,unused-ignore]
        AlfredDemangler,
    )
    from textworld.envs import PddlEnv  # type: ignore[import-not-found,unused-ignore]

    def load(game: str) -> Any:
        wanted = textworld.EnvInfos(won=True, admissible_commands=True)
        environment = AlfredDemangler(PddlEnv(wanted), shuffle=False)
        environment.load(game)
        environment.reset()
        return environment

    return load


def _play(environment: Any, connection: socket.socket, request: dict[str, Any]) -> NoReturn:
    """An episode: say what there is to see, then carry out one command a line until the host hangs up."""
    resource.setrlimit(resource.RLIMIT_CPU, (int(request["cpu_s"]), int(request["cpu_s"])))
    random.seed(int(request.get("seed", 0)))
    lines = connection.makefile("rw", encoding="utf-8", newline="\n")
    state = environment.state
    expert = _Expert(environment, request["game"]) if request.get("expert") else None
    answer: dict[str, object] = {"pid": os.getpid(), "valid": True}
    while True:
        advice = expert.advise(state, answer) if expert else None
        answer |= {
            "feedback": state.feedback.strip(),
            "admissible": list(state["admissible_commands"]),
            "won": bool(state["won"]),
            "expert": advice,
        }
        try:
            lines.write(json.dumps(answer) + "\n")
            lines.flush()
            line = lines.readline()
        except OSError:
            line = ""
        if not line:
            os._exit(0)
        command = str(json.loads(line)["act"])
        valid = command in state["admissible_commands"]
        state, _, _ = environment.step(command)
        answer = {"command": command, "valid": valid}


class _Expert:
    """ALFWorld's hand-coded agent, asked the way its own wrapper asks it: the first move is a look."""

    def __init__(self, environment: Any, game: str) -> None:
        from alfworld.agents.expert import (  # type: ignore[import-not-found,unused-ignore]
            HandCodedAgentFailed,
            HandCodedAgentTimeout,
            HandCodedTWAgent,
        )

        environment.request_infos.facts = True
        # it indexes lists and tables without looking: IndexError and KeyError are how it says that it is lost
        self._lost = (HandCodedAgentFailed, HandCodedAgentTimeout, IndexError, KeyError)
        self._agent = HandCodedTWAgent(max_steps=200)
        self._agent.reset(game)

    def advise(self, state: Any, answer: dict[str, object]) -> str | None:
        """The next command; None where it has given up."""
        last = answer.get("command")
        if last is None:
            self._agent.observe(state.feedback)
            return "look"
        try:
            command = cast(str, self._agent.act(state, 0, state["won"], str(last)))
        except self._lost:
            return None
        return command if command in state["admissible_commands"] else "look"


if __name__ == "__main__":
    main()
