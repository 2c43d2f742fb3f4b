"""Play on the nodes of a Ray cluster, where one machine is not enough.

One Ray actor a node (ray_actor.py) has a connection to the endpoint and sandboxes of its own, on the engines that
DOCKER_HOST named where `ray start` was given; --engine is for the driver, which grades. Actors write into the
evaluation's folder, which all nodes share, so a killed evaluation goes on as ever, with Ray or without.

Before anything is played, every actor checks its node: the version of this package, the folder, the images, the
endpoint. Ray starts an actor that dies again, a few times; its episodes begin again on another one, from their
journals. A node whose check fails after something went wrong there is used no more.

Not covered: nodes that join later, and the death of Ray's head, which ends the driver (the same command goes on).
"""

import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any  # Ray has no types

from aem_swe.errors import AemSweError, ClusterError, ConfigError
from aem_swe.eval.swebench.journal import Journal
from aem_swe.eval.swebench.play import Stopped, Turned
from aem_swe.eval.swebench.played import Played
from aem_swe.eval.swebench.ray_actor import Actor, Work, claims, write_claim
from aem_swe.tasks.grading import Problem
from aem_swe.types import Termination

CPUS, RESTARTS = 0.1, 3
"""That an actor asks Ray for (it waits for an endpoint and containers); a node that offers less is not played on."""
POLL_S, ANSWER_S, CLOSE_S, RESTART_S, CHECK_S = 1.0, 10.0, 20.0, 120.0, 600.0
_ALONE = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 10**8}  # a Ray for this and nothing else
_START = "ray start --head on one machine, ray start --address=HOST:6379 on the others, then --ray HOST:6379"


class Lost(Exception):
    """A call to an actor that is not there, or not any more."""


class Away(Lost):
    """It may come back: Ray starts it again."""


@dataclass(slots=True, eq=False)
class Node:
    """An actor, as the driver knows it."""

    name: str
    actor: Any
    busy: int = 0
    lost: bool = False


class RayPlayer:
    """A Player. Safe to share between threads."""

    def __init__(self, nodes: Sequence[Node], places: int, work: Work) -> None:
        """places: for episodes, on every node."""
        self.nodes, self.places = nodes, places
        self._work = work
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._last_lost = ""

    def check(self) -> None:
        """Let all nodes check themselves at once. Raises what the first of them says, or ClusterError."""
        import ray

        refs = [node.actor.check.remote() for node in self.nodes]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=CHECK_S)
        for node, ref in zip(self.nodes, refs, strict=True):
            try:
                answer(ref, ANSWER_S if ref in ready else 0.0)
            except AemSweError as error:
                raise type(error)(f"node {node.name}: {error}") from None
            except Lost as error:
                raise ClusterError(f"node {node.name}: {error}; see `ray status`, and that aem-swe is there") from None

    def play(self, run: int, problem: Problem, turned: Turned) -> Played:
        """Play to an end, again on another node where one fails. Raises Stopped, or ClusterError without any node."""
        reasons: list[str] = []
        last = None
        while len(reasons) <= self._work.retries.episodes:
            with self._place(last) as node:
                outcome = self._attempt(node, run, problem, turned)
                usable = (isinstance(outcome, Played) and outcome.patch is not None) or self._usable(node)
            if isinstance(outcome, Played):
                if usable:
                    return outcome
                outcome = Lost(outcome.reason)  # it was the node that failed its attempts
            elif usable and isinstance(outcome, AemSweError):
                raise outcome
            reasons.append(f"node {node.name}: {outcome}")
            last = node
        reason = f"lost with its node {len(reasons)} times, the last was {reasons[-1]}"
        with closing(Journal(self._work.folder / f"run_{run}" / problem.task.id / "journal.jsonl")) as journal:
            lost = (journal.lost.prompt_tokens, journal.lost.completion_tokens, journal.lost_requests)
            return Played(None, str(Termination.INFRASTRUCTURE_ERROR), reason, journal.attempt, 0, 0, 0, *lost, {})

    @contextmanager
    def _place(self, avoid: Node | None) -> Iterator[Node]:
        """A place on the node that has least to do; waits for one."""
        with self._changed:
            while not (free := [node for node in self.nodes if not node.lost and node.busy < self.places]):
                if all(node.lost for node in self.nodes):
                    raise ClusterError(f"no node is left (the last: {self._last_lost}); mend them, then go on")
                self._changed.wait()
                if self._closed.is_set():
                    raise Stopped
            node = min(free, key=lambda one: (one is avoid, one.busy))
            node.busy += 1
        try:
            yield node
        finally:
            with self._changed:
                node.busy -= 1
                self._changed.notify_all()

    def _attempt(self, node: Node, run: int, problem: Problem, turned: Turned) -> Played | AemSweError | Lost:
        import ray

        claim = uuid.uuid4().hex
        try:
            write_claim(self._work.claim_file(run, problem), claim)
            ref = node.actor.play.remote(run, problem, claim)
            while not ray.wait([ref], timeout=POLL_S)[0]:
                if self._closed.is_set():
                    raise Stopped
                with suppress(Lost):
                    for tokens in answer(node.actor.turned.remote(claim)):
                        turned(*tokens)
            played, rest = answer(ref)
        except (AemSweError, Lost) as error:
            return error
        except Stopped:
            if self._closed.is_set():
                raise
            return Lost("it ended the episode")
        for tokens in rest:
            turned(*tokens)
        assert isinstance(played, Played)
        return played

    def _usable(self, node: Node) -> bool:
        """Whether the node, where something went wrong, can play on; waits for an actor that Ray starts again."""
        import ray

        until = time.monotonic() + RESTART_S
        while not self._closed.wait(POLL_S):
            try:
                answer(node.actor.check.remote(), RESTART_S)
                return True
            except (AemSweError, Lost) as error:
                if isinstance(error, Away) and time.monotonic() < until:
                    continue
                with self._changed:
                    node.lost, self._last_lost = True, f"node {node.name}: {error}"
                    self._changed.notify_all()
                ray.kill(node.actor)
                return False
        raise Stopped

    def close(self) -> None:
        """Let every actor remove its containers, for a while; then end them, and wait for `play` to return."""
        import ray

        self._closed.set()
        with self._changed:
            self._changed.notify_all()
        try:
            if refs := [node.actor.close.remote() for node in self.nodes if not node.lost]:
                ray.wait(refs, num_returns=len(refs), timeout=CLOSE_S)
        finally:
            for node in self.nodes:
                ray.kill(node.actor)
            with self._changed:
                self._changed.wait_for(lambda: not any(one.busy for one in self.nodes), CLOSE_S)


