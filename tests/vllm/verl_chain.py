"""verl's command line with AEM in it, in a process of its own, on a machine without a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

from vllm_server import end, environment

from aem_swe.resources import resource

HERE = Path(__file__).parent
TIMEOUT_S = 900
"""Two to three minutes alone on two cores, nearly all of it imports. Where a worker dies, verl waits for ever."""
PROBLEMS, ROLLOUTS, STEPS = 3, 4, 3
"""Problems per step, rollouts of each, and steps that the data last for."""
PROMPT, RESPONSE = 256, 512


def write_inputs(folder: Path) -> None:
    """The data (one row per demo problem; STEPS batches) and the agent loop's name."""
    import pandas

    rows = [
        {
            "prompt": [{"role": "user", "content": "the episode has its own"}],
            "data_source": "demo",
            "reward_model": {"style": "rule", "ground_truth": ""},
            "extra_info": {"index": number},
        }
        for number in range(PROBLEMS * STEPS)
    ]
    pandas.DataFrame(rows).to_parquet(folder / "rows.parquet")
    (folder / "loops.yaml").write_text("- {name: demo, _target_: demo_agent_loop.DemoAgentLoop}\n")
    (folder / "batches").mkdir()


def overrides(folder: Path, steps: int) -> list[str]:
    actor, rollout = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
    return [
        "trainer.use_v1=False", "+aem.lambda=1.0", "algorithm.adv_estimator=rloo", "trainer.device=cpu",
        f"+aem.profile={folder / 'profile'}",
        f"actor_rollout_ref.model.path={resource('agents', 'demo/policy')}",
        "+actor_rollout_ref.model.override_config.attn_implementation=sdpa",
        "actor_rollout_ref.model.use_remove_padding=True",
        "actor_rollout_ref.model.enable_gradient_checkpointing=False",
        f"{actor}.strategy=fsdp2", f"{actor}.use_torch_compile=False", f"{actor}.fsdp_config.use_torch_compile=False",
        f"{actor}.fsdp_config.model_dtype=fp32", f"{actor}.optim.lr=1e-3", f"{actor}.ppo_mini_batch_size={PROBLEMS}",
        f"+{actor}.fsdp_config.mixed_precision={{param_dtype:fp32,reduce_dtype:fp32,buffer_dtype:fp32}}",
        f"{actor}.ppo_micro_batch_size_per_gpu={ROLLOUTS}", f"{rollout}.log_prob_micro_batch_size_per_gpu={ROLLOUTS}",
        f"{actor}.checkpoint.save_contents=[model,optimizer,extra,hf_model]",
        f"{rollout}.name=vllm", f"{rollout}.n={ROLLOUTS}", f"{rollout}.temperature=1.0", f"{rollout}.dtype=float32",
        f"{rollout}.calculate_log_probs=True", f"{rollout}.enforce_eager=True", f"{rollout}.free_cache_engine=False",
        f"+{rollout}.enable_sleep_mode=False", f"{rollout}.gpu_memory_utilization=0.2", f"{rollout}.max_num_seqs=16",
        f"{rollout}.max_model_len={PROMPT + RESPONSE}", f"{rollout}.max_num_batched_tokens={PROMPT + RESPONSE}",
        f"{rollout}.n_gpus_per_node=1", f"{rollout}.tensor_model_parallel_size=1", f"{rollout}.agent.num_workers=1",
        f"{rollout}.agent.default_agent_loop=demo", f"{rollout}.agent.agent_loop_config_path={folder / 'loops.yaml'}",
        f"{rollout}.checkpoint_engine.update_weights_bucket_megabytes=16", "reward.num_workers=1",
        f"data.train_files={folder / 'rows.parquet'}", f"data.val_files={folder / 'rows.parquet'}",
        "data.shuffle=False",
        f"data.train_batch_size={PROBLEMS}", f"data.max_prompt_length={PROMPT}", f"data.max_response_length={RESPONSE}",
        "data.dataloader_num_workers=0", "trainer.logger=[console,file]", "trainer.val_before_train=False",
        "trainer.test_freq=-1", "trainer.save_freq=1", "trainer.resume_mode=auto", "trainer.total_epochs=1",
        f"trainer.total_training_steps={steps}", "trainer.n_gpus_per_node=1", "trainer.nnodes=1",
        f"trainer.default_local_dir={folder / 'checkpoints'}",
        "+ray_kwargs.ray_init.address=local", "ray_kwargs.ray_init.num_cpus=8", "+ray_kwargs.ray_init.num_gpus=1",
        "+ray_kwargs.ray_init.include_dashboard=False",
    ]  # fmt: skip


def train(folder: Path, *, steps: int) -> list[dict[str, object]]:
    """Run the command up to step `steps`; return the metrics of the steps it took, each with its number."""
    metrics = folder / f"metrics_{steps}.jsonl"
    paths = [str(HERE), str(HERE.parent / "engines" / "verl"), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = environment() | {
        "PYTHONPATH": os.pathsep.join(paths),
        "VERL_USE_EXTERNAL_MODULES": "verl_on_cpu,vllm_on_cpu",
        "VERL_PLATFORM": "cpu",
        "VERL_FILE_LOGGER_PATH": str(metrics),
        "CHAIN_BATCHES": str(folder / "batches"),
    }
    command = ["timeout", "--kill-after=20", str(TIMEOUT_S), sys.executable, "-m", "aem_swe.engines.verl.ray_trainer"]
    log = folder / f"log_{steps}.txt"
    with open(log, "wb") as out:
        process = subprocess.Popen(
            [*command, *overrides(folder, steps)], cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True
        )
        try:
            code = process.wait(timeout=TIMEOUT_S + 60)
        finally:
            end(process, env)
    assert code == 0, f"exit {code}\n{log.read_text(errors='replace')[-6000:]}"
    return [{"step": row["step"], **row["data"]} for row in map(json.loads, metrics.read_text().splitlines())]
