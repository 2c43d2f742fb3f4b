"""What verl divides a loss by, and the settings that make it the embedded engine's `seq-sum-over-budget`.

DeepSWE divides the token sum of a trajectory by a constant budget and takes the mean over all trajectories, masked ones
included. In verl 0.8 and 0.9 alike that is, under `actor_rollout_ref.actor`,

    loss_agg_mode=seq-mean-token-sum-norm   loss_scale_factor=<budget>   clip_ratio_c=1e9

as long as every row is one trajectory and none is dropped: verl divides by `ppo_mini_batch_size * rollout.n`, the rows
that an update is CONFIGURED to have, so masked rows (and padding rows) count. It sums over micro-batches and ranks.
- Without loss_scale_factor verl takes the width of the padded responses, which changes from batch to batch.
- clip_ratio_c: verl's dual clip (3 by default) bounds the loss of a negative advantage; DeepSWE's formula does not.
- Dropped trajectories, and trajectories of several rows, make rows and trajectories differ: `loss_scale_factor` below.
- `token-mean` needs nothing: verl divides by the trained tokens of the update on all ranks, as DAPO says.
- `seq-mean-token-mean` (GRPO, GSPO) divides by the same configured rows, masked ones included, and takes a row for a
  sequence: the embedded engine's where every row is one trajectory and none is dropped. It knows no scale factor.
- loss_mode=gspo: verl 0.8 always averages per row first (seq-mean-token-mean), whatever loss_agg_mode says; 0.9 obeys
  it. Its ratio is per row, the embedded engine's gspo_unit=trajectory where a row is a trajectory.
"""


def loss_scale_factor(budget: int, *, trajectories: int, rows: int) -> float:
    """Return the loss_scale_factor that makes verl divide one update by budget * trajectories.

    budget: tokens. trajectories: those that count in the update, masked ones included. rows: what the update is
    configured to have, ppo_mini_batch_size * rollout.n; V1 fills its batch up to a multiple of that.
    """
    return budget * trajectories / rows
