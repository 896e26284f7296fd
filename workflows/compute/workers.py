"""What work is run on: the machine's and the cluster's resources, a training's workers, and what runs work there.

`InProcess` runs it in this process, for tests and notebooks; `compute.OnRay` on Ray.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from pipelines.names import Device
from workflows.compute import machine
from workflows.config import UsageError


@dataclass(frozen=True)
class Worker:
    """What a training loop is told of where it runs."""

    rank: int
    world: int
    report: Callable[[dict], None]  # rank 0's reach the driver, those of others nobody
    num_cpus: int
    device: Device = "cpu"


Loop = Callable[[Any, Worker], Any]
OnReport = Callable[[dict], None]  # takes what rank 0 reports, in order
OnDeath = Callable[[str], None]  # is told who died, before the loop is started again


@dataclass(frozen=True)
class Resources:
    """What there is to run on: (CPUs, GPUs) of each node, for so many trainings at once."""

    nodes: tuple[tuple[int, int], ...]
    sharers: int = 1

    @property
    def cpus(self) -> int:
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(gpus for _, gpus in self.nodes)

    def cpus_each(self, workers: int, use_gpu: bool) -> int:
        """The most CPUs that each of a training's workers can have, none of them on two nodes; at least 1."""
        workers *= self.sharers
        fitting = (n for n in range(self.cpus // workers, 1, -1) if self.num_places(n, use_gpu) >= workers)
        return next(fitting, 1)

    def num_places(self, cpus_each: int, use_gpu: bool) -> int:
        """How many workers there is room for, of so many CPUs and perhaps a GPU of the same node."""
        return sum(min(cpus // cpus_each, gpus) if use_gpu else cpus // cpus_each for cpus, gpus in self.nodes)


class Compute(Protocol):
    """Maps functions over items, and runs a training loop on several workers."""

    def resources(self) -> Resources: ...

    def map(
        self, function: Callable, items: Iterable, num_gpus: int = 0, num_cpus: int = 1, keep_processes: bool = False
    ) -> Iterator: ...

    def train(
        self, loop: Loop, job: Any, plan: "WorkerPlan", on_report: OnReport, on_death: OnDeath = lambda who: None
    ) -> Any: ...

    def close(self) -> None: ...


@dataclass(frozen=True)
class WorkerPlan:
    """How many training workers, and what each needs."""

    world: int
    cpus_each: int
    use_gpu: bool
    backend: str  # gloo, nccl; empty: no process group (one worker)
    max_deaths: int = 3  # after so many it is given up
    environment: dict[str, str] = field(default_factory=dict)


def require_places(plan: WorkerPlan, have: Resources) -> None:
    """UsageError where some worker would wait for ever for what no node has."""
    if have.num_places(plan.cpus_each, plan.use_gpu) < plan.world:
        wants = f"{plan.world} workers of {plan.cpus_each} CPU" + (" and 1 GPU" if plan.use_gpu else "")
        raise UsageError(
            f"training wants {wants}; Ray has {have.cpus} CPUs and {have.gpus} GPUs: "
            "lower train.replicas, set train.placement=one, or raise ray.num_cpus"
        )


class InProcess:
    """Everything in this process, one thing after the other."""

    started_s = 0.0

    def resources(self) -> Resources:
        return Resources(((machine.cpus(), 0),))

    def map(
        self, function: Callable, items: Iterable, num_gpus: int = 0, num_cpus: int = 1, keep_processes: bool = False
    ) -> Iterator:
        return map(function, items)

    def train(
        self, loop: Loop, job: Any, plan: WorkerPlan, on_report: OnReport, on_death: OnDeath = lambda who: None
    ) -> Any:
        if plan.world != 1:
            raise UsageError("in one process there is one training worker; use train.placement=one")
        return loop(job, Worker(0, 1, on_report, plan.cpus_each, "cuda" if plan.use_gpu else "cpu"))

    def join(self) -> str:
        raise UsageError("this process's work is no other's to join: use jobs=1")

    def close(self) -> None:
        pass
