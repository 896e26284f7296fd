"""The devices on which the same guarantees hold: tests that take one run on the CPU always, on a GPU where it is."""

import pytest
import torch

_NO_GPU = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
DEVICES = ("cpu", pytest.param("cuda", marks=[pytest.mark.gpu, _NO_GPU]))
