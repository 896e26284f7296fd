"""Where a training would run: a table of machines and wishes, and every wish that is refused with a line that helps."""

from dataclasses import replace

import pytest

from model.specs import AlexNetSpec, TrainSpec
from workflows.compute.workers import Resources, WorkerPlan, require_places
from workflows.config import RunConfig, UsageError, with_values
from workflows.stages.train import place
from workflows.studies.arms import Arm
from workflows.studies.comparison import Member
from workflows.studies.parallel import room

TWO, ONE = AlexNetSpec(), AlexNetSpec(columns=1, kernels=(48, 128, 192, 192, 256))
CPUS, GPU, GPUS_2, GPUS_4 = ((4, 0),), ((8, 1),), ((8, 2),), ((8, 2), (8, 2))
GPU_APART = ((16, 0), (2, 1))  # most CPUs are where no GPU is


@pytest.mark.parametrize(
    ("nodes", "net", "replicas", "placement", "world", "cpus_each", "backend", "columns_each"),
    [
        (CPUS, TWO, 1, "auto", 2, 2, "gloo", 1),
        (CPUS, TWO, 1, "one", 1, 4, "", 2),
        (CPUS, TWO, 2, "auto", 4, 1, "gloo", 1),
        (CPUS, TWO, 3, "auto", 3, 1, "gloo", 2),
        (CPUS, ONE, 1, "auto", 1, 4, "", 1),
        (CPUS, ONE, 2, "one", 2, 2, "gloo", 1),
        (GPU, TWO, 1, "auto", 1, 8, "", 2),
        (GPU, ONE, 1, "auto", 1, 8, "", 1),
        (GPUS_2, TWO, 1, "auto", 2, 4, "nccl", 1),
        (GPUS_2, TWO, 1, "columns", 2, 4, "nccl", 1),
        (GPUS_2, TWO, 1, "one", 1, 8, "", 2),
        (GPUS_2, TWO, 2, "auto", 2, 4, "nccl", 2),
        (GPUS_2, ONE, 2, "auto", 2, 4, "nccl", 1),
        (GPUS_4, TWO, 2, "auto", 4, 4, "nccl", 1),
        (GPUS_4, TWO, 3, "auto", 3, 4, "nccl", 2),
        (GPUS_4, TWO, 4, "one", 4, 4, "nccl", 2),
        (GPU_APART, TWO, 1, "auto", 1, 2, "", 2),
    ],
)
def test_workers_stand_where_their_devices_are(
    nodes, net, replicas, placement, world, cpus_each, backend, columns_each
):
    plan, columns = place(net, TrainSpec(replicas=replicas, placement=placement), Resources(nodes))
    assert (plan.world, plan.cpus_each, plan.backend, columns) == (world, cpus_each, backend, columns_each)
    assert plan.use_gpu == (nodes != CPUS)


@pytest.mark.parametrize(
    ("nodes", "net", "at_once", "cpus_each"),
    [
        (CPUS, ONE, 1, 4),
        (CPUS, ONE, 2, 2),
        (CPUS, TWO, 2, 1),
        (GPUS_4, ONE, 4, 4),
        (GPUS_4, TWO, 2, 4),
        (GPU, ONE, 1, 8),
    ],
)
def test_trainings_at_once_have_room_beside_each_other(nodes, net, at_once, cpus_each):
    plan, _ = place(net, TrainSpec(), Resources(nodes, sharers=at_once))
    assert plan.cpus_each == cpus_each
    require_places(replace(plan, world=plan.world * at_once), Resources(nodes))


@pytest.mark.parametrize(
    ("nodes", "net", "settings", "expected"),
    [
        (((2, 0),), TWO, {}, 1),  # two cores: one column on each
        (((2, 0),), ONE, {}, 2),
        (CPUS, TWO, {}, 2),
        (GPU, TWO, {}, 1),
        (GPUS_4, TWO, {}, 2),
        (GPUS_4, ONE, {}, 4),
        (GPUS_4, TWO, {"train.placement": "one"}, 4),
        (CPUS, TWO, {"train.precision": "bf16"}, 1),  # which its run will refuse
    ],
)
def test_there_is_room_for_as_many_trainings_as_have_places(nodes, net, settings, expected):
    config = with_values(RunConfig(net=net), settings)
    assert room([Member(Arm("a"), 0, config)], Resources(nodes), built="13.0") == expected


@pytest.mark.parametrize(
    ("nodes", "net", "settings", "message"),
    [
        (CPUS, ONE, {"placement": "columns"}, "net.columns is 1: use train.placement=one"),
        (CPUS, TWO, {"replicas": 5}, "wants 5 CPUs; there are 0 GPUs and 4 CPUs"),
        (CPUS, TWO, {"replicas": 3, "placement": "columns"}, "wants 6 CPUs; there are 0 GPUs and 4 CPUs"),
        (GPU, TWO, {"placement": "columns"}, "wants 2 GPUs; there are 1 GPUs and 8 CPUs"),
        (GPUS_2, ONE, {"replicas": 3}, "wants 3 GPUs; there are 2 GPUs and 8 CPUs"),
        (GPUS_4, TWO, {"replicas": 3, "placement": "columns"}, "wants 6 GPUs; there are 4 GPUs and 16 CPUs"),
        (GPU_APART, TWO, {"replicas": 2}, "wants 2 GPUs; there are 1 GPUs and 18 CPUs"),
        (((8, 0), (1, 4)), TWO, {"replicas": 2}, "wants 2 GPUs; there are 4 GPUs and 9 CPUs"),
        (CPUS, TWO, {"precision": "bf16"}, "train.precision=bf16 needs a GPU"),
        (CPUS, TWO, {"precision": "tf32"}, "train.precision=tf32 needs a GPU"),
    ],
)
def test_what_cannot_be_placed_is_refused_in_one_line(nodes, net, settings, message):
    with pytest.raises(UsageError, match=message) as error:
        place(net, TrainSpec(**settings), Resources(nodes))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("nodes", "cpus_each", "on_cpus", "on_gpus"),
    [
        (((4, 0),), 1, 4, 0),
        (((4, 2),), 1, 4, 2),
        (((4, 2),), 4, 1, 1),
        (((4, 2), (3, 0)), 3, 2, 1),
        (((1, 4), (16, 1)), 1, 17, 2),
        (((1, 4), (16, 1)), 2, 8, 1),
        (((0, 4),), 1, 0, 0),
        ((), 1, 0, 0),
    ],
)
def test_a_place_has_its_cpus_and_its_gpu_on_one_node(nodes, cpus_each, on_cpus, on_gpus):
    have = Resources(nodes)
    assert (have.num_places(cpus_each, False), have.num_places(cpus_each, True)) == (on_cpus, on_gpus)


@pytest.mark.parametrize(("workers", "use_gpu", "cpus"), [(1, False, 16), (2, False, 8), (1, True, 16), (2, True, 2)])
def test_each_worker_gets_the_most_cpus_that_leave_all_a_place(workers, use_gpu, cpus):
    assert Resources(((2, 4), (16, 1))).cpus_each(workers, use_gpu) == cpus


def test_what_no_node_has_is_an_error_at_once_and_never_waited_for():
    have = Resources(GPU_APART)
    require_places(WorkerPlan(world=1, cpus_each=2, use_gpu=True, backend=""), have)
    with pytest.raises(UsageError, match="training wants 1 workers of 8 CPU and 1 GPU; Ray has 18 CPUs and 1 GPUs"):
        require_places(WorkerPlan(world=1, cpus_each=8, use_gpu=True, backend=""), have)
