"""What a container is created with: its limits, and nothing that it does not need."""

from dataclasses import dataclass
from typing import Any

from docker.types import LogConfig

from aem_swe.sandboxes._bundle import Bundle
from aem_swe.sandboxes.base import SandboxLimits
from aem_swe.sandboxes.reaper import labels_of_this_process

_CAPABILITIES = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "KILL"]
"""What root in an image needs to work with files and processes of its own container; everything else is dropped."""


@dataclass(frozen=True, slots=True)
class ContainerSpec:
    """All that distinguishes one container from another."""

    image: str
    limits: SandboxLimits
    cpus: float
    run: str
    lifetime_s: float


def container_config(api: Any, bundle: Bundle, spec: ContainerSpec) -> dict[str, object]:
    """The body of the engine's create call. api: half of the SDK's low-level client has no types."""
    limits = spec.limits
    memory, disk = limits.memory_mb << 20, limits.disk_mb << 20
    scratch = f"rw,exec,nosuid,nodev,size={disk},mode=1777"
    host = api.create_host_config(
        binds=[f"{pack.volume}:{pack.mounted_at}:ro" for pack in bundle.packs],
        network_mode="none",
        mem_limit=memory,
        memswap_limit=memory,  # a limit of memory alone allows as much again in swap
        pids_limit=limits.processes + 1,
        nano_cpus=int(spec.cpus * 1e9) if spec.cpus else None,
        cap_drop=["ALL"],
        cap_add=_CAPABILITIES,
        security_opt=["no-new-privileges"],
        tmpfs={"/tmp": scratch},
        shm_size=disk,
        # System V segments outlive their processes and count as memory of nobody that could be killed for it
        sysctls={"kernel.shmmax": str(disk), "kernel.shmall": str(disk // 4096)},
        log_config=LogConfig(type="none"),  # its streams carry the conversation with PID 1
    )
    return dict(
        api.create_container_config(
            image=spec.image,
            entrypoint=list(bundle.command),
            command=[str(memory), str(limits.processes + 1), str(disk)],
            hostname="sandbox",
            user="0:0",
            working_dir="/",
            stdin_open=True,
            tty=False,
            labels=labels_of_this_process(spec.run, spec.lifetime_s),
            host_config=host,
        ),
        StopSignal="SIGKILL",  # PID 1 handles no signal, so that nothing inside can end it
        StdinOnce=True,
        AttachStdin=True,
        AttachStdout=True,
        AttachStderr=True,
        Healthcheck={"Test": ["NONE"]},
    )
