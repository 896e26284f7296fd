"""Work runs on Ray as it does in process: every item once, errors as they were raised, dead tasks and workers again."""

import os
import signal
import subprocess
import sys

import pytest

from workflows.compute.machine import KEEP_FREED_MEMORY
from workflows.compute.on_ray import OnRay
from workflows.compute.workers import InProcess, WorkerPlan
from workflows.config import RaySpec, UsageError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def on_ray():
    import ray.cloudpickle

    ray.cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the workers do not have the tests
    compute = OnRay(RaySpec(num_cpus=2))
    yield compute
    compute.close()


def square(x):
    return x * x


def refuse(x):
    raise ValueError(f"item {x} is bad")


def die_once(path):
    """Killed at the first attempt, as by the kernel when memory is short."""
    if not os.path.exists(path):
        open(path, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    return "second attempt"


def exchange_loop(job, worker):
    import torch
    import torch.distributed as dist

    seen = [torch.zeros(1) for _ in range(worker.world)]
    dist.all_gather(seen, torch.tensor([float(worker.rank)]))
    for step in range(job["steps"]):
        worker.report({"step": step, "sum": sum(map(float, seen))})
    return worker.world


def dying_loop(job, worker):
    if worker.rank == 1 and not os.path.exists(job):
        open(job, "w").close()
        os.kill(os.getpid(), signal.SIGKILL)
    worker.report({"rank": worker.rank})
    return "went on"


def exchanging_and_dying_loop(job, worker):
    """Worker 1 is killed once; worker 0 waits for it in a collective, and meets gloo's error."""
    import time

    import torch
    import torch.distributed as dist

    worker.report({"step": 0})
    if worker.rank == 1 and not os.path.exists(job):
        open(job, "w").close()
        time.sleep(5)  # Ray Train has seen all workers start: one that dies before has no name
        os.kill(os.getpid(), signal.SIGKILL)
    dist.all_reduce(torch.ones(1))
    worker.report({"step": 1})


def always_dying_loop(job, worker):
    with open(job, "a") as file:
        file.write("started\n")
    os.kill(os.getpid(), signal.SIGKILL)


def wasteful_loop(job, worker):
    """Takes and frees large tensors; the pages that a step took from the kernel: the median of the later ones.

    Not their sum: a small block of another thread that comes to lie in the space just freed makes the heap grow once.
    """
    import resource
    import statistics

    import torch

    fresh = []
    for _ in range(14):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        tensors = [torch.ones(millions * 10**6, dtype=torch.uint8) for millions in (40, 75, 150, 48)]
        del tensors
        fresh.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
    return statistics.median(fresh[5:])


class Unpicklable(Exception):
    def __init__(self, first, second):
        super().__init__(f"{first} and {second}")


def failing_loop(job, worker):
    """Reports, and then fails as `job` says, on worker `rank`; the others wait for it."""
    import time

    import torch
    import torch.distributed as dist

    rank, kind, marks = job
    open(f"{marks}/{worker.rank}-{time.monotonic_ns()}", "w").close()
    for step in range(20):
        worker.report({"step": step})
    if worker.rank != rank:
        dist.all_reduce(torch.ones(1))
    if kind == "out of memory":
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
    if kind == "shapes":
        torch.ones(2, 3) @ torch.ones(2, 3)
    if kind == "system":
        raise OSError(5, "Input/output error", "/data/shard")
    if kind == "unpicklable":
        raise Unpicklable("this", "that")
    raise ValueError("the loss is not finite at step 7")


def test_every_item_is_mapped_once(on_ray):
    assert sorted(on_ray.map(square, range(50))) == sorted(InProcess().map(square, range(50)))


def test_a_task_s_error_is_its_own(on_ray):
    with pytest.raises(ValueError, match="item 3 is bad"):
        list(on_ray.map(refuse, [3]))


def test_a_task_whose_process_died_is_run_again(on_ray, tmp_path):
    assert list(on_ray.map(die_once, [str(tmp_path / "mark")])) == ["second attempt"]


def test_two_workers_exchange_and_report_to_the_driver(on_ray):
    reports = []
    plan = WorkerPlan(world=2, cpus_each=1, use_gpu=False, backend="gloo")
    assert on_ray.train(exchange_loop, {"steps": 3}, plan, reports.append) == 2
    assert reports == [{"step": step, "sum": 1.0} for step in range(3)]


def test_a_worker_that_died_is_replaced(on_ray, tmp_path):
    plan = WorkerPlan(world=2, cpus_each=1, use_gpu=False, backend="gloo")
    assert on_ray.train(dying_loop, str(tmp_path / "mark"), plan, lambda metrics: None) == "went on"


def test_those_who_died_are_named_also_where_others_waited_for_them(on_ray, tmp_path):
    plan = WorkerPlan(world=2, cpus_each=1, use_gpu=False, backend="gloo")
    reports, deaths = [], []
    on_ray.train(exchanging_and_dying_loop, str(tmp_path / "mark"), plan, reports.append, deaths.append)
    assert deaths == ["worker 1"]
    assert reports == [{"step": 0}, {"step": 0}, {"step": 1}]


def test_workers_that_die_again_and_again_are_given_up(on_ray, tmp_path):
    plan = WorkerPlan(world=1, cpus_each=1, use_gpu=False, backend="", max_deaths=1)
    with pytest.raises(ChildProcessError, match="(worker 0|a worker that was starting) died, after 1 new starts"):
        on_ray.train(always_dying_loop, str(tmp_path / "mark"), plan, lambda metrics: None)
    assert (tmp_path / "mark").read_text() == "started\n" * 2


@pytest.mark.parametrize(
    ("rank", "kind", "error", "words"),
    [
        (1, "not finite", ValueError, "not finite at step 7"),
        (1, "out of memory", RuntimeError, "CUDA out of memory"),
        (0, "shapes", RuntimeError, "mat1 and mat2 shapes cannot be multiplied"),
        (0, "system", OSError, "/data/shard"),
        (0, "unpicklable", RuntimeError, "Unpicklable: this and that"),
    ],
)
def test_a_worker_s_error_reaches_the_driver_after_its_reports_and_is_not_tried_again(
    on_ray, tmp_path, rank, kind, error, words
):
    plan = WorkerPlan(world=2, cpus_each=1, use_gpu=False, backend="gloo")
    reports, deaths = [], []
    with pytest.raises(error, match=words) as raised:
        on_ray.train(failing_loop, (rank, kind, str(tmp_path)), plan, reports.append, deaths.append)
    assert f"in training worker {rank}" in raised.value.__notes__
    assert sorted(path.name.partition("-")[0] for path in tmp_path.iterdir()) == ["0", "1"]  # each was started once
    assert deaths == []
    if rank == 0:
        assert reports == [{"step": step} for step in range(20)]


def test_the_workers_keep_the_memory_that_they_freed(on_ray):
    def fresh_pages(environment) -> int:
        plan = WorkerPlan(world=1, cpus_each=1, use_gpu=False, backend="", environment=environment)
        return on_ray.train(wasteful_loop, None, plan, lambda metrics: None)

    default, kept = fresh_pages({}), fresh_pages(KEEP_FREED_MEMORY)
    assert default > 5 * 10**4  # of 313 MB that are written
    assert kept < default / 10


def test_what_cannot_be_had_is_an_error_at_once(on_ray):
    plan = WorkerPlan(world=8, cpus_each=1, use_gpu=False, backend="gloo")
    with pytest.raises(UsageError, match="training wants 8 workers of 1 CPU; Ray has 2 CPUs and 0 GPUs"):
        on_ray.train(exchange_loop, {}, plan, lambda metrics: None)


def test_what_other_work_holds_is_not_waited_for_without_end(on_ray, monkeypatch):
    on_ray.resources()
    import ray

    holder = ray.remote(num_cpus=1)(type("Holder", (), {"answer": lambda self: 1})).remote()
    assert ray.get(holder.answer.remote()) == 1
    monkeypatch.setattr("workflows.compute.on_ray.OTHERS_MAY_KEEP_S", 1)
    plan = WorkerPlan(world=2, cpus_each=1, use_gpu=False, backend="gloo")
    with pytest.raises(UsageError, match="training finds 1 of 2 CPUs free"):
        on_ray.train(exchange_loop, {"steps": 1}, plan, lambda metrics: None)
    ray.kill(holder)


def test_ray_answers_nobody_without_its_token(on_ray):
    on_ray.resources()
    import ray

    address = ray.get_runtime_context().gcs_address
    program = f"import ray; ray.init(address={address!r}, log_to_driver=False); print(ray.nodes()[0]['Alive'])"

    def ask(**environment) -> subprocess.CompletedProcess:
        command = [sys.executable, "-c", program]
        return subprocess.run(
            command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=120, check=False
        )

    assert ask().stdout.strip() == "True"
    for stranger in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "0" * 64}):
        asked = ask(**stranger)
        assert asked.returncode != 0
        assert "token" in asked.stderr
