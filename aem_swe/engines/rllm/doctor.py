"""Does a cluster have what a recipe with engine=rllm needs? What can be told without starting a run.

Not covered: the network between nodes, and whether all nodes have the same packages and see the same run folder.
"""

import importlib
import json
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError

from aem_swe.check import Check, room_for
from aem_swe.engines.paths import model_path
from aem_swe.engines.rllm.memory import GIB, QWEN3, Estimate, Shape, estimate, shape_of
from aem_swe.engines.rllm.versions import INSTALL, compare, folder_of, here
from aem_swe.errors import ConfigError
from aem_swe.schema import Recipe
from aem_swe.schema_cluster import Cluster

_GPU_GIB: Final = {
    "H200": 140.0,
    "H100": 79.0,
    "A100-80G": 79.0,
    "A100": 39.0,
    "B200": 178.0,
    "L40S": 44.0,
    "A10G": 22.0,
}
"""By Ray's accelerator type, where no GPU is in this machine to ask."""
_ASSUMED: Final = 79.0
_PATIENCE_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Machines:
    """What can be seen of the cluster."""

    gpus: int
    nodes_that_fit: int
    """Nodes with enough GPUs."""
    gpu_gib: float | None
    cpu_gib: float
    """Of the smallest node."""
    where: str
    error: str = ""


def examine_cluster(recipe: Recipe) -> list[Check]:
    """Run every check, the later ones also where an earlier one failed."""
    machines = _machines(recipe.cluster)
    shape, model = _model(recipe.model.path)
    checks = [_versions(), model, _ray(recipe.cluster, machines), _gpus(recipe.cluster, machines)]
    if shape is None:
        return checks
    memory = estimate(recipe, shape)
    return [*checks, *_memory(recipe, memory, machines), _disk(recipe, memory)]


def _versions() -> Check:
    found = here()
    chosen, differing = compare(found)
    if differing:
        return Check("versions", False, "; ".join(differing), f"{INSTALL} (docs/recipes.md: sets that were run)")
    return Check("versions", True, f"{chosen.name}, rllm {found['rllm']}: tried together ({chosen.tried})")


def _model(path: str) -> tuple[Shape | None, Check]:
    """The shape of the model and whether its files are here."""
    folder = Path(model_path(path))
    place = folder / "config.json"
    if not path:
        return None, Check("model", False, "model.path is empty", f"name a checkpoint folder, or one of {list(QWEN3)}")
    if not os.path.isfile(place):  # unlike Path.is_file, it says no to a name that is too long
        if os.path.isdir(folder):
            return None, Check("model", False, f"folder {path} has no config.json", "name a checkpoint folder")
        try:
            cached = try_to_load_from_cache(path, "config.json")
        except HFValidationError:
            cached = None
        if not isinstance(cached, str):
            shape = QWEN3.get(path.rstrip("/").rpartition("/")[2])
            known = "; its shape is known" if shape else ""
            remedy = f"hf download {path}" if not path.startswith(("/", ".")) else "name a checkpoint folder"
            return shape, Check("model", False, f"{path} is neither a folder nor in the hub's cache{known}", remedy)
        place = Path(cached)
    try:
        shape = shape_of(json.loads(place.read_text()))
    except (ConfigError, ValueError, RecursionError, OSError) as error:
        what = str(error).partition(";")[0]
        return None, Check("model", False, f"{place}: {what}", "name the checkpoint of a dense decoder")
    weights = list(place.parent.glob("*.safetensors"))
    finding = f"{path}, {shape.parameters / 1e9:.1f}B parameters, {len(weights)} files of weights"
    return shape, Check("model", bool(weights), finding, f"fetch the weights too: hf download {path}")


def _machines(cluster: Cluster) -> Machines:
    """Ask Ray where there is an address, else look at this machine."""
    address = cluster.ray_address or os.environ.get("RAY_ADDRESS", "") or _running_here()
    if address and folder_of("ray") is not None:
        return _of_ray(address, cluster)
    import torch

    count = torch.cuda.device_count()
    size = torch.cuda.get_device_properties(0).total_memory / GIB if count else None
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return Machines(count, int(count >= cluster.gpus_per_node), size, memory, "this machine")


def _running_here() -> str:
    """The Ray cluster that this machine belongs to, which a run without an address joins; empty: none."""
    note = Path("/tmp/ray/ray_current_cluster")  # Ray's own, made by `ray start`
    try:
        return note.read_text().strip()
    except OSError:
        return ""


def _of_ray(address: str, cluster: Cluster) -> Machines:
    ray = importlib.import_module("ray")
    started = not ray.is_initialized()
    try:
        _require_listener(address)
        if started:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        return Machines(0, 0, None, 0.0, f"Ray at {address}", error=" ".join(str(error).split())[:200])
    finally:
        if started and ray.is_initialized():
            ray.shutdown()
    return machines_of(nodes, f"Ray at {address}", cluster.gpus_per_node)


