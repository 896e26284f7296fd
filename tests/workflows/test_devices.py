"""What work runs on: GPUs that are there and used, or said to lie idle, or refused before anything starts."""

import pytest
import torch

from workflows.compute import devices
from workflows.compute.workers import Resources
from workflows.config import UsageError

NONE, GPUS = Resources(((8, 0),)), Resources(((8, 2), (4, 0)))


@pytest.mark.parametrize(
    ("device", "have", "built", "gpus"),
    [("auto", NONE, "13.0", 0), ("auto", GPUS, "13.0", 2), ("auto", GPUS, "", 0), ("cpu", GPUS, "13.0", 0)],
)
def test_gpus_are_used_where_there_are_any_and_none_forbids_it(device, have, built, gpus):
    found = devices.usable(device, have, built)
    assert (found.gpus, found.cpus) == (gpus, have.cpus)


@pytest.mark.parametrize(("have", "built", "words"), [(NONE, "13.0", "Ray finds no GPU"), (GPUS, "", "for the CPU")])
def test_gpu_never_trains_on_cpus(have, built, words):
    with pytest.raises(UsageError, match=f"train.device=gpu.*{words}"):
        devices.usable("gpu", have, built)


def test_an_idle_gpu_is_said_with_the_build_that_would_use_it():
    said = devices.foreseen("auto", "", "580.95", is_here=True)
    assert said.startswith("training on the CPU, though there is a GPU with driver 580.95")
    assert "nvidia-dali-cuda130" in said
    assert not devices.foreseen("auto", "", "", is_here=True)  # no GPU
    assert not devices.foreseen("auto", "13.0", "580.95", is_here=True)  # all is well
    assert not devices.foreseen("cpu", "", "580.95", is_here=True)  # as asked for


@pytest.mark.parametrize(
    ("built", "version", "is_here", "words"),
    [("", "580.95", True, "a build for the CPU"), ("", "", True, "torch is for the CPU"), ("13.0", "", True, "driver")],
)
def test_gpu_is_refused_before_anything_starts(built, version, is_here, words):
    with pytest.raises(UsageError, match=f"train.device=gpu.*{words}"):
        devices.foreseen("gpu", built, version, is_here)


def test_a_cluster_may_have_the_gpu_that_this_machine_lacks():
    assert not devices.foreseen("gpu", "13.0", "", is_here=False)


def test_what_torch_is_built_for_is_read_without_importing_it():
    assert devices.torch_cuda() == (torch.version.cuda or "")
