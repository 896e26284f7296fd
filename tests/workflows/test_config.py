"""A configuration survives its file, and wrong keys and values get a line that helps."""

import json
import sys
from dataclasses import replace

import pytest

from model.networks import num_params
from workflows import config, recipes
from workflows.config import RunConfig, UsageError


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_survives_its_file(name, tmp_path):
    path = tmp_path / "config.toml"
    path.write_text(config.dump(recipes.named(name)))
    assert config.load(path) == recipes.named(name)


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_bears_its_own_name_and_says_what_to_expect(name):
    assert recipes.named(name).recipe == name
    assert len(recipes.RECIPES[name].__doc__) > 60


PAPER_AND_AS_RUN = {  # the ten ways in which the network behind the paper's numbers differs from its prose
    "net.conv1_order": ("relu_norm_pool", "norm_pool_relu"),
    "net.spatial_norm": (False, True),
    "net.lrn_alpha_over_n": (False, True),
    "net.middle_std": (0.01, 0.03),
    "train.decays": ("", "*.bias=0"),
    "train.schedule": (  # the biases' rates, conv1 late in training, the light's end: three of the ten
        "plateau",
        "1:*=.01 *.bias=.02 23:*=.001 *.bias=.002 51:*=.0001 68:conv1=1e-5,light=0 72:conv1=0 78:*=1e-5",
    ),
    "loader.lighting": ("eigenvalue", "sigma"),
    "loader.offsets": (32, 0),  # 0: all 33
    "loader.crop_chunk": (1, 32),
}
ALSO_OF_THE_RUN = {  # of its data, its order and its schedule
    "recipe": ("paper", "as_run"),
    "ingest.labels": ("wnid", "devkit"),
    "loader.reshuffle": (True, False),
    "train.epochs": (90, 93),
    "ingest.source": ("ILSVRC2012", "ILSVRC2010"),
}


def test_paper_and_as_run_differ_in_the_ten_known_ways_and_in_the_run_s_data_and_schedule():
    paper, as_run = (config.values(recipes.named(name)) for name in ("paper", "as_run"))
    differing = {key: (value, as_run[key]) for key, value in paper.items() if value != as_run[key]}
    assert differing == PAPER_AND_AS_RUN | ALSO_OF_THE_RUN


@pytest.mark.parametrize(
    ("name", "count"),
    [
        *(("paper", 60_965_224), ("as_run", 60_965_224), ("one_gpu", 59_798_312), ("six_conv", 61_555_304)),
        *(("separate_pooling", 60_965_224), ("no_normalisation", 60_965_224), ("no_communication", 60_714_408)),
    ],
)
def test_a_recipe_has_its_known_parameters_at_1000_classes(name, count):
    assert num_params(replace(recipes.named(name).net, num_classes=1000)) == count


@pytest.mark.parametrize(
    ("name", "classes", "count"),
    [
        ("fall_2009", 10_184, 99_182_152),
        ("pretrain_2009", 10_184, 99_182_152),
        ("pretrain_2011", 21_843, 110_605_267),
        ("finetune_2012", 1000, 61_555_304),
    ],
)
def test_the_networks_of_the_chain_have_their_known_parameters(name, classes, count):
    assert num_params(replace(recipes.named(name).net, num_classes=classes)) == count


@pytest.mark.parametrize("name", recipes.RECIPES)
def test_a_recipe_fits_together_and_starts_from_one_that_is_there(name):
    made = recipes.named(name)
    config.check_together(made)
    before, _, which = made.train.init_from.partition("@")
    assert (before in recipes.RECIPES and which == "newest") or not made.train.init_from


