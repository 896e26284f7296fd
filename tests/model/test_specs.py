"""What the configuration of the network and its training refuses, and how it says so."""

import subprocess
import sys

import pytest

from model.specs import AlexNetSpec, TrainSpec


@pytest.mark.parametrize(
    ("spec", "setting", "message"),
    [
        (AlexNetSpec, {"columns": 3}, r"net\.columns is 3; choose one of 1, 2"),
        (AlexNetSpec, {"pooling": "average"}, r"net\.pooling is 'average'; choose one of overlapping, separate"),
        (AlexNetSpec, {"kernels": (96, 256)}, r"net\.kernels is \(96, 256\); give five"),
        (AlexNetSpec, {"kernels": (95, 256, 384, 384, 256)}, r"net\.kernels .* divide among net\.columns=2"),
        (AlexNetSpec, {"input_px": 30}, r"net\.input_px is 30; too small"),
        (AlexNetSpec, {"num_classes": 1}, r"net\.num_classes is 1"),
        (AlexNetSpec, {"num_classes": -1}, r"net\.num_classes is -1"),
        (AlexNetSpec, {"lrn_n": 4}, r"net\.lrn_n is 4; use an odd number"),
        (TrainSpec, {"lr": 0}, r"train\.lr is 0"),
        (TrainSpec, {"epochs": 0}, r"train\.epochs is 0; use more than 0"),
        (TrainSpec, {"schedule": "cosine"}, r"train\.schedule is 'cosine'; use plateau, segments, constant, or '1:"),
        (TrainSpec, {"batch_size": 1, "replicas": 2}, r"train\.batch_size is 1, fewer than train\.replicas=2"),
    ],
)
def test_a_bad_value_is_refused_in_one_line_that_names_its_key(spec, setting, message):
    with pytest.raises(ValueError, match=message) as error:
        spec(**setting)
    assert "\n" not in str(error.value)


def test_specs_and_shapes_import_no_torch():
    code = "import sys, model.specs, model.shapes; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
