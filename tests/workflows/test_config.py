"""A configuration survives its file, and wrong keys and values get a line that helps."""

import pytest

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


def test_every_key_has_help():
    assert all(len(key.help) > 5 for key in config.keys().values())
    assert set(config.keys()) == set(config.values(RunConfig()))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("train.epoch=3", "unknown key train.epoch; did you mean train.epochs?"),
        ("train.epochs=many", "train.epochs is 'many'; use a whole number"),
        ("train.epochs=0", "train.epochs is 0; use 1 or more"),
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
    assert set(read) == {"recipe", "evaluate.split", "evaluate.weights"}
