"""A metric's name means one thing, whichever stage it is of."""

from workflows.config import RunConfig, with_values
from workflows.tracking.headline import ERRORS, main_params, text_tags
from workflows.training.history import as_metrics


def test_the_errors_of_training_and_of_evaluation_have_different_names():
    point = {"kind": "step", "step": 9, "loss": 1.0, "top1_error": 0.5, "images_per_s": 3.0, "warning": "w"}
    assert as_metrics(point) == {"loss": 1.0, "train_top1_error": 0.5, "images_per_s": 3.0}
    epoch = {"kind": "epoch", "step": 9, "val_top1_error": 0.5, "epoch_top1_error": 0.4}
    assert not as_metrics(epoch).keys() & set(ERRORS)


def test_single_results_are_tags_but_for_the_errors_which_the_table_sorts():
    metrics = {"shards": 14, "mean_images_per_s": 86.62898607, "top1_error": 0.25, "split": "val"}
    summary = {"metrics": metrics, "made_with": {"world": 2}}
    expected = {
        "result.shards": "14",
        "result.mean_images_per_s": "86.629",
        "result.split": "val",
        "made_with.world": 2,
    }
    assert text_tags(summary) == expected


def test_the_parent_s_parameters_hold_no_secret_of_the_source_s_url():
    config = with_values(RunConfig(), {"ingest.source": "s3://AKIA:abc/def@bucket/images?secret_key=z"})
    assert main_params(config)["ingest.source"] == "s3://***@bucket/images?secret_key=***"