def test_every_key_has_help():
    assert all(len(key.help) > 5 for key in config.keys().values())
    for kind in ("alexnet", "cifar10", "module:mynets:resnet18"):
        told = config.with_values(RunConfig(), {"net.kind": kind})
        assert set(config.keys(told)) == set(config.values(told))
        assert set(config.keys(told)) <= set(config.keys())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=3", "unknown key train.epoch; did you mean train.epochs?"),
        ("train.epochs=many", "train.epochs is 'many'; use a finite number"),
        ("train.epochs=0", "train.epochs is 0; use more than 0"),
        ("train.batch_size=many", "train.batch_size is 'many'; use a whole number"),
        ("train.schedule=manual", "train.schedule is 'manual'; use plateau, segments, constant, or '1:*=.01"),
        ("train.schedule=1:*=x", "train.schedule: 'x' is not a value, a number of 0 or more"),
        ("ingest.format=parket", "ingest.format is 'parket'; use parquet or tfrecord; did you mean parquet?"),
        ("loader.flip=perhaps", "loader.flip is 'perhaps'; use true or false"),
        ("net.kernels=a,b", "net.kernels is 'a,b'; use a list such as"),
        ("train.epochs", "write it as KEY=VALUE"),
    ],
)
def test_a_wrong_setting_gets_one_line_that_helps(setting, message):
    with pytest.raises(UsageError) as error:
        config.with_values(RunConfig(), dict([config.parse_setting(setting)]))
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_number_is_the_same_however_it_was_said():
    """A key digests it."""
    recipe = recipes.named("as_run")
    said = config.with_values(recipe, {"train.epochs": "93", "loader.lighting_coeff": "1e-1"})
    assert json.dumps(config.values(said)) == json.dumps(config.values(recipe))


def test_settings_take_the_type_of_their_key():
    text = ["train.epochs=3", "train.lr=1e-3", "loader.flip=false", "net.kernels=2,4,6,8,10", "net.columns=1"]
    changed = config.with_values(RunConfig(), dict(map(config.parse_setting, text)))
    assert (changed.train.epochs, changed.train.lr, changed.loader.flip) == (3, 1e-3, False)
    assert (changed.net.kernels, changed.net.columns) == ((2, 4, 6, 8, 10), 1)


def test_a_broken_file_is_named(tmp_path):
    path = tmp_path / "broken.toml"
    path.write_text("[train]\nepochs = ")
    with pytest.raises(UsageError, match=r"broken\.toml is not TOML"):
        config.load(path)
    with pytest.raises(UsageError, match="no configuration file"):
        config.load(tmp_path / "absent.toml")


def test_a_digest_does_not_depend_on_the_order_of_keys():
    assert config.digest({"a": 1, "b": [1, 2]}) == config.digest({"b": [1, 2], "a": 1})
    assert config.digest({"a": 1}) != config.digest({"a": 2})


