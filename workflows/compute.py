"""Where work runs: tasks mapped over Ray with a bounded number in flight, and a group of training workers.

The only module that imports Ray, and only once a stage has work. `InProcess` does the same in this process, for tests
and notebooks. Tasks are run at least once (a task whose process died is run again), so they must be idempotent, and
they return small records: pixels go to the store.
"""

import contextlib
import importlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from workflows.config import RaySpec, UsageError

OTHERS_MAY_KEEP_S = 120  # what training needs, before it gives up
IN_FLIGHT_PER_CPU = 2  # one running, one waiting: no worker idles while the driver looks away
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_COLLECTIVE_TIMEOUT_S": "600",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",  # a report waits for the next look: 2 s by default
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
}


@dataclass(frozen=True)
class Worker:
    """What a training loop is told of where it runs."""

    rank: int
    world: int
    report: Callable[[dict], None]  # called by every rank alike; rank 0's metrics reach the driver
    num_cpus: int
    device: str = "cpu"


Loop = Callable[[Any, Worker], Any]


@dataclass(frozen=True)
class Resources:
    """What there is to run on: (CPUs, GPUs) of each node."""

    nodes: tuple[tuple[int, int], ...]

    @property
    def cpus(self) -> int:
        return sum(cpus for cpus, _ in self.nodes)

    @property
    def gpus(self) -> int:
        return sum(gpus for _, gpus in self.nodes)

    def cpus_each(self, workers: int, use_gpu: bool) -> int:
        """The most CPUs that each of so many workers can have, none of them on two nodes; at least 1."""
        fitting = (n for n in range(self.cpus // workers, 1, -1) if self.num_places(n, use_gpu) >= workers)
        return next(fitting, 1)

    def num_places(self, cpus_each: int, use_gpu: bool) -> int:
        """How many workers there is room for, of so many CPUs and perhaps a GPU of the same node."""
        return sum(min(cpus // cpus_each, gpus) if use_gpu else cpus // cpus_each for cpus, gpus in self.nodes)


class Compute(Protocol):
    """Maps functions over items, and runs a training loop on several workers."""

    def resources(self) -> Resources: ...

    def map(self, function: Callable, items: Iterable, num_gpus: int = 0) -> Iterator: ...

    def train(self, loop: Loop, job: Any, plan: "WorkerPlan", on_report: Callable[[dict], None]) -> Any: ...


@dataclass(frozen=True)
class WorkerPlan:
    """How many training workers, and what each needs."""

    world: int
    cpus_each: int
    use_gpu: bool
    backend: str  # gloo, nccl; empty: no process group (one worker)
    max_failures: int = 3
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
        return Resources(((len(os.sched_getaffinity(0)), 0),))

    def map(self, function: Callable, items: Iterable, num_gpus: int = 0) -> Iterator:
        return map(function, items)

    def train(self, loop: Loop, job: Any, plan: WorkerPlan, on_report: Callable[[dict], None]) -> Any:
        if plan.world != 1:
            raise UsageError("in one process there is one training worker; use train.placement=one")
        return loop(job, Worker(0, 1, on_report, plan.cpus_each, "cuda" if plan.use_gpu else "cpu"))

    def close(self) -> None:
        pass


class OnRay:
    """Ray tasks and Ray Train, started or joined when first used."""

    def __init__(self, spec: RaySpec, say: Callable[[str], None] = lambda text: None, debug: bool = False):
        """With `debug`, what Ray and its workers log is shown."""
        self._spec, self._say, self._debug, self._ray = spec, say, debug, None
        self.started_s = 0.0

    def _start(self):
        if self._ray is None:
            self._say("starting Ray" if not self._spec.address else f"joining Ray at {self._spec.address}")
            began = time.perf_counter()
            self._ray = _connect(self._spec, self._debug)
            self.started_s = time.perf_counter() - began
        return self._ray

    def resources(self) -> Resources:
        nodes = [node["Resources"] for node in self._start().nodes() if node["Alive"]]
        return Resources(tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes))

    def map(self, function: Callable, items: Iterable, num_gpus: int = 0) -> Iterator:
        """Results as they are done, in any order; an error in a task ends the map and cancels those in flight."""
        ray = self._start()
        remote = ray.remote(num_cpus=1, num_gpus=num_gpus, max_retries=self._spec.task_retries)(_apply)
        limit = max(1, self.resources().cpus) * IN_FLIGHT_PER_CPU
        waiting, flying = iter(items), set()
        try:
            while True:
                while len(flying) < limit and (item := next(waiting, _END)) is not _END:
                    flying.add(remote.remote(function, item))
                if not flying:
                    return
                done, rest = ray.wait(list(flying), num_returns=1)
                flying = set(rest)
                for ref in done:
                    yield _unwrapped(ray, ref)
        finally:
            for ref in flying:
                with contextlib.suppress(Exception):
                    ray.cancel(ref)

    def train(self, loop: Loop, job: Any, plan: WorkerPlan, on_report: Callable[[dict], None]) -> Any:
        """Runs the loop on the planned workers; each report of rank 0 is handed to `on_report` here."""
        require_places(plan, self.resources())
        self._await_places(plan)
        from ray.train import ControllerError

        for _ in range(plan.max_failures):
            with contextlib.suppress(ControllerError):  # a worker died while Ray Train started it
                return self._train(loop, job, plan, on_report)
        return self._train(loop, job, plan, on_report)

    def _await_places(self, plan: WorkerPlan) -> None:
        """UsageError where other work keeps what the workers need: Ray Train would wait for it in silence."""
        ray, wanted = self._start(), {name: plan.world * each for name, each in _resources_each(plan).items()}
        ends, told = time.monotonic() + OTHERS_MAY_KEEP_S, time.monotonic() + 5
        while any((free := ray.available_resources()).get(name, 0) < number for name, number in wanted.items()):
            if time.monotonic() > ends:
                taken = " and ".join(f"{free.get(name, 0):g} of {n:g} {name}s" for name, n in wanted.items())
                raise UsageError(
                    f"training finds {taken} free: other work on the Ray cluster holds the rest; wait for its end, or "
                    "lower train.replicas"
                )
            if time.monotonic() > told:
                self._say(f"waiting up to {OTHERS_MAY_KEEP_S} s for CPUs or GPUs that other work on the cluster holds")
                told = ends
            time.sleep(0.2)

    def _train(self, loop: Loop, job: Any, plan: WorkerPlan, on_report: Callable[[dict], None]) -> Any:
        from ray.util.queue import Queue

        ray = self._start()
        here = _on_this_node(ray)
        mailbox = Queue(actor_options={"num_cpus": 0, **here})
        scratch = tempfile.TemporaryDirectory(prefix="alexnet-train-", ignore_cleanup_errors=True)
        fit = ray.remote(num_cpus=0, max_retries=0, **here)(_fit).remote(loop, job, plan, mailbox, scratch.name)
        try:
            for letter in _letters(ray, mailbox, fit):
                if isinstance(letter, Exception):
                    raise letter  # running it again would meet it again
                on_report(letter)
            return _unwrapped(ray, fit)
        except BaseException:
            self.close()  # ends all that was started; until then Ray Train keeps what it reserved
            raise
        finally:
            scratch.cleanup()

    def close(self) -> None:
        if self._ray is not None:
            with _sigterm_kept():
                self._ray.shutdown()
            self._ray = None


_END = object()


def _apply(function: Callable, item: Any) -> Any:
    """A task: Ray wants a plain function where `map` also takes a partial one."""
    return function(item)


def _connect(spec: RaySpec, debug: bool = False):
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray

    modules = [importlib.import_module(name) for name in ("pipelines", "model", "workflows")]
    options: dict[str, Any] = {
        "runtime_env": {"py_modules": modules, "env_vars": {name: os.environ[name] for name in ENVIRONMENT}},
        "logging_level": logging.ERROR,
        "log_to_driver": debug,
        "include_dashboard": False,
    }
    if spec.address:
        del options["include_dashboard"]
    elif spec.num_cpus:
        options["num_cpus"] = spec.num_cpus
    options["address"] = spec.address or "local"  # else Ray joins what RAY_ADDRESS or an earlier `ray start` names
    try:
        with _sigterm_kept():
            ray.init(**options)
    except ConnectionError as error:
        raise UsageError(f"no Ray cluster at ray.address={spec.address}: {error}") from error
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def _sigterm_kept() -> Iterator[None]:
    """Ray sets a handler of its own when it starts and ends, which ends the process before a run can be closed."""
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, handler)


def _unwrapped(ray, ref):
    """The task's result, or its own exception with the task's trace as a note."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, Exception):
            raise error.cause from error
        raise


def _on_this_node(ray) -> dict[str, Any]:
    """Options that keep an actor or task where the driver is: what other nodes' deaths shall not take away."""
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    node = ray.get_runtime_context().get_node_id()
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node, soft=False)}


