"""A training in one process: its light, its start, its store, its pace, its model, and what it refuses to begin."""

import json
from dataclasses import replace
from pathlib import Path

import crash
import numpy as np
import pytest
import tiny
import torch
from builders import class_folders, write_files
from pixel_reference import views_one_by_one
from safetensors.torch import load_file
from shard_builder import write_shards

from model.alexnet import AlexNet
from model.export import save_exported
from model.metrics import TopK
from model.specs import AlexNetSpec, TrainSpec
from model.trainer import Trainer
from pipelines.evaluation import eval_batches
from pipelines.loader import TrainLoader
from pipelines.specs import LoaderSpec
from pipelines.storage import Folder
from workflows.compute.workers import InProcess, Worker
from workflows.config import RunConfig, TrackingSpec, UsageError, require_validation
from workflows.console import Console
from workflows.engine.outputs import places
from workflows.engine.plan import plan
from workflows.engine.run import run
from workflows.engine.stage import Context
from workflows.folders import CHECKPOINTS
from workflows.stages.evaluate import Job, evaluate_part
from workflows.stages.train import network_for, require_every_report
from workflows.tracking.tracker import Untracked
from workflows.training import checkpoints
from workflows.training.loop import TrainJob, loop
from workflows.workflow import STAGES

NET = AlexNetSpec(
    input_px=28, num_classes=3, kernels=(8, 8, 8, 8, 8), fc=(16, 16), conv1_kernel=5, conv1_stride=1, conv1_pad=2,
    initial="scaled",
)  # fmt: skip
ALONE = {"tracking__uri": "off", "train__placement": "one"}


@pytest.mark.parametrize("light", [((1, 0.0),), ()])
def test_the_input_is_scaled_in_the_epochs_with_light_and_in_no_other(light, tmp_path):
    shards, manifest = write_shards(tmp_path / "shards", {"train": [12, 8]}, encoding="raw", size_px=32)
    components = {"eigenvalues": np.array([900.0, 90.0, 9.0]), "eigenvectors": np.eye(3), "light": light}
    train = TrainSpec(epochs=2, batch_size=8)
    loader = LoaderSpec(threads=1)
    mean = np.full((32, 32, 3), 120, np.float32)
    job = TrainJob(NET, train, loader, shards, Folder.at(tmp_path / "train"), 2, mean, **components)
    loop(job, Worker(0, 1, lambda report: None, num_cpus=1))

    twin = Trainer(NET, train, mean, steps_per_epoch=3)
    batches = TrainLoader(shards, manifest, loader, crop_px=28, batch_size=8, epochs=2, **components)
    for epoch, scale in enumerate([1 / 1.1, 1.0 if light else 1 / 1.1]):
        for batch in batches.epoch(epoch):
            twin.net.input_scale = scale
            twin.train_step(batch.images_BCHW, batch.labels_B)
    trained = load_file(tmp_path / "train" / "model" / "model.safetensors")
    assert all(torch.equal(trained[name], weight) for name, weight in twin.weights().items())


def test_a_report_that_was_lost_is_not_kept_quiet():
    require_every_report(arrived=5, sent=5)
    with pytest.raises(RuntimeError, match="reported 5 times, and 4 arrived: run it again"):
        require_every_report(arrived=4, sent=5)


