"""One training step of engine=local, and one turn of its sampler, at full length.

Shapes: B row, T token, N sampled token or trajectory.
"""

import torch
from gpu_meter import Figures, Meter
from gpu_scene import Workload, make_recipe, make_trajectories, random_model

from aem_swe.agents.loop import AskPolicy
from aem_swe.engines.batch import build_batch
from aem_swe.engines.local.generate import Sampler
from aem_swe.engines.local.model import enable_gradient_checkpointing
from aem_swe.engines.local.step import score_batch, update
from aem_swe.engines.update import judge, prepare, trajectory_advantages
from aem_swe.types import Response, Termination, ToolCall, Trajectory, Turn


def measure_step(work: Workload, device: torch.device) -> Figures:
    """From finished trajectories to new weights as the trainer does it, all rows in one micro-batch."""
    model = random_model(work, device)
    enable_gradient_checkpointing(model.network)
    recipe = make_recipe(work, micro_batch=work.rows)
    o = recipe.optimizer
    optimizer = torch.optim.AdamW(model.parameters, lr=o.lr, betas=(o.beta1, o.beta2), weight_decay=o.weight_decay)
    trajectories = make_trajectories(work, rows=work.rows, tokens=work.tokens, turns=work.turns)
    before = [parameter.detach().to("cpu", copy=True) for parameter in model.parameters]
    meter = Meter(device)
    batch = build_batch(trajectories, layout=recipe.algorithm.layout)
    with meter.stage("score"):
        scores = score_batch(model, batch, recipe)
    verdict = judge(trajectories, recipe.algorithm, drop_uniform_groups=False)
    advantages_N = trajectory_advantages(trajectories, batch, verdict, recipe.algorithm, budget=work.tokens)
    with meter.stage("aem"):
        prepared = prepare(
            batch, verdict, advantages_N, scores.logprobs_BT, scores.entropy_BT, recipe.algorithm, recipe.aem
        )
    with meter.stage("update"):
        statistics = update(model, optimizer, prepared, None, [torch.arange(work.prompts)], recipe)
    moved = sum(int((now.cpu() != old).sum()) for now, old in zip(model.parameters, before, strict=True))
    return {
        "step/score_s": meter.seconds("score"),
        "step/aem_s": meter.seconds("aem"),
        "step/update_s": meter.seconds("update"),
        "step/loss": statistics.policy_loss,
        "step/grad_norm": statistics.grad_norm,
        "step/moved_share": moved / sum(old.numel() for old in before),
        "step/peak_gib": meter.peak_gib(),
    }


def measure_sampler(work: Workload, device: torch.device) -> Figures:
    """Prefill all rows, decode them up to the full context, and score what was sampled."""
    model = random_model(work, device)
    # As in a run: the sampler must keep its cache although the training recomputes the layers.
    enable_gradient_checkpointing(model.network)
    rows = make_trajectories(work, rows=work.rows, tokens=work.tokens - work.new_tokens, turns=1)
    prompts = [row.turns[0].prompt_ids + row.turns[0].response_ids for row in rows]
    meter = Meter(device)
    sampler = Sampler(model, rows=work.rows, context=work.tokens, temperature=1.0, seed=0)
    with meter.stage("prefill"):
        sampler.respond_batch([AskPolicy((), prompt, 1, (0, row)) for row, prompt in enumerate(prompts)])
    with meter.stage("decode"):
        responses = sampler.respond_batch(
            [AskPolicy((), prompt, work.new_tokens, (1, row)) for row, prompt in enumerate(prompts)]
        )
    peak_gib = meter.peak_gib()
    trajectories = [_one_turn(prompt, r) for prompt, r in zip(prompts, responses, strict=True) if r is not None]
    batch = build_batch(trajectories, layout="trajectory")
    scores = score_batch(model, batch, make_recipe(work, micro_batch=work.rows))
    error_N = (scores.logprobs_BT - batch.rollout_logprobs_BT)[batch.response_mask_BT].abs()
    return {
        "sampler/prefill_s": meter.seconds("prefill"),
        "sampler/tokens_per_s": len(error_N) / meter.seconds("decode"),
        "sampler/error_mean": float(error_N.mean()),
        "sampler/error_max": float(error_N.max()),
        "sampler/peak_gib": peak_gib,
    }


def _one_turn(prompt: tuple[int, ...], response: Response) -> Trajectory:
    turn = Turn(
        prompt_ids=prompt,
        response_ids=response.response_ids,
        logprobs=response.logprobs,
        finish_reason=response.finish_reason,
        policy_version=response.policy_version,
        text=response.text,
        action=ToolCall("finish", {}),
    )
    return Trajectory("random", 0, 0, (turn,), Termination.FINISHED, 1.0, "tests")