def _fit(loop: Loop, job: Any, plan: WorkerPlan, mailbox, scratch: str) -> Any:
    """Runs Ray Train, in a task: in the driver it would take over SIGINT, or be a thread that no signal stops."""
    try:
        return _trainer(loop, job, plan, mailbox, scratch).fit().return_value
    finally:
        mailbox.put(None)


def _letters(ray, mailbox, fit) -> Iterator[Any]:
    """What is put in the mailbox, until None, or until the process of `fit` is dead."""
    while True:
        post = mailbox.actor.get.remote()
        ray.wait([post, fit])
        if not ray.wait([post], timeout=1)[0] or (letter := ray.get(post)) is None:
            return
        yield letter


def _trainer(loop: Loop, job: Any, plan: WorkerPlan, mailbox, scratch: str):
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer
    from ray.train.v2.api.callback import UserCallback

    class Mail(UserCallback):
        """Carries rank 0's metrics from Ray Train's controller to the driver."""

        def after_report(self, run_context, metrics, checkpoint):
            mailbox.put(metrics[0])

    return TorchTrainer(
        _on_worker,
        train_loop_config={"loop": loop, "job": job, "plan": plan, "mailbox": mailbox},
        torch_config=TorchConfig(backend=plan.backend or "gloo", timeout_s=600),
        scaling_config=ScalingConfig(
            num_workers=plan.world, use_gpu=plan.use_gpu, resources_per_worker=_resources_each(plan)
        ),
        run_config=RunConfig(
            name="train",
            storage_path=scratch,
            callbacks=[Mail()],
            failure_config=FailureConfig(max_failures=plan.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": {"OMP_NUM_THREADS": str(plan.cpus_each), **plan.environment}},
        ),
    )


def _resources_each(plan: WorkerPlan) -> dict[str, float]:
    return {"CPU": plan.cpus_each} | ({"GPU": 1} if plan.use_gpu else {})


def _on_worker(config: dict) -> Any:
    """Runs inside each Ray Train worker: the loop, with a Worker made of Ray Train's context."""
    import ray.train

    context, plan = ray.train.get_context(), config["plan"]
    worker = Worker(
        rank=context.get_world_rank(),
        world=context.get_world_size(),
        report=ray.train.report,
        num_cpus=plan.cpus_each,
        device="cuda" if plan.use_gpu else "cpu",
    )
    try:
        return config["loop"](config["job"], worker)
    except (RuntimeError, ConnectionError, TimeoutError):
        raise  # a peer that died, a device that failed: Ray Train starts the group again
    except Exception as error:
        error.add_note(f"in training worker {worker.rank}")
        config["mailbox"].put(error)
        raise
