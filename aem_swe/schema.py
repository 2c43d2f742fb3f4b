"""The keys of a recipe with their defaults (here and nowhere else) and what each may be.

Reading, merging and the one-line errors are in config.py. The sections `sampling` and `cluster` are in schema_*.py.
"""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from aem_swe.schema_cluster import Cluster, cluster_problem
from aem_swe.schema_sampling import Sampling, sampling_problem
from aem_swe.section import Count, CountOrZero, NotNegative, Positive, Section


class Model(Section):
    path: str = "builtin/demo-policy"
    """A Hugging Face checkpoint folder, or a policy that ships with the package; engine=rllm: also a hub's name."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the arithmetic; weights and optimiser states are float32 in either case."""
    gradient_checkpointing: bool = False


class Data(Section):
    source: str = "demo"
    """demo, or a path: rows of R2E-Gym or SWE-bench (parquet, jsonl, json), or a folder of Harbor tasks. Or games:
    alfworld or alfworld_small (generated), alfworld:PATH (downloaded)."""
    held_out: str = ""
    """The same for evaluations; empty: the demo's held-out tasks."""
    reward: Literal["hardened", "r2e", "swebench"] = "hardened"
    """docs/grading.md. r2e, swebench: the originals' own, for rows of R2E-Gym and SWE-bench."""
    leave_out_verified: bool = False
    """Leave out the repositories that SWE-bench Verified has (DeepSWE did)."""
    pool: Count = 16
    """Training tasks that are repeated, epoch after epoch."""
    seed: CountOrZero | None = None
    """Which tasks; None: the run's seed."""


class Agent(Section):
    definition: str = "demo"
    """A folder in agents/."""
    action_format: Literal["xml", "json"] | None = None
    """None: the definition's own."""
    history: Literal["keep_thinking", "strip_thinking"] = "keep_thinking"
    max_steps: Count = 12
    response_budget: Count = 640
    """Tokens of an episode after its first prompt, observations included; also the constant of seq-sum-over-budget."""
    max_response_tokens: Count | None = 56
    """Cap of one response; None (DeepSWE): what is left. A cut response ends its episode (token_budget)."""
    max_format_errors: Count | None = None
    trajectory_timeout_s: Positive | None = None


class SandboxSection(Section):
    kind: Literal["local", "docker", "rllm", "r2egym"] = "local"
    """sandbox=docker is short for sandbox.kind=docker. rllm: a backend of rLLM's; r2egym: DeepSWE's own environment."""
    backend: str = "docker"
    """rllm: docker, modal, daytona or local. r2egym: docker or kubernetes."""
    memory_mb: Count = 256
    processes: Count = 48
    disk_mb: Count = 32
    command_timeout_s: Positive = 10.0
    max_output: Count = 20_000
    retries: CountOrZero = 2
    workers: Count = 4
    """Threads for tools; as many more for rewards (engine=local)."""
    engines: tuple[str, ...] = ()
    """docker: addresses (unix://, tcp://, ssh://) used as one pool; empty: DOCKER_HOST, else this machine's engine."""
    image: str = ""
    """docker: for tasks without an image of their own; empty: the one that `aem-swe sandbox build` makes."""
    cpus: NotNegative = 0.0
    """docker: cores of one container; 0: all."""
    warm: CountOrZero = 8
    """docker: containers that are kept started ahead of the rollout."""
    starts: Count = 4
    """docker: containers that one engine starts at a time; about twice its cores."""
    engine_wait_s: Positive = 60.0
    """docker: how long to wait for an engine that has gone away."""


