"""Work on Ray: tasks mapped with a bounded number in flight, and a group of training workers under Ray Train.

The only module that imports Ray, and only once a stage has work. Tasks are run at least once (a task whose process died
is run again), so they must be idempotent, and they return small records: pixels go to the store. A training is started
again where a worker died, and ends at once where its own code failed.
"""

import contextlib
import importlib
import logging
import os
import pickle
import secrets
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from workflows.compute import cluster, machine
from workflows.compute.credentials import Credentials
from workflows.compute.deaths import Died, PeerGone, is_echo, who_died
from workflows.compute.ray_folder import RayFolder
from workflows.compute.workers import Loop, OnDeath, OnReport, Resources, Worker, WorkerPlan, require_places
from workflows.config import RaySpec, UsageError

OTHERS_MAY_KEEP_S = 120  # what training needs, before it gives up
IN_FLIGHT_PER_PLACE = 2  # one running, one waiting: no worker idles while the driver looks away
RESOURCES_EVERY_S = 10  # a cluster may grow
DEATH_IS_SEEN_IN_S = 6  # Ray Train looks every 2 s; until then an echo waits, so that the dead is known by name
ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S": "120",
    "RAY_TRAIN_METRICS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_DEDUP_LOGS": "1",
    "RAY_DEDUP_LOGS_SKIP_REGEX": "worker processes have been started on node",  # Ray's advice to whom it starts slowly
}
TOKEN = secrets.token_hex(32)  # of the Rays that this process starts: nobody else's


