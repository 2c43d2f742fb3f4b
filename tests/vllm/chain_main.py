"""verl's command line with with_aem(RayPPOTrainer) as its trainer."""

from typing import Any  # verl has no types

import hydra
from verl.trainer import main_ppo, main_ppo_v0

from aem_swe.engines.verl.ray_trainer import with_aem

# before the runner is sent to its process: Ray takes along by value what its code refers to
main_ppo_v0.RayPPOTrainer = with_aem(main_ppo_v0.RayPPOTrainer)


@hydra.main(config_path="pkg://verl.trainer.config", config_name="ppo_trainer", version_base=None)
def main(config: Any) -> None:
    main_ppo.run_ppo(config, task_runner_class=main_ppo_v0.TaskRunner)


if __name__ == "__main__":
    main()
