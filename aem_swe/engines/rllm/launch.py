"""Start a run on a Ray cluster: rLLM's AgentTrainer with our backend, our flow and our rewards.

rLLM's launcher names its backend class in the code of its Ray actor, and sends that actor's class to the cluster by
value: to change the class in the driver's modules, or in the actor, changes nothing. So the actor's class is built here
with another global of the name `VerlBackend`.
"""

import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any  # rLLM and Ray have no types
from unittest import mock

import ray
from rllm.trainer.verl import verl_launcher

from aem_swe.engines.rllm.backend import AEMVerlBackend
from aem_swe.errors import RunError

_NAME = "VerlBackend"


def task_runner(backend: type = AEMVerlBackend) -> Any:
    """rLLM's VerlTaskRunner as a Ray actor class whose trainer gets `backend`; it closes its flow at the end.

    Raises RunError where rLLM's launcher is not built as this one expects.
    """
    base = verl_launcher.VerlTaskRunner.__ray_metadata__.modified_class.__ray_actor_class__
    original = base.run
    if _NAME not in original.__code__.co_names or _NAME not in original.__globals__:
        raise RunError(
            f"this rLLM's VerlTaskRunner.run does not use {_NAME}, so its backend cannot be chosen; use the revision"
            " that `aem-swe doctor` names"
        )
    changed = types.FunctionType(
        original.__code__,
        {**original.__globals__, _NAME: backend},
        original.__name__,
        original.__defaults__,
        original.__closure__,
    )
    changed.__kwdefaults__ = original.__kwdefaults__

    def run(self: Any, *arguments: Any, agent_flow: Any = None, **named: Any) -> None:
        if agent_flow is not None:
            named["agent_flow"] = agent_flow
        try:
            changed(self, *arguments, **named)
        finally:
            if hasattr(agent_flow, "close"):
                agent_flow.close()

    return ray.remote(num_cpus=1)(type("AEMTaskRunner", (base,), {"run": run, "__module__": __name__}))


@contextmanager
def aem_backend(backend: type = AEMVerlBackend) -> Iterator[None]:
    """Within it, rLLM's `AgentTrainer(backend="verl", ...).train()` trains with AEM.

    The three lines for a script of one's own:

        from aem_swe.engines.rllm.launch import aem_backend
        with aem_backend():
            AgentTrainer(config=config, backend="verl", ...).train()
    """
    with mock.patch.object(verl_launcher, "VerlTaskRunner", task_runner(backend)):
        yield