def _require_listener(address: str) -> None:
    """Raise OSError where nobody listens there; Ray itself would ask again for minutes."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_PATIENCE_S).close()


def machines_of(nodes: list[Mapping[str, float]], where: str, gpus_per_node: int) -> Machines:
    """What Ray's resources of each node say; Ray gives 70% of a node's memory away as `memory`."""
    kinds = [key.partition(":")[2] for node in nodes for key in node if key.startswith("accelerator_type:")]
    sizes = [_GPU_GIB[kind] for kind in kinds if kind in _GPU_GIB]
    return Machines(
        gpus=int(sum(node.get("GPU", 0) for node in nodes)),
        nodes_that_fit=sum(node.get("GPU", 0) >= gpus_per_node for node in nodes),
        gpu_gib=min(sizes, default=None),
        cpu_gib=min((node.get("memory", 0) / 0.7 / GIB for node in nodes), default=0.0),
        where=where,
    )


def _ray(cluster: Cluster, machines: Machines) -> Check:
    start = (
        "ray start --head on one node, ray start --address=HOST:6379 on the others, then cluster.ray_address=HOST:6379"
    )
    if machines.error:
        return Check("Ray", False, f"{machines.where} does not answer ({machines.error})", start)
    if machines.where == "this machine":
        finding = "no address: a run starts Ray on this machine" + (
            f", not on {cluster.nodes} nodes" * (cluster.nodes > 1)
        )
        return Check("Ray", cluster.nodes == 1, finding, start)
    finding = f"{machines.where}: {machines.nodes_that_fit} nodes with {cluster.gpus_per_node} GPUs or more"
    return Check("Ray", machines.nodes_that_fit >= cluster.nodes, finding, f"add nodes until there are {cluster.nodes}")


def _gpus(cluster: Cluster, machines: Machines) -> Check:
    size = f" of {machines.gpu_gib:.0f} GiB" if machines.gpu_gib else ""
    finding = f"{machines.gpus}{size} at {machines.where}; the recipe wants {cluster.nodes} x {cluster.gpus_per_node}"
    return Check(
        "GPUs", machines.gpus >= cluster.gpus, finding, "use more machines, or lower cluster.nodes and its kin"
    )


def _memory(recipe: Recipe, memory: Estimate, machines: Machines) -> list[Check]:
    c = recipe.cluster
    gpu = machines.gpu_gib or _ASSUMED
    of = f"of {gpu:.0f} GiB" + ("" if machines.gpu_gib else " (assumed)")
    shares = f"states {memory.states:.1f}, gathered {memory.gathered:.1f}, activations {memory.activations:.1f}"
    row = c.max_prompt_tokens + recipe.agent.response_budget
    tokens = memory.cache_tokens(gpu, c.gpu_memory_utilization)
    rows = recipe.sampling.prompts * recipe.sampling.rollouts * c.tensor_parallel / c.generating
    checks = [
        Check(
            "update memory",
            memory.training <= gpu,
            f"about {memory.training:.0f} GiB {of}: {shares}, logits {memory.logits:.1f}",
            "use cluster.offload=true, more cluster.sequence_parallel, more GPUs, or a lower agent.response_budget",
        ),
        Check(
            "rollout memory",
            tokens >= row and memory.generating(gpu, c.gpu_memory_utilization) <= gpu,
            f"about {memory.generating(gpu, c.gpu_memory_utilization):.0f} GiB {of}: a server's cache holds "
            f"{max(tokens, 0):,} tokens, {max(tokens, 0) / row:.1f} whole rows; it gets {rows:.0f} at a time",
            "change cluster.gpu_memory_utilization, use cluster.offload=true or more cluster.tensor_parallel",
        ),
    ]
    if memory.node_cpu:
        finding = f"about {memory.node_cpu:.0f} GiB offloaded on a node of {machines.cpu_gib:.0f} GiB"
        good = memory.node_cpu <= 0.8 * machines.cpu_gib
        checks.append(Check("node memory", good, finding, "use more nodes, or cluster.offload=false"))
    return checks


def _disk(recipe: Recipe, memory: Estimate) -> Check:
    room = room_for(recipe.run_dir)
    kept = recipe.trainer.keep_checkpoints + 1 if recipe.trainer.save_every else 0
    needed = max(1.0, kept * memory.checkpoint)
    shared = "; all nodes have to see it" if recipe.cluster.nodes > 1 else ""
    at = f"{room.place}" + f", {room.problem}" * bool(room.problem)
    finding = f"{room.free_gib:.0f} GiB free at {at}, {needed:.0f} GiB for {kept} checkpoints{shared}"
    remedy = "choose another run_dir, or lower trainer.keep_checkpoints"
    return Check("disk", not room.problem and room.free_gib >= needed, finding, remedy)