def test_a_stage_reads_what_it_declares_and_nothing_else():
    read = config.select(RunConfig(), ("evaluate.*", "recipe"), ("evaluate.batch_size",))
    names = ("split", "weights", "views", "models", "leave_out", "keep_probabilities")
    of_evaluate = {f"evaluate.{key}" for key in names}
    assert set(read) == {"recipe", *of_evaluate}


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("train.init_from", "weights", "{here}/weights"),
        ("train.init_from", "~/weights", "{home}/weights"),
        ("train.init_from", "models:/alexnet-demo@best", "models:/alexnet-demo@best"),
        ("train.init_from", "six_conv@newest", "six_conv@newest"),
        ("ingest.source", "images", "{here}/images"),
        ("ingest.source", "demo", "demo"),
        ("ingest.source", "s3://bucket/images", "s3://bucket/images"),
        ("store", "", ""),
        ("store", "stored here", "{here}/stored here"),
        ("tracking.uri", "off", "off"),
        ("tracking.uri", "http://host:5000", "http://host:5000"),
        ("tracking.uri", "sqlite:///my.db", "sqlite:///{here}/my.db"),
        ("tracking.uri", "postgresql://host/db", "postgresql://host/db"),
    ],
)
def test_relative_paths_begin_in_a_stated_folder(key, given, meant, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    found = config.with_absolute_paths(config.with_values(RunConfig(), {key: given}), tmp_path / "here")
    assert config.values(found)[key] == meant.format(here=tmp_path / "here", home=tmp_path / "home")
    assert config.with_absolute_paths(found, tmp_path / "elsewhere") == found


def test_of_several_models_each_folder_begins_there_and_each_name_stays(tmp_path):
    said = "one, sub/two,/three,models:/alexnet-demo@best,six_conv@newest,s3://bucket/four"
    found = config.with_absolute_paths(config.with_values(RunConfig(), {"evaluate.models": said}), tmp_path)
    names = ("models:/alexnet-demo@best", "six_conv@newest", "s3://bucket/four")
    assert found.evaluate.models == (f"{tmp_path}/one", f"{tmp_path}/sub/two", "/three", *names)
    assert config.with_absolute_paths(found, tmp_path / "elsewhere") == found


def test_secrets_of_urls_are_not_written_down(tmp_path):
    given = {
        "store": "s3://AKIA:abc/def@bucket/p?secret_key=z&region=eu",
        "ingest.source": "https://host/x?sv=1&sig=abc",
        "tracking.uri": "postgresql://me:pw@host/db",
        "evaluate.models": ["s3://AKIA:abc@bucket/model", "/plain"],
    }
    text = config.dump(config.with_values(RunConfig(), given))
    assert not [secret for secret in ("AKIA", "abc", "=z", "pw@", "me:") if secret in text]
    (tmp_path / "config.toml").write_text(text)
    found = config.values(config.load(tmp_path / "config.toml"))
    left_to_the_environment = ["s3://bucket/p?region=eu", "https://host/x?sv=1", "postgresql://host/db"]
    left_to_the_environment.append(["s3://bucket/model", "/plain"])
    assert [found[key] for key in given] == left_to_the_environment


def test_a_file_of_another_version_gives_what_this_one_knows(tmp_path):
    path = tmp_path / "config.toml"
    path.write_text('store = "/x"\n[train]\nepochs = 7\nold_key = 1\nschedule = "gone"\n')
    found, unfit = config.load_known(path)
    assert (found.train.epochs, found.store, unfit) == (7, "/x", ("train.old_key", "train.schedule"))
    with pytest.raises(UsageError, match="unknown key train.old_key"):
        config.load(path)
    path.write_text("")
    with pytest.raises(UsageError, match="is empty"):
        config.load_known(path)


def test_the_kind_of_network_decides_its_keys():
    mine = config.with_values(RunConfig(), {"net.kind": "cifar10", "net.local_kernels": "8,8", "net.input_px": 24})
    assert (mine.net.kernels, mine.net.local_kernels, mine.net.input_px) == ((64, 64), (8, 8), 24)
    assert config.with_values(mine, {"net.kind": "cifar10"}) == mine
    assert config.with_values(mine, {"net.kind": "module:a.b:c"}).net.input_px == 24
    with pytest.raises(UsageError, match=r"net.fc is no key of a network of net.kind=cifar10"):
        config.with_values(mine, {"net.fc": "8,8"})
    with pytest.raises(UsageError, match=r"net.kind is 'resnet'; use alexnet, cifar10, or module:"):
        config.with_values(mine, {"net.kind": "resnet"})
    with pytest.raises(UsageError, match=r"write it as module:PACKAGE.MODULE:FUNCTION"):
        config.with_values(mine, {"net.kind": "module:a"})


@pytest.mark.parametrize("name", ["cifar10_11pct_first", "cifar10_18pct"])
def test_a_configuration_with_another_network_is_read_back(name, tmp_path):
    (tmp_path / "run.toml").write_text(config.dump(recipes.named(name)))
    assert config.load(tmp_path / "run.toml") == recipes.named(name)


def test_an_index_without_its_package_is_refused_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    config.require_faiss("none")
    with pytest.raises(UsageError, match=r"neighbours.index=flat needs FAISS: pip install '.\[search\]'"):
        config.require_faiss("flat")


def test_a_baseline_without_its_package_is_refused_with_the_way_to_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(UsageError, match=r"baseline fisher needs scikit-learn.*'\.\[baselines\]'"):
        config.require_scikit_learn("fisher")
    config.require_scikit_learn("sparse")