class Algorithm(Section):
    advantage: Literal["leave_one_out", "grpo", "mean_baseline"] = "leave_one_out"
    loss: Literal["ppo", "gspo"] = "ppo"
    gspo_unit: Literal["response", "trajectory"] = "trajectory"
    clip_low: NotNegative = 0.2
    clip_high: NotNegative = 0.28
    aggregation: Literal["token-mean", "seq-mean-token-mean", "seq-sum-over-budget"] = "seq-sum-over-budget"
    kl_coefficient: NotNegative = 0.0
    """Weight of the k3 KL loss against the frozen starting policy; 0 (DeepSWE): no reference is loaded."""
    overlong_buffer: CountOrZero = 0
    """DAPO's soft punishment over the last so many tokens of the budget, in the advantages only; 0: none."""
    filter: Annotated[Literal["mask", "drop", "off"], BeforeValidator(lambda v: "off" if v is False else v)] = "mask"
    """YAML reads a bare off as False."""
    layout: Literal["trajectory", "turn"] = "trajectory"
    """Training rows: one growing row per trajectory, or one row per turn (needed by strip_thinking)."""


class Aem(Section):
    enabled: bool = False
    lam: NotNegative = Field(default=1.0, alias="lambda")
    group: Literal["trained", "all"] = "trained"
    entropy_source: Literal["policy", "surprisal"] = "policy"
    """surprisal (engine=rllm): minus the rollout's log-probs, for runs with cluster.recompute_old_logprobs=false."""
    analysis: Annotated[Literal["off", "rise", "fall"], BeforeValidator(lambda v: "off" if v is False else v)] = "off"
    """Analysis A of the paper (engine=local): alpha chooses the responses that are trained, and weighs none."""


class Optimizer(Section):
    lr: Positive = 1e-6
    weight_decay: NotNegative = 0.01
    beta1: Annotated[NotNegative, Field(lt=1)] = 0.9
    beta2: Annotated[NotNegative, Field(lt=1)] = 0.999
    grad_clip: Positive = 1.0
    warmup_steps: CountOrZero = 0


class Trainer(Section):
    steps: Count = 40
    minibatches: Count = 1
    """Optimiser updates per step; each takes whole prompts (engine=rllm: rows balanced by length)."""
    micro_batch: Count = 16
    """Rows per forward pass of scoring and update."""
    threads: Count = 1
    """CPU threads of torch."""
    eval_every: CountOrZero = 0
    """Held-out evaluation every so many steps, before the first and after the last; 0: never."""
    eval_tasks: Count = 64
    eval_rollouts: Count = 2
    eval_protocol: str = ""
    """A protocol in eval/: evaluations as `aem-swe eval` makes them, on SWE-bench's rows. Empty: as in training."""
    save_every: CountOrZero = 10
    keep_checkpoints: Count = 2
    profile: bool = True
    """Record spans in run_dir/spans.jsonl, for `aem-swe profile`."""


def _has_images(*sources: str) -> bool:
    """alfworld, alfworld_small: games in processes of their own (worlds/)."""
    return any(source.partition(":")[0] not in ("", "demo", "alfworld", "alfworld_small") for source in sources)


