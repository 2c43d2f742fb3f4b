"""AEM inside verl's own trainers, without rLLM.

verl recomputes log-probs and entropies once per step and throws the entropies away before the update; no advantage
estimator ever sees them. So AEM hooks in where both are there: it keeps the entropies of that pass, and rescales the
advantages, whichever estimator made them, right before the actor's update.

    RayPPOTrainer (verl 0.8; 0.9 with trainer.use_v1=False)     ray_trainer.py: with_aem(RayPPOTrainer), or its command
    V1 trainer (verl 0.9's default)                             v1.py: trainer.v1.trainer_mode=aem_sync

Settings are a section of verl's configuration, for example `+aem.lambda=1.0` (settings.py). borders.py: how an agent
loop says where its turns end. denominators.py: which settings of verl give the embedded engine's loss. timers.py: where
the time of a step goes.
"""
