"""Play every instance of every run, grade each patch while the others are still played, and keep what came of it.

Worker threads play; a patch goes to the official harness as soon as it is there. Whatever is finished is on the disk:
the same call goes on after a kill at any moment, asks no answered turn again and grades no judged patch again. Where
nothing but infrastructure errors comes back, the evaluation stops instead of going through all instances like that.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Protocol as Interface

from aem_swe.errors import EvaluationStopped, RunError
from aem_swe.eval.swebench.harness import OfficialGrader, Verdict
from aem_swe.eval.swebench.harness_process import HarnessDied
from aem_swe.eval.swebench.plan import Plan, Unit
from aem_swe.eval.swebench.play import Player, Stopped
from aem_swe.eval.swebench.played import Played, read_played
from aem_swe.eval.swebench.predictions import resolved_by_summary, write_predictions
from aem_swe.eval.swebench.results import Result, Status, result_line
from aem_swe.eval.swebench.verdicts import patch_digest


class Progress(Interface):
    """Who is told; called from any thread."""

    def started(self, run: int, instance_id: str) -> None: ...

    def turned(self, run: int, instance_id: str, prompt_tokens: int, completion_tokens: int) -> None: ...

    def finished(self, result: Result) -> None: ...


class Evaluator:
    """One call of `run` works off what a plan still has to do."""

    def __init__(
        self,
        plan: Plan,
        player: Player | None,
        progress: Progress,
        done: Mapping[Unit, Result],
        ending: threading.Event,
    ) -> None:
        """player: None where every unit is done. done: what was finished before, and stays. ending: set when what is
        under way is no result any more."""
        self._plan, self._player, self._progress, self._ending = plan, player, progress, ending
        self._problems = {problem.task.id: problem for problem in plan.problems}
        self._changed = threading.Condition()
        self._left = deque(unit for unit in plan.units if unit not in done)
        self._unfinished_of = dict.fromkeys(range(1, plan.protocol.runs + 1), 0)
        for run, _ in self._left:
            self._unfinished_of[run] += 1
        self._continued = {run for run, _ in self._left}
        self._resolved = {unit for unit, result in done.items() if result.status is Status.RESOLVED}
        self._graders: dict[int, OfficialGrader] = {}
        self._opening = threading.Lock()
        self._held: list[Result] = []
        """Infrastructure errors in a row: results only once something else has worked."""
        self._error: BaseException | None = None

    def run(self) -> None:
        """Do all of it. Raises EvaluationStopped where the world does not get better, and whatever a worker met."""
        threads = [
            threading.Thread(target=self._work, name=f"aem-swe-eval-{number}", daemon=True)
            for number in range(min(self._plan.workers, len(self._left)))
        ]
        with ExitStack() as resources:
            resources.callback(self._close_graders)
            if self._left:  # the harness takes seconds to start, in which the first instances are played
                resources.callback(self._warm(self._left[0][0]).join)
            resources.callback(self._ending.set)
            for thread in threads:
                thread.start()
            for run in self._unfinished_of:
                with self._changed:
                    while self._unfinished_of[run] and self._error is None:
                        self._changed.wait()
                    if self._error is not None:
                        raise self._error
                    if not any(self._unfinished_of.values()):
                        self._release()
                self._finish_run(run)

    def _finish_run(self, run: int) -> None:
        """Predictions, the harness's own summary, and no process for this run any more."""
        patches = write_predictions(self._plan, run)
        resolved = {name for number, name in self._resolved if number == run}
        if patches and (run in self._continued or resolved_by_summary(self._plan, run) != resolved):
            self._grader(run).write_report(patches)
        with self._opening:
            grader = self._graders.pop(run, None)
        if grader is not None:
            grader.close()

    def _work(self) -> None:
        """What one worker thread does."""
        try:
            while not self._ending.is_set():
                try:
                    run, name = self._left.popleft()
                except IndexError:
                    return
                self._progress.started(run, name)
                played = read_played(self._plan.folder / f"run_{run}" / name)
                if played is None:
                    played = self._play(run, name)
                self._judge(run, name, played)
        except Stopped:
            return
        except BaseException as error:  # handed to the thread that waits for the workers
            self._fail(error)

    def _play(self, run: int, name: str) -> Played:
        def turned(prompt_tokens: int, completion_tokens: int) -> None:
            self._progress.turned(run, name, prompt_tokens, completion_tokens)

        assert self._player is not None
        return self._player.play(run, self._problems[name], turned)

    def _judge(self, run: int, name: str, played: Played) -> None:
        if played.patch is None:
            return self._finish(
                self._result(run, name, played, Verdict(Status.INFRASTRUCTURE, played.reason, 0.0, False, 0))
            )

        def graded(future: "Future[Verdict]") -> None:
            if self._ending.is_set():
                return
            if error := future.exception():
                self._fail(error)
            else:
                self._finish(self._result(run, name, played, future.result()))

        self._grader(run).grade(name, played.patch).add_done_callback(graded)

    def _result(self, run: int, name: str, played: Played, verdict: Verdict) -> Result:
        price = self._plan.prices
        paid = (
            played.prompt_tokens + played.lost_prompt_tokens,
            played.completion_tokens + played.lost_completion_tokens,
        )
        return Result(
            instance_id=name,
            run=run,
            status=verdict.status,
            reason=" ".join(text for text in (verdict.reason or played.reason, verdict.note) if text),
            termination=played.termination,
            patch_sha256=patch_digest(played.patch or ""),
            attempts=played.attempts,
            turns=played.turns,
            prompt_tokens=played.prompt_tokens,
            completion_tokens=played.completion_tokens,
            lost_tokens=played.lost_prompt_tokens + played.lost_completion_tokens,
            lost_requests=played.lost_requests,
            cost=None if price is None else sum(n * p for n, p in zip(paid, price, strict=True)) / 1e6,
            seconds={**played.seconds, "grading": verdict.seconds},
        )

    def _finish(self, result: Result) -> None:
        """Keep a result; an infrastructure error waits until something else works, or all is done."""
        try:
            with self._changed:
                if result.status is Status.INFRASTRUCTURE:
                    self._held.append(result)
                    if len(self._held) >= self._plan.give_up_after:
                        raise EvaluationStopped(
                            f"{len(self._held)} instances in a row ended in infrastructure errors, the last one in: "
                            f"{result.reason}; mend that, then give the same command again"
                        )
                else:
                    self._release()
                    self._keep(result)
                self._unfinished_of[result.run] -= 1
                self._changed.notify_all()
        except (EvaluationStopped, RunError) as error:  # a future would swallow it
            self._fail(error)
        self._progress.finished(result)

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            self._error = self._error or error
            self._changed.notify_all()

    def _release(self) -> None:
        for waiting in self._held:
            self._keep(waiting)
        self._held.clear()

    def _keep(self, result: Result) -> None:
        path = self._plan.folder / "results.jsonl"
        try:
            with path.open("ab") as file:
                file.write(result_line(result))
            if result.status is Status.RESOLVED:
                self._resolved.add((result.run, result.instance_id))
        except OSError as error:
            raise RunError(f"{path} cannot be written ({error.strerror}); free space, then go on") from error

    def _grader(self, run: int) -> OfficialGrader:
        """The harness of a run, in the run's folder; opened when it is first needed. Raises Stopped at the end."""
        with self._opening:
            if run not in self._graders:
                if self._ending.is_set():
                    raise Stopped
                self._graders[run] = self._open_grader(run)
            return self._graders[run]

    def _open_grader(self, run: int) -> OfficialGrader:
        grading = self._plan.protocol.grading
        return OfficialGrader(
            self._plan.folder / f"run_{run}",
            self._plan.rows,
            model=self._plan.model,
            run_id=f"run_{run}",
            workers=self._plan.grading_workers,
            timeout_s=grading.timeout_s,
            cache=self._plan.folder / "grades",
            engines=self._plan.engines,
            network=grading.network,
            memory_mb=grading.memory_mb,
            retries=self._plan.protocol.retries.gradings,
        ).__enter__()

    def _warm(self, run: int) -> threading.Thread:
        def start() -> None:
            with contextlib.suppress(HarnessDied, Stopped):  # whoever grades meets it too, and tries again
                self._grader(run).process.start()

        thread = threading.Thread(target=start, name="aem-swe-harness-start", daemon=True)
        thread.start()
        return thread

    def _close_graders(self) -> None:
        with self._opening:
            for grader in self._graders.values():
                grader.close()
            self._graders.clear()