@pytest.mark.parametrize("views", ["ten", "nine", "one"])
@pytest.mark.parametrize("size_px", [36, 28])
def test_evaluation_averages_the_probabilities_of_all_views_and_takes_the_centre_for_the_single_one(
    views, size_px, tmp_path
):
    """28 px are the whole image."""
    shards, manifest = write_shards(tmp_path / "shards", {"val": [9]}, encoding="raw", size_px=size_px)
    (batch,) = eval_batches(shards, manifest, "val", crop_px=size_px, batch_size=9, threads=1)
    whole, labels = batch.images_BCHW, batch.labels_B
    every = torch.from_numpy(np.stack([views_one_by_one(image, 28, views) for image in whole.numpy()]))
    centre = torch.from_numpy(np.stack([views_one_by_one(image, 28, "one") for image in whole.numpy()]))
    net = AlexNet(replace(NET, middle_std=0.3), seed=5).eval()
    with torch.no_grad():  # undecided between the classes, and of different mind from view to view
        net.fc8.weight *= 3 / net(every.flatten(0, 1)).std(0).mean()
        net.fc8.bias -= net(every.flatten(0, 1)).mean(0)
        of_views = torch.stack([net(view) for view in every.unbind(1)])
    best, errors = of_views.softmax(2).mean(0).sort(descending=True), TopK()
    errors.update(net(centre[:, 0]).softmax(1), labels)
    of_logits = of_views.mean(0).softmax(1).sort(descending=True)
    assert views == "one" or size_px == 28 or not np.allclose(of_logits.values, best.values, rtol=0.01)

    weights = {name: parameter.detach().contiguous() for name, parameter in net.named_parameters()}
    save_exported(tmp_path / "model", net.spec, weights, net.mean, class_names=manifest.class_names)
    model = (Folder.at(tmp_path / "model"),)
    job = Job(shards, model, "alexnet", "val", 4, num_parts=1, num_cpus=1, threads=1, device="cpu", views=views)
    part = evaluate_part(job, 0)
    np.testing.assert_allclose(part.probabilities_N5, best.values, rtol=1e-3)
    np.testing.assert_array_equal(part.classes_N5, best.indices)
    assert part.centre == errors


def test_evaluation_multiplies_in_the_precision_that_it_is_told(tmp_path):
    shards, manifest = write_shards(tmp_path / "shards", {"val": [9]}, encoding="raw", size_px=36)
    net = AlexNet(replace(NET, middle_std=0.3), seed=5)
    net.fc8.weight.data *= 1e-3  # undecided
    weights = {name: parameter.detach().contiguous() for name, parameter in net.named_parameters()}
    save_exported(tmp_path / "model", net.spec, weights, net.mean, class_names=manifest.class_names)
    job = Job(
        shards, (Folder.at(tmp_path / "model"),), "alexnet", "val", 4, num_parts=1, num_cpus=1, threads=1, device="cpu"
    )
    exact, rough = (evaluate_part(replace(job, precision=p), 0).probabilities_N5 for p in ("float32", "bf16"))
    assert 1e-5 < abs(exact - rough).max() < 0.05


def test_evaluation_in_a_precision_that_only_gpus_have_is_refused_without_one(tmp_path):
    config = tiny.config(tiny.write_source(tmp_path / "source"), train__precision="bf16", **ALONE)
    steps = {step.stage.name: step for step in plan(STAGES, config, places(config, tmp_path / "runs"))}
    ingest, step = steps["ingest"], steps["evaluate"]
    write_shards(ingest.output.folder.local_path(), {"val": [4]}, encoding="raw", size_px=36)
    inputs = {"ingest": ingest.output}
    given = (config, tmp_path, step.output, step.ingredients, inputs, InProcess(), Untracked(), Console())
    with pytest.raises(UsageError, match="train.precision=bf16 needs a GPU, .*: evaluate where there is one"):
        step.stage.load().run(Context(*given))


def test_what_auto_was_is_recorded_and_evaluation_does_as_training_did(tmp_path):
    changes = {"train__precision": "auto", "train__epochs": 1, "train__checkpoint_every_s": 0.001} | ALONE
    config = tiny.config(tiny.write_source(tmp_path / "source"), **changes)
    upto = ("ingest", "stats", "train", "evaluate")
    run(STAGES, config, tmp_path / "runs", only=upto, compute=lambda *_: InProcess())
    outputs = {step.stage.name: step.output for step in plan(STAGES, config, places(config, tmp_path / "runs"))}
    for stage in ("train", "evaluate"):
        assert outputs[stage].require_record()["made_with"]["precision"] == "float32"
    assert len(checkpoints.steps(outputs["train"].folder.child(CHECKPOINTS))) == config.train.keep_checkpoints