class Recipe(Section):
    """All keys of a run."""

    recipe: str = ""  # its name, set by load_recipe
    engine: Literal["local", "rllm"] = "local"
    """local: the embedded one, one process on one device. rllm: rLLM, verl and vLLM on a Ray cluster."""
    run_dir: str = ""
    """Where the run is kept; empty: runs/<recipe>."""
    seed: CountOrZero = 1
    model: Model = Model()
    data: Data = Data()
    agent: Agent = Agent()
    sandbox: SandboxSection = SandboxSection()
    sampling: Sampling = Sampling()
    algorithm: Algorithm = Algorithm()
    aem: Aem = Aem()
    optimizer: Optimizer = Optimizer()
    trainer: Trainer = Trainer()
    cluster: Cluster = Cluster()

    @model_validator(mode="after")
    def _consistent(self) -> "Recipe":
        a, budget, local = self.algorithm, self.agent.response_budget, self.engine == "local"
        bad = sampling_problem(
            self.sampling,
            advantage=a.advantage,
            minibatches=self.trainer.minibatches,
            pool=self.data.pool,
            local=local,
        )
        if bad:
            raise ValueError(bad)
        if self.aem.analysis != "off" and not self.aem.enabled:
            bad = f"aem.analysis {self.aem.analysis} chooses responses by AEM's alpha; add aem.enabled=true"
        elif a.overlong_buffer > budget:
            bad = f"algorithm.overlong_buffer {a.overlong_buffer} is more than agent.response_budget {budget}; use less"
        elif self.trainer.eval_every and self.data.source != "demo" and not self.data.held_out:
            bad = "trainer.eval_every needs held-out tasks; name them in data.held_out, or use trainer.eval_every=0"
        elif self.trainer.eval_protocol and not (self.data.held_out and self.sandbox.kind == "docker"):
            bad = "trainer.eval_protocol needs SWE-bench's rows in data.held_out and sandbox=docker; give both"
        elif self.sandbox.kind == "r2egym" and self.data.source == "demo":
            bad = "sandbox.kind r2egym plays R2E-Gym's rows; name them in data.source"
        elif self.sandbox.kind == "local" and _has_images(self.data.source, self.data.held_out):
            bad = "data.source and data.held_out have images, which local sandboxes do not run; use sandbox=docker"
        elif self.agent.history == "strip_thinking" and a.layout == "trajectory":
            bad = "agent.history strip_thinking makes no growing row; use algorithm.layout=turn"
        bad = bad or (self._local_cannot() if local else self._rllm_cannot())
        if bad:
            raise ValueError(bad)
        return self

    def _local_cannot(self) -> str:
        """What of the recipe the embedded engine would have to ignore, in one line, or nothing."""
        c = self.cluster
        asked = {
            f"{c.nodes} nodes": c.nodes > 1,
            f"{c.gpus_per_node} GPUs": c.gpus_per_node > 1,
            "cluster.mode fully_async": c.mode == "fully_async",
            "cluster.recompute_old_logprobs=false": not c.recompute_old_logprobs,
            "aem.entropy_source surprisal": self.aem.entropy_source == "surprisal",
            "keys of cluster.verl and cluster.rllm": bool(c.verl or c.rllm),
        }
        if not any(asked.values()):
            return ""
        wanted = ", ".join(what for what, given in asked.items() if given)
        return (
            f"engine local is one process on one device and cannot run {self.model.path} as this recipe wants"
            f" ({wanted}); use engine=rllm, or the recipe demo"
        )

    def _rllm_cannot(self) -> str:
        """What of the recipe rLLM and verl have no counterpart for, in one line, or nothing."""
        c, a = self.cluster, self.algorithm
        default = {"model.device": "auto", "trainer.threads": 1, "trainer.micro_batch": 16, "sampling.cohorts": 2,
                   "sandbox.workers": 4}  # fmt: skip
        given = {
            "model.device": self.model.device,
            "trainer.threads": self.trainer.threads,
            "trainer.micro_batch": self.trainer.micro_batch,
            "sampling.cohorts": self.sampling.cohorts,
            "sandbox.workers": self.sandbox.workers,
        }
        only_local = [f"{key}={value}" for key, value in given.items() if value != default[key]]
        if only_local:
            return f"engine rllm has no use for {', '.join(only_local)}; leave it out"
        if self.aem.enabled and self.aem.entropy_source == "policy" and not c.recompute_old_logprobs:
            return (
                "aem.enabled has no entropies with cluster.recompute_old_logprobs=false; use true, or the one-sample"
                " stand-in aem.entropy_source=surprisal"
            )
        not_there = {
            f"aem.analysis {self.aem.analysis}": self.aem.analysis != "off",
            "sampling.max_rounds above 1 (with cluster.mode=fully_async, rLLM itself plays on)": (
                self.sampling.max_rounds > 1
            ),
            "trainer.minibatches above 1 with cluster.mode=fully_async": (
                self.trainer.minibatches > 1 and c.mode == "fully_async"
            ),
            "algorithm.layout turn": a.layout == "turn",
            "algorithm.gspo_unit response": a.loss == "gspo" and a.gspo_unit == "response",
            "sampling.drop_uniform_groups outside cluster.mode=fully_async": (
                self.sampling.drop_uniform_groups and c.mode == "sync"
            ),
        }
        for what, wanted in not_there.items():
            if wanted:
                return f"{what} is not there with engine rllm; leave it out, or use engine=local"
        return cluster_problem(c, row_tokens=c.max_prompt_tokens + self.agent.response_budget)
