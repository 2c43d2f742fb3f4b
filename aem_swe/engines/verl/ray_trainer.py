"""AEM for verl's RayPPOTrainer: verl 0.8, and 0.9 with `trainer.use_v1=False`.

    from verl.trainer.ppo.ray_trainer import RayPPOTrainer
    AEMTrainer = with_aem(RayPPOTrainer)          # or any subclass of it, the fully-async ones included

`python -m aem_swe.engines.verl.ray_trainer +aem.lambda=1.0 trainer.use_v1=False ...` is verl's own command with AEM in
it: same configuration, same keys.
"""

from typing import Any  # verl has no types

from aem_swe.engines.verl.borders import FIELD, find_borders
from aem_swe.engines.verl.rescale import rescale
from aem_swe.engines.verl.settings import read_settings, require_trained_group
from aem_swe.engines.verl.timers import recorded, require_recordable
from aem_swe.errors import ConfigError
from aem_swe.profiling import span

_ENTROPY = "aem_entropy"
"""verl pops `entropys` right after the pass; what has another name stays in the batch."""
_SAMPLED = "aem_sampled"
"""The mask of that moment: verl's rejection of rollouts may take tokens out of it before the update."""


def with_aem(trainer: type) -> type:
    """Return a subclass of a RayPPOTrainer class that rescales advantages by AEM right before the actor's update."""

    class AEMTrainer(trainer):  # type: ignore[misc]  # the base is only known at run time
        def __init__(self, config: Any, *arguments: Any, **named: Any) -> None:
            self._aem = read_settings(config)
            require_trained_group(self._aem)
            require_entropies(config, self._aem.enabled and self._aem.entropy_source == "policy")
            self._began = require_recordable(trainer, self._aem.profile)
            super().__init__(config, *arguments, **named)

        def fit(self, *arguments: Any, **named: Any) -> Any:
            if self._aem.profile is None:
                return super().fit(*arguments, **named)  # which may be a coroutine
            with recorded(self, self._aem.profile, self._began):
                return super().fit(*arguments, **named)

        def _compute_old_log_prob(self, batch: Any) -> Any:
            output, mfu = super()._compute_old_log_prob(batch)
            if self._aem.enabled and self._aem.entropy_source == "policy":
                output.batch[_ENTROPY] = output.batch["entropys"]
                output.batch[_SAMPLED] = batch.batch["response_mask"].clone()
            return output, mfu

        def _update_actor(self, batch: Any) -> Any:
            if not self._aem.enabled:
                return super()._update_actor(batch)
            with span("aem"):
                metrics = self._rescale(batch.batch, batch.non_tensor_batch)
            output = super()._update_actor(batch)
            logged = output.meta_info.setdefault("metrics", {})
            logged.update({name: [value] for name, value in metrics.items()})  # verl takes the mean of a list
            return output

        def _rescale(self, tensors: Any, others: Any) -> dict[str, float]:
            if self._aem.entropy_source == "surprisal":
                entropy_BT, sampled_BT = -tensors["rollout_log_probs"], tensors["response_mask"]
            else:
                entropy_BT, sampled_BT = tensors.pop(_ENTROPY), tensors.pop(_SAMPLED)
            ids_BT, exact = find_borders(sampled_BT, others.get(FIELD, [None] * len(sampled_BT)))
            rescaled = rescale(
                tensors["advantages"], entropy_BT, tensors["response_mask"], others["uid"], self._aem,
                response_id_BT=ids_BT, exact=exact,
            )  # fmt: skip
            tensors["advantages"] = rescaled.advantages_BT
            return rescaled.metrics

    AEMTrainer.__name__ = AEMTrainer.__qualname__ = f"AEM{trainer.__name__}"
    return AEMTrainer


def require_pass(config: Any, needed: bool) -> None:
    """Raise ConfigError where the run has no pass that could give entropies."""
    correction = config.algorithm.get("rollout_correction") or {}
    if needed and correction.get("bypass_mode", False):
        raise ConfigError(
            "algorithm.rollout_correction.bypass_mode leaves out the old-log-prob pass, from which AEM takes its "
            "entropies; set it to false, or use aem.entropy_source=surprisal"
        )


def require_entropies(config: Any, needed: bool) -> None:
    """Raise ConfigError where verl's own run has no such pass, or no log-probs to stand in for the entropies."""
    require_pass(config, needed)
    stands_in = (config.get("aem") or {}).get("entropy_source") == "surprisal"
    if stands_in and not config.actor_rollout_ref.rollout.get("calculate_log_probs", False):
        raise ConfigError(
            "aem.entropy_source=surprisal needs the rollout's log-probs; set "
            "actor_rollout_ref.rollout.calculate_log_probs=true"
        )


def task_runner(home: Any) -> Any:
    """verl's task runner as a Ray actor class whose trainer is AEM's. home: the module with TaskRunner in it.

    Ray sends verl 0.9's runner by value, with the names that its code uses, so these are changed here; 0.8's by name,
    so there they are changed where it runs.
    """
    if hasattr(home.TaskRunner, "__ray_metadata__"):
        home.RayPPOTrainer = with_aem(home.RayPPOTrainer)
        return home.TaskRunner
    import ray

    class AEMTaskRunner(home.TaskRunner):  # type: ignore[misc]  # a class of verl's
        def run(self, config):  # type: ignore[no-untyped-def]  # sent by value, and a type would not be there
            from verl.trainer import main_ppo

            from aem_swe.engines.verl.ray_trainer import with_aem

            main_ppo.RayPPOTrainer = with_aem(main_ppo.RayPPOTrainer)
            return super().run(config)

    return ray.remote(num_cpus=1)(AEMTaskRunner)


def main() -> None:
    """verl's command line for RayPPOTrainer, with AEM."""
    from verl.trainer import main_ppo

    try:
        from verl.trainer import main_ppo_v0 as home  # verl 0.9 moved the runner there
    except ImportError:
        home = main_ppo
    original = main_ppo.run_ppo

    def run_ppo(config: Any, task_runner_class: Any = None) -> None:
        read_settings(config)
        if config.trainer.get("use_v1", False):
            raise ConfigError(
                "trainer.use_v1 is true, and this command is for RayPPOTrainer; use trainer.use_v1=False, or verl's own"
                " command with trainer.v1.trainer_mode=aem_sync"
            )
        original(config, task_runner_class=task_runner(home))

    main_ppo.run_ppo = run_ppo
    main_ppo.main()


if __name__ == "__main__":
    from aem_swe.engines.verl.ray_trainer import main as command  # by its name, so that Ray can send what it makes

    command()