def answer(ref: Any, timeout_s: float = ANSWER_S) -> Any:
    """What an actor returned. Raises what it raised, or Lost where it does not answer."""
    import ray

    try:
        return ray.get(ref, timeout=timeout_s)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        kind = Away if isinstance(error, ray.exceptions.ActorUnavailableError) else Lost
        raise kind(lines[-1] if "Traceback" in str(error) else lines[0]) from None


@contextmanager
def open_ray_player(address: str, work: Work, *, workers: int) -> Iterator[RayPlayer]:
    """Yield a player on the nodes of a Ray, every one of which can play.

    address: of a cluster, as ray.init takes it; "local" starts Ray on this machine. workers: on all nodes together.
    Raises ConfigError, ClusterError, or what a node's check says, in one line.
    """
    with _joined(address), claims(work.claims):
        import ray

        there = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU", 0) >= CPUS][:workers]
        if not there:
            raise ConfigError(f"no node of this Ray offers a CPU; {_START}")
        places = -(-workers // len(there))
        player = RayPlayer([_start(node, places, work) for node in there], places, work)
        try:
            player.check()
            yield player
        finally:
            player.close()


def _start(node: dict[str, Any], places: int, work: Work) -> Node:
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    made = ray.remote(num_cpus=CPUS, max_restarts=RESTARTS, max_concurrency=2 * places + 2)(Actor)  # and questions
    there = NodeAffinitySchedulingStrategy(node_id=node["NodeID"], soft=False)
    name = f"{node['NodeName']} ({node['NodeManagerHostname']})"
    return Node(name, made.options(scheduling_strategy=there).remote(work))


@contextmanager
def _joined(address: str) -> Iterator[None]:
    """A connection to Ray, or a Ray, for as long as it is needed."""
    ended = signal.getsignal(signal.SIGTERM)
    import ray

    try:
        host, colon, port = address.removeprefix("ray://").rpartition(":")
        if colon and port.isdecimal():  # Ray itself would ask again for minutes
            socket.create_connection((host, int(port)), timeout=ANSWER_S).close()
        ray.init(address, log_to_driver=False, logging_level="ERROR", **(_ALONE if address == "local" else {}))
    except (RuntimeError, ValueError, OSError) as error:
        what = " ".join(str(error).split())[:200]
        raise ConfigError(f"--ray {address!r} does not answer ({what}); {_START}") from None
    try:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, ended)  # which Ray takes for itself
        yield
    finally:
        ray.shutdown()
