"""`aem-swe verify dynamics`: what one step of every rule does to the entropy; cli_verify.py registers it."""

import json
import os
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console

from aem_swe import __version__
from aem_swe.cli_files import image_format, require_different_files
from aem_swe.errors import ConfigError

if TYPE_CHECKING:
    from aem_swe.engines.local.dynamics.policies import Policy
    from aem_swe.engines.local.dynamics.setting import Setting
    from aem_swe.eval.preregistered import Preregistration

Json = dict[str, Any]  # JSON values
SHIPPED = "builtin/demo-policy"
_OUT = Path("runs/dynamics")


def dynamics(
    overrides: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Of the recipe.")] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny, with the shipped policy: does it all run?")] = False,
    policies: Annotated[
        list[str] | None, typer.Option("--policies", metavar="DIR", help="A warm-started policy; may be repeated.")
    ] = None,
    make: Annotated[int, typer.Option("--make", min=0, help="Warm-start so many policies first (hours of CPU).")] = 0,
    first_seed: Annotated[int | None, typer.Option("--first-seed", min=0, help="Of --make. [1]")] = None,
    batches: Annotated[int | None, typer.Option("--batches", min=1, help="Per policy and regime.")] = None,
    late_steps: Annotated[
        int | None, typer.Option("--late-steps", min=0, help="Training before 'late'; 0: none.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Rows, made policies; a rerun goes on there. [runs/dynamics]")
    ] = None,
    data: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write every result there.")] = None,
    plot: Annotated[Path | None, typer.Option("--plot", metavar="FILE", help="Draw the rules (.png, .svg).")] = None,
    log: Annotated[
        Path | None, typer.Option("--log", metavar="FILE", help="Add the setting and its result to this list.")
    ] = None,
    source: Annotated[
        Path | None, typer.Option("--from", metavar="FILE", help="Judge a file of --json again; measures nothing.")
    ] = None,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="The one run of eval/preregistered.yaml; nothing else is confirmed.")
    ] = False,
) -> None:
    """Measure what one SGD step of AEM, of its controls and of the masks of Analysis A does to the policy's entropy.

    Same weights, same batch, exact entropies on fixed states. Verdicts are about policies: at least five, warm-started
    independently, or they stay undecided.
    """
    image = image_format(plot)
    require_different_files({"--json": data, "--plot": plot, "--log": log})
    if source and source != data:
        require_different_files({"--from": source, "--json": data, "--plot": plot, "--log": log})
    before = _logged(log)
    if source:
        from aem_swe.eval.dynamics_result import read_result

        numbers = (first_seed, batches, late_steps)
        if overrides or quick or policies or make or confirm or out or any(one is not None for one in numbers):
            raise ConfigError(
                "--from reads a result and measures nothing; leave out KEY=VALUE, --quick, --policies, --make,"
                " --first-seed, --batches, --late-steps, --out and --confirm"
            )
        result = read_result(source)
    else:
        registered = _registered(quick) if confirm else None
        setting = _setting(quick, registered, overrides or [], batches, late_steps)
        first = 1 if first_seed is None else first_seed
        result = _measure(setting, registered, policies or [], list(range(first, first + make)), out or _OUT)
    _show(result)
    _write(result, data, plot, image, log, before)


def _measure(
    setting: "Setting", registered: "Preregistration | None", policies: list[str], made: list[int], out: Path
) -> Json:
    """Make the policies of the seeds `made`, and probe these and the given ones."""
    from aem_swe.engines.local.dynamics.policies import find_policies, make_policies, require_distinct
    from aem_swe.engines.local.dynamics.probe import claim_folder, probe_policies
    from aem_swe.eval.dynamics_result import make_result
    from aem_swe.eval.preregistered import require_exploratory, require_registered
    from aem_swe.metrics import held

    if registered and not (made or policies):
        made = list(registered.seeds)
    given = find_policies(policies or ([] if made else [SHIPPED]))
    seeds = [policy.seed for policy in given] + made
    require_distinct(seeds)
    if registered:
        require_registered(registered, setting.as_json(), seeds)
    else:
        require_exploratory(seeds)
    setting.probe_recipe(SHIPPED, seeds[0])  # a recipe that does not fit is refused before anything is made
    say = Console(stderr=True, highlight=False).print
    with held(out, "--out"):
        claim_folder(out, setting)
        units = [*given, *make_policies(made, out, setting, say)]
        rows = probe_policies(units, out, setting, say)
    return make_result(_about(setting, units, confirmatory=registered is not None), rows)


