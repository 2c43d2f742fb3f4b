"""Real verl workers without a GPU, for tests only: VERL_USE_EXTERNAL_MODULES=verl_on_cpu VERL_PLATFORM=cpu.

verl imports this in every process. It takes gloo where verl would take nccl, lets the FSDP engine serve the device
"cpu", gives torch.cpu the memory statistics that verl logs and, for verl 0.9, registers verl_platform.py. No numerics
change.
"""

import importlib.util
from typing import Any

import torch
import verl.utils.distributed as distributed


def _serve_cpu() -> None:
    from verl.workers.engine import EngineRegistry
    from verl.workers.engine.fsdp.transformer_impl import FSDPEngineWithLMHead

    EngineRegistry.register(model_type="language_model", backend=["fsdp", "fsdp2"], device="cpu")(FSDPEngineWithLMHead)


def _count_no_memory() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ("max_memory_allocated", "max_memory_reserved", "memory_allocated", "memory_reserved"), lambda *_, **__: 0
    )
    nothing |= dict.fromkeys(("empty_cache", "reset_peak_memory_stats"), lambda *_, **__: None)
    for name, function in nothing.items():
        if not hasattr(torch.cpu, name):
            setattr(torch.cpu, name, function)


def _pack_without_flash_attention() -> None:
    import verl.utils.attention_utils as attention
    from torch.nn import functional

    def index_first_axis(values: Any, index: Any) -> Any:
        return values[index]

    def unpad_input(hidden: Any, mask: Any, unused: Any = None) -> Any:
        lengths = mask.sum(-1, dtype=torch.int32)
        index = torch.nonzero(mask.flatten(), as_tuple=False).flatten()
        packed = hidden.reshape(-1, *hidden.shape[2:])[index]
        ends = functional.pad(torch.cumsum(lengths, 0, dtype=torch.int32), (1, 0))
        return packed, index, ends, int(lengths.max()), lengths

    def pad_input(hidden: Any, index: Any, batch: int, length: int) -> Any:
        out = hidden.new_zeros(batch * length, *hidden.shape[1:])
        out[index] = hidden
        return out.view(batch, length, *hidden.shape[1:])

    attention._get_attention_functions = lambda: (index_first_axis, pad_input, None, unpad_input)


if importlib.util.find_spec("verl.plugin"):  # verl 0.9, which asks for the platform when its engines are imported
    import verl_platform  # noqa: F401
distributed.get_nccl_backend = lambda: "gloo"
_original = distributed.initialize_global_process_group_ray
distributed.initialize_global_process_group_ray = lambda timeout_second=None, backend=None: _original(
    timeout_second, backend or "gloo"
)
_serve_cpu()
_count_no_memory()
_pack_without_flash_attention()