@pytest.mark.slow
def test_models_in_a_store_on_a_disk_are_evaluated_too(tmp_path):
    store = tmp_path / "store"
    config = tiny.write_config(
        tmp_path / "config.toml", tiny.write_source(tmp_path / "source"), store=str(store), train__epochs=1,
        evaluate__weights="best", **ALONE,
    )  # fmt: skip
    root, log = tmp_path / "runs", tmp_path / "log"
    crash.finish(crash.start_in_process(root, config, "ingest", "stats", "train", log=log), log)
    for name in ("model", "best"):
        assert len(list(store.glob(f"train/*/{name}/model.safetensors"))) == 1
        assert not list(root.glob(f"train/*/{name}"))
    crash.finish(crash.start_in_process(root, config, "evaluate", log=log), log)
    (errors,) = store.glob("evaluate/*/evaluate.json")
    assert 0 <= json.loads(errors.read_text())["top1_error"] <= 1


@pytest.mark.slow
def test_training_starts_from_weights_under_the_home_folder(data, tmp_path, monkeypatch):
    first = tiny.Training(data, made(tmp_path / "first"), tiny.in_process, train__epochs=1, **ALONE)
    crash.finish(first.start(), first.log)
    (model,) = first.root.glob("train/*/model")
    model.rename(tmp_path / "weights")
    start = load_file(tmp_path / "weights" / "model.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    barely = {"train__epochs": 1, "train__lr": 1e-12, "train__init_from": "~/weights", **ALONE}
    second = tiny.Training(data, made(tmp_path / "second"), tiny.in_process, **barely)
    crash.finish(second.start(), second.log)
    assert all(torch.allclose(tensor, start[name], atol=1e-6) for name, tensor in second.model().items())


@pytest.mark.slow
def test_a_chain_of_two_recipes_starts_from_the_newest_model_of_the_first(tmp_path):
    """As the paper's pre-training: the convolutions of one network begin another, of other classes."""
    many = write_files(tmp_path / "many", class_folders(classes="abcdef", images=12))
    few, root = tiny.write_source(tmp_path / "few"), tmp_path / "runs"
    first = replace(tiny.config(many, train__epochs=1, **ALONE), recipe="pretrain")
    chained = {"train__epochs": 1, "train__schedule": "1:*=0", "train__init_from": "pretrain@newest"}
    second = replace(tiny.config(few, **chained, train__init_layers="conv*", **ALONE), recipe="finetune")

    def train(config: RunConfig):
        return run(STAGES, config, root, only=("ingest", "stats", "train"), compute=lambda *_: InProcess())[-1]

    def weights(row) -> dict[str, torch.Tensor]:
        return load_file(row.folder.local_path() / "model" / "model.safetensors")

    with pytest.raises(UsageError, match="no training of the recipe pretrain is finished .*run --recipe pretrain"):
        train(second)
    source, found = weights(train(first)), weights(train(second))
    assert found["fc8.weight"].shape[0] == 4
    convolutions = [name for name in found if name.startswith("conv")]
    assert len(convolutions) == 10
    assert all(torch.equal(found[name], source[name]) for name in convolutions)
    assert not torch.equal(found["fc6.weight"], source["fc6.weight"])
    assert train(second).state == "cached"
    train(replace(first, train=replace(first.train, seed=5)))
    assert train(second).state == "ran"  # from what is the newest now


@pytest.mark.slow
def test_the_pace_after_a_resume_counts_the_images_of_this_attempt_alone(data, tmp_path):
    training = tiny.Training(data, tmp_path, tiny.in_process, **ALONE)
    driver = training.start()
    training.wait_for_points(30, driver)
    crash.kill(driver)
    (history,) = training.root.glob("train/*/history.jsonl")
    folder = history.parent
    resumed_step = checkpoints.steps(Folder.at(folder / "checkpoints"))[-1]
    crash.finish(training.start(), training.log)
    record = json.loads((folder / "stage.json").read_text())
    (ingest,) = training.root.glob("ingest/*/stage.json")
    images = json.loads(ingest.read_text())["metrics"]["images_train"]
    steps_per_epoch = -(-images // 8)
    assert resumed_step > 0
    assert record["units"] == round(images * (4 - resumed_step / steps_per_epoch))
    assert record["metrics"]["mean_images_per_s"] >= record["units"] / record["seconds"]


@pytest.mark.slow
def test_a_broken_newest_checkpoint_in_an_object_store_pushes_no_sound_one_out(s3_folder):
    folder = Folder.at(s3_folder)
    for step in (5, 10):
        checkpoints.save(folder, step, {"a": torch.full((2,), float(step))}, {}, keep=2)
    folder.child("step-00000010").publish("state.safetensors", lambda file: file.write(b"cut"))
    with pytest.warns(UserWarning, match="passing over"):
        assert checkpoints.newest(folder).step == 5
    folder.child("step-00000003").publish("state.safetensors", lambda file: file.write(b"half sent"))
    checkpoints.save(folder, 7, {"a": torch.full((2,), 7.0)}, {}, keep=1)
    assert {entry.name.partition("/")[0] for entry in folder.files(recursive=True)} == {"step-00000007"}
    assert checkpoints.steps(folder) == [7]
    assert checkpoints.newest(folder).step == 7


@pytest.mark.slow
@pytest.mark.parametrize("as_run", [{}, {"conv1_order": "norm_pool_relu", "spatial_norm": True, "bottleneck": 8}])
def test_a_registered_model_takes_batches_of_any_size(as_run, tmp_path):
    import mlflow

    from workflows.tracking.tracker import Tracker

    net = AlexNet(replace(NET, **as_run)).eval()
    weights = {name: value.contiguous() for name, value in net.state_dict().items() if name != "mean"}
    folder = save_exported(tmp_path / "model", net.spec, weights, net.mean, class_names=("a", "b", "c"))
    tracker = Tracker(TrackingSpec(), tmp_path)
    tracker.begin_workflow("workflow", {})
    with tracker.stage("train", {}) as run:
        run.model(folder, "tiny", "newest", {})
    tracker.end_workflow("FINISHED")
    loaded = mlflow.pyfunc.load_model("models:/tiny@newest")
    images = np.random.default_rng(0).uniform(0, 255, (5, 3, 28, 28)).astype(np.float32)
    for count in (1, 2, 5):
        expected = net(torch.from_numpy(images[:count])).detach()
        torch.testing.assert_close(torch.from_numpy(loaded.predict(images[:count])), expected)


def test_a_network_has_as_many_classes_as_the_data_set_or_is_refused(tmp_path):
    _, manifest = write_shards(tmp_path, {"train": [4]}, encoding="raw", size_px=32)
    for given in (0, 3):
        assert network_for(AlexNetSpec(input_px=32, conv1_stride=1, num_classes=given), manifest).num_classes == 3
    for given in (2, 5):
        with pytest.raises(UsageError, match=f"net.num_classes is {given}, the data set has 3; use 0"):
            network_for(AlexNetSpec(input_px=32, conv1_stride=1, num_classes=given), manifest)


def test_a_plateau_without_validation_images_is_refused(tmp_path):
    _, without = write_shards(tmp_path / "without", {"train": [4]}, encoding="raw", size_px=32)
    _, manifest = write_shards(tmp_path / "with", {"train": [4], "val": [2]}, encoding="raw", size_px=32)
    with pytest.raises(UsageError, match="there are no validation images: set train.schedule=segments"):
        require_validation(TrainSpec(schedule="plateau"), without.num_rows("val"))
    require_validation(TrainSpec(schedule="plateau"), manifest.num_rows("val"))
    require_validation(TrainSpec(schedule="segments"), without.num_rows("val"))


def made(folder: Path) -> Path:
    folder.mkdir()
    return folder