def _registered(quick: bool) -> "Preregistration":
    from aem_swe.eval.preregistered import preregistered_file, read_preregistration

    if quick:
        raise ConfigError("--quick and --confirm exclude each other; leave one out")
    return read_preregistration(preregistered_file())


def _setting(
    quick: bool,
    registered: "Preregistration | None",
    overrides: list[str],
    batches: int | None,
    late_steps: int | None,
) -> "Setting":
    from aem_swe.engines.local.dynamics.setting import QUICK, Setting

    start = Setting.from_json(dict(registered.setting)) if registered else QUICK if quick else Setting()
    changes: Json = {"overrides": (*start.overrides, *overrides)}
    changes |= {} if batches is None else {"batches": batches}
    changes |= {} if late_steps is None else {"late_steps": late_steps}
    return replace(start, **changes)


def _about(setting: "Setting", units: "list[Policy]", *, confirmatory: bool) -> Json:
    from aem_swe.metrics import git_commit

    return {
        "aem_swe": __version__,
        "commit": git_commit(),
        "command": _command(setting, confirmatory=confirmatory),
        "date": date.today().isoformat(),
        "confirmatory": confirmatory,
        "setting": setting.as_json(),
        "policies": [{"name": unit.name, "seed": unit.seed} for unit in units],
    }


def _show(result: Json) -> None:
    from aem_swe.eval import dynamics_table as tables
    from aem_swe.eval.dynamics import judge_claims

    rows, errors = result["batches"], result["estimator"]
    console = Console(highlight=False, width=None if Console().is_terminal else 180)
    console.print(tables.rules_table(rows), markup=False)
    console.print(tables.claims_table(judge_claims(rows, confirmatory=result["confirmatory"])), markup=False)
    for drift in result["drift"]:
        console.print(tables.drift_line(drift), markup=False)
    if errors:
        console.print(
            f"linear estimate against {errors['steps']} real SGD steps: largest error {errors['real_step']:.1%},"
            f" against backpropagation {errors['backpropagation']:.2%}; twice half a step against a whole one:"
            f" {errors['half_step']:.1%}"
        )


def _command(setting: "Setting", *, confirmatory: bool) -> str:
    """What makes such a result again; the policies are named beside it."""
    if confirmatory:
        return "aem-swe verify dynamics --confirm"
    sizes = f"--batches {setting.batches} --late-steps {setting.late_steps}"
    return " ".join(["aem-swe verify dynamics", *setting.overrides, sizes])


def _write(
    result: Json,
    data: Path | None,
    plot: Path | None,
    image: Literal["png", "svg"],
    log: Path | None,
    before: list[Json],
) -> None:
    from aem_swe.eval.dynamics_result import to_text, without_batches
    from aem_swe.eval.report import write_whole

    if data:
        write_whole(data, to_text(result), "--json")
        print(f"written: {data}")
    if plot:
        from aem_swe.eval.dynamics_figure import draw_dynamics

        write_whole(plot, draw_dynamics(result["batches"], image), "--plot")
        print(f"written: {plot}")
    if log:
        same = ("setting", "policies", "confirmatory")
        others = [row for row in before if any(row.get(key) != result[key] for key in same)]
        lines = [json.dumps(row, allow_nan=False) + "\n" for row in [*others, without_batches(result)]]
        write_whole(log, "".join(lines), "--log")
        print(f"written: {log}")


def _logged(log: Path | None) -> list[Json]:
    """The lines of --log. Raises ConfigError, before anything is measured, for a file that is no such list."""
    if not log or not os.path.lexists(log):
        return []
    try:
        rows = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--log {str(log)!r} is no list of earlier settings ({error}); choose another file"
        ) from error
    if not all(isinstance(row, dict) and "setting" in row for row in rows):
        raise ConfigError(f"--log {str(log)!r} is no list of earlier settings; choose another file")
    return rows
