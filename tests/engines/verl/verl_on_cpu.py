"""Real verl workers without a GPU, for tests only: VERL_USE_EXTERNAL_MODULES=verl_on_cpu VERL_PLATFORM=cpu.

verl imports this in every process. It registers a CPU platform (verl 0.9), takes gloo where verl would take nccl, lets
the FSDP engine serve the device "cpu", and gives torch.cpu the memory statistics that verl logs. No numerics change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import verl.utils.distributed as distributed
from verl.plugin.platform.platform_base import PlatformBase
from verl.plugin.platform.platform_manager import PlatformRegistry


@PlatformRegistry.register(platform="cpu")
class CpuPlatform(PlatformBase):
    device_name = "cpu"
    vendor_name = "cpu"
    device_module = torch.cpu

    def is_available(self) -> bool:
        return True

    def is_platform_available(self, use_smi_check: bool = False) -> bool:
        return not torch.cuda.is_available()

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None: ...

    def synchronize(self, device_index: int | None = None) -> None: ...

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None: ...

    def empty_cache(self) -> None: ...

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return (None, None)

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None: ...

    def profiler_stop(self) -> None: ...

    def ray_resource_name(self) -> str:
        return "GPU"  # a pretended one: verl's pools then need no change

    def ray_noset_envvars(self) -> list[str]:
        return []

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> None:
        return None


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


distributed.get_nccl_backend = lambda: "gloo"
_original = distributed.initialize_global_process_group_ray
distributed.initialize_global_process_group_ray = lambda timeout_second=None, backend=None: _original(
    timeout_second, backend or "gloo"
)
_serve_cpu()
_count_no_memory()
_pack_without_flash_attention()