class OnRay:
    """Ray tasks and Ray Train, started or joined when first used."""

    def __init__(
        self, spec: RaySpec, say: Callable[[str], None] = lambda text: None, debug: bool = False, sharers: int = 1
    ):
        """With `debug`, what Ray and its workers log is shown and kept; `sharers` work on this Ray at once."""
        self._spec, self._say, self._debug, self._sharers = spec, say, debug, sharers
        self._ray: Any = None
        self._folder: RayFolder | None = None
        self._credentials = Credentials.of_driver()
        self.started_s = 0.0

    def _start(self):
        if self._ray is None:
            began = time.perf_counter()
            self._ray = self._joined() if self._spec.address else self._started()
            self.started_s = time.perf_counter() - began
        return self._ray

    def _joined(self):
        self._say(f"joining Ray at {self._spec.address}")
        there = cluster.require(self._spec.address)
        if there.wants_token is not None:  # else it is as the environment says
            os.environ["RAY_AUTH_MODE"] = "token" if there.wants_token else "disabled"
        try:
            return _connect({"address": there.where}, self._debug)
        except Exception as error:  # of many kinds: another version of Ray or Python, no token, no node of it here
            what = next(iter(str(error).splitlines()), type(error).__name__)
            raise UsageError(f"ray.address={self._spec.address} cannot be joined: {what}") from error

    def _started(self):
        """Our own Ray: whatever the environment or an earlier `ray start` names, and behind a token of its own."""
        num_cpus = self._spec.num_cpus or machine.cpus()
        machine.require_limits(num_cpus)
        self._say("starting Ray")
        self._folder = RayFolder(keep=self._debug)
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN}
        own = {"address": "local", "num_cpus": num_cpus, "_temp_dir": str(self._folder.for_ray)}
        return _connect({**own, "include_dashboard": False}, self._debug)

    def resources(self) -> Resources:
        nodes = [node["Resources"] for node in self._start().nodes() if node["Alive"]]
        return Resources(tuple((int(node.get("CPU", 0)), int(node.get("GPU", 0))) for node in nodes), self._sharers)

    def join(self) -> str:
        """HOST:PORT at which other processes of ours join this Ray: the token is in the environment."""
        return self._start().get_runtime_context().gcs_address

    def map(
        self, function: Callable, items: Iterable, num_gpus: int = 0, num_cpus: int = 1, keep_processes: bool = False
    ) -> Iterator:
        """Results as they are done, in any order; an error in a task ends the map and cancels those in flight.

        After a task on a GPU Ray ends the process, with all that it has loaded, unless processes are to be kept.
        """
        ray = self._start()
        options: dict[str, Any] = {"max_calls": 0} if keep_processes else {}
        options |= {"num_cpus": num_cpus, "num_gpus": num_gpus, "max_retries": self._spec.task_retries}
        remote = ray.remote(**options)(_apply)
        waiting, looked = iter(items), float("-inf")
        flying: set[Any] = set()  # what stands for results to come
        try:
            while True:
                if time.monotonic() - looked > RESOURCES_EVERY_S:
                    limit, looked = self._limit(num_gpus, num_cpus), time.monotonic()
                while len(flying) < limit and (item := next(waiting, _END)) is not _END:
                    flying.add(remote.remote(self._credentials, function, item))
                if not flying:
                    return
                done, rest = ray.wait(list(flying), num_returns=1, timeout=RESOURCES_EVERY_S)
                flying = set(rest)
                for ref in done:
                    yield _unwrapped(ray, ref)
        finally:
            for ref in flying:
                with contextlib.suppress(Exception):
                    ray.cancel(ref)

    def _limit(self, num_gpus: int, num_cpus: int) -> int:
        """How many tasks may be in flight; of those who share, each keeps to what is its own."""
        places = self.resources().num_places(num_cpus, num_gpus > 0)
        return max(1, places * IN_FLIGHT_PER_PLACE if self._sharers == 1 else places // self._sharers)

    def train(
        self, loop: Loop, job: Any, plan: WorkerPlan, on_report: OnReport, on_death: OnDeath = lambda who: None
    ) -> Any:
        """Runs the loop on the planned workers, again where one died; rank 0's reports are handed on in their order.

        Raises:
            ChildProcessError: Workers died more than `plan.max_deaths` times.
        """
        require_places(plan, self.resources())
        deaths = 0
        while True:
            self._await_places(plan)
            try:
                return self._train(loop, job, plan, on_report)
            except Died as death:
                if deaths == plan.max_deaths:
                    what = f"{death} died, after {deaths} new starts"
                    raise ChildProcessError(f"{what}: is memory short? --debug keeps what Ray logs") from death
                deaths += 1
                on_death(str(death))

    def _await_places(self, plan: WorkerPlan) -> None:
        """UsageError where other work keeps what the workers need: Ray Train would wait for it in silence."""
        ray, wanted = self._start(), {name: plan.world * each for name, each in _resources_each(plan).items()}
        ends, told = time.monotonic() + OTHERS_MAY_KEEP_S, time.monotonic() + 5
        while any((free := ray.available_resources()).get(name, 0) < number for name, number in wanted.items()):
            if time.monotonic() > ends:
                taken = " and ".join(f"{free.get(name, 0):g} of {n:g} {name}s" for name, n in wanted.items())
                raise UsageError(
                    f"training finds {taken} free: other work on the Ray cluster holds the rest, or a node is gone; "
                    "wait for its end, or lower train.replicas"
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
        has_joined = self._folder is None
        folder = self._folder or RayFolder()
        scratch = tempfile.TemporaryDirectory(dir=folder.place, ignore_cleanup_errors=True)
        task = _Task(loop, job, plan, mailbox, self._credentials)
        fit = ray.remote(num_cpus=0, max_retries=0, **here)(_fit).remote(task, scratch.name)
        try:
            for letter in _letters(ray, mailbox, fit):
                if isinstance(letter, _Failure):
                    raise letter.error from _Trace(letter.trace)  # running it again would meet it again
                on_report(letter)
            return _returned(ray, fit)
        except BaseException:
            self.close()  # ends all that was started; until then Ray Train keeps what it reserved, also after a death
            raise
        finally:
            scratch.cleanup()
            if has_joined:
                folder.remove()

    def close(self) -> None:
        if self._ray is not None:
            with _handlers_kept():
                self._ray.shutdown()
            self._ray = None
        if self._folder is not None:
            if self._debug:
                self._say(f"Ray's logs are in {self._folder.logs}")
            self._folder.remove()
            self._folder = None


_END = object()


def _apply(credentials: Credentials, function: Callable, item: Any) -> Any:
    """A task: Ray wants a plain function where `map` also takes a partial one."""
    credentials.use()
    return function(item)


def _connect(where: dict[str, Any], debug: bool):
    """Ray, connected to the cluster that these options start or join."""
    for name, value in ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import ray
    from ray._raylet import Config  # type: ignore[attr-defined]  # its stub lacks it

    Config.initialize("")  # reads the environment again: the user may have imported Ray before
    modules = [importlib.import_module(name) for name in ("pipelines", "model", "workflows")]
    with _handlers_kept():
        ray.init(
            **where,
            runtime_env={"py_modules": modules, "env_vars": {name: os.environ[name] for name in ENVIRONMENT}},
            logging_level=logging.ERROR,
            log_to_driver=debug,
        )
    for name in ("ray", "ray.train", "ray.data"):
        logging.getLogger(name).setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def _handlers_kept() -> Iterator[None]:
    """Ray sets handlers of its own when it starts and ends, which end the process before a run can be closed."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            for number, handler in handlers.items():
                signal.signal(number, handler)


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


@dataclass(frozen=True)
class _Task:
    """A training, as its workers are told of it."""

    loop: Loop
    job: Any
    plan: WorkerPlan
    mailbox: Any  # the only way to the driver: what is put first comes out first
    credentials: Credentials


@dataclass(frozen=True)
class _Failure:
    """What the loop raised, and where."""

    error: Exception
    trace: str


class _Trace(Exception):
    """The trace in the worker, as the cause of the error here."""


def _fit(task: _Task, scratch: str) -> Any:
    """Runs Ray Train, in a task: in the driver it would take over SIGINT, or be a thread that no signal stops.

    Raises:
        Died: Workers died, in the loop or while Ray Train started them.
    """
    from ray.train import ControllerError, WorkerGroupError

    try:
        return _trainer(task, scratch).fit().return_value
    except WorkerGroupError as error:
        raise Died(who_died(error.worker_failures)) from None  # what the loop itself raised is in the mailbox
    except ControllerError as error:
        raise Died("a worker that was starting") from error
    finally:
        task.mailbox.put(None)


def _returned(ray, fit) -> Any:
    """What the loop returned."""
    try:
        return _unwrapped(ray, fit)
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        raise Died("the process that leads the training") from error


def _letters(ray, mailbox, fit) -> Iterator[Any]:
    """What is put in the mailbox, until None, or until the process of `fit` is dead."""
    while True:
        post = mailbox.actor.get.remote()
        ray.wait([post, fit])
        if not ray.wait([post], timeout=1)[0] or (letter := ray.get(post)) is None:
            return
        yield letter


def _trainer(task: _Task, scratch: str):
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    plan = task.plan
    environment = {"OMP_NUM_THREADS": str(plan.cpus_each), **plan.environment}
    return TorchTrainer(
        _on_worker,
        train_loop_config={"task": task},
        torch_config=TorchConfig(backend=plan.backend or "gloo", timeout_s=600),
        scaling_config=ScalingConfig(
            num_workers=plan.world, use_gpu=plan.use_gpu, resources_per_worker=_resources_each(plan)
        ),
        run_config=RunConfig(
            name="train",
            storage_path=scratch,
            failure_config=FailureConfig(max_failures=0),  # `train` starts again, and says so
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            worker_runtime_env={"env_vars": environment},  # type: ignore[call-arg]  # of V2, which ENVIRONMENT chooses
        ),
    )


def _resources_each(plan: WorkerPlan) -> dict[str, int]:
    return {"CPU": plan.cpus_each} | ({"GPU": 1} if plan.use_gpu else {})


def _on_worker(config: dict) -> Any:
    """Runs inside each Ray Train worker: the loop, with a Worker made of Ray Train's context."""
    import ray.train

    context, task = ray.train.get_context(), config["task"]
    rank = context.get_world_rank()
    worker = Worker(
        rank=rank,
        world=context.get_world_size(),
        report=task.mailbox.put if rank == 0 else lambda report: None,
        num_cpus=task.plan.cpus_each,
        device="cuda" if task.plan.use_gpu else "cpu",
    )
    task.credentials.use()
    try:
        return task.loop(task.job, worker)
    except Exception as error:
        if is_echo(error):
            time.sleep(DEATH_IS_SEEN_IN_S)
            raise PeerGone(f"in training worker {rank}: {error}") from error
        task.mailbox.put(_portable(error, rank))
        raise


def _portable(error: Exception, rank: int) -> _Failure:
    """The error as it can travel, with a note of where it was."""
    trace = traceback.format_exc()
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:  # whatever its own constructor makes of it
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in training worker {rank}")
    return _Failure(error, trace)
