"""Arms are read as they are written, and what no arm can be is refused with its name."""

import pytest

from workflows import recipes
from workflows.config import UsageError, values
from workflows.studies.arms import Arm, arms, default_name, require_name, split
from workflows.studies.comparison import Comparison


def settings(varied=(), named=()):
    return {arm.name: arm.settings for arm in arms(varied, named)}


def test_varied_keys_are_multiplied_in_the_order_given():
    assert settings(["net.normalisation=true,false", "train.lr=.01,.005"]) == {
        "normalisation=true lr=.01": {"net.normalisation": "true", "train.lr": ".01"},
        "normalisation=true lr=.005": {"net.normalisation": "true", "train.lr": ".005"},
        "normalisation=false lr=.01": {"net.normalisation": "false", "train.lr": ".01"},
        "normalisation=false lr=.005": {"net.normalisation": "false", "train.lr": ".005"},
    }


def test_commas_in_brackets_and_quotes_are_the_value_s():
    assert settings(["net.fc=[64,64],(128, 128)"]) == {
        "fc=[64,64]": {"net.fc": "[64,64]"},
        "fc=(128, 128)": {"net.fc": "(128, 128)"},
    }
    schedule = "1:*=.01 *.bias=.02 23:*=.001 68:conv1=1e-5,light=0"
    assert settings([f"train.schedule='{schedule}',constant"]) == {
        "schedule 1": {"train.schedule": schedule},
        "schedule=constant": {"train.schedule": "constant"},
    }


def test_keys_of_the_same_last_name_are_told_apart():
    assert list(settings(["train.batch_size=8", "evaluate.batch_size=9"])) == [
        "train.batch_size=8 evaluate.batch_size=9"
    ]


def test_a_named_arm_may_have_lists_and_schedules_without_quotes():
    schedule = "1:*=.01 *.bias=.02 67:conv1=1e-5,light=0 72:conv1=0"
    text = f"as run:net.kernels=48,96,144,144,96,net.fc=[64,64],train.schedule={schedule},train.epochs=3"
    assert settings(named=[text, "plain", "too:"]) == {
        "as run": {
            "net.kernels": "48,96,144,144,96",
            "net.fc": "[64,64]",
            "train.schedule": schedule,
            "train.epochs": "3",
        },
        "plain": {},
        "too": {},
    }


def test_named_arms_follow_the_varied_ones():
    assert list(settings(["net.columns=1,2"], ["tanh:net.activation=tanh"])) == ["columns=1", "columns=2", "tanh"]


@pytest.mark.parametrize(
    ("varied", "named", "words"),
    [
        (["train.lr"], [], "--vary train.lr: write it as KEY=VALUE,VALUE"),
        (["train.lr=1,"], [], "--vary train.lr=1,: write it"),
        (["net.fc=[1,2"], [], "] is missing at its end"),
        (["net.fc=1,2]"], [], "] closes nothing"),
        (["net.fc=[1,2)"], [], ") closes nothing"),
        (["train.schedule='a,b"], [], "' is missing at its end"),
        (["train.lrr=1,2"], [], "unknown key train.lrr; did you mean train.lr?"),
        (["train.seed=1,2"], [], "train.seed is what --seeds sets"),
        (["ray.num_cpus=1,2"], [], "ray.num_cpus is the same for all arms: use --set ray.num_cpus="),
        (["train.lr=1,1"], [], "two arms are called lr=1"),
        ([], ["a:train.lr=1", "a:train.lr=2"], "two arms are called a"),
        ([], ["train.lr=1"], "--arm train.lr=1: write it as NAME:KEY=VALUE"),
        ([], ["a:lr"], "lr is not KEY=VALUE"),
        ([], ["a:train.lr=1,train.lr=2"], "it sets a key twice"),
        ([], ["a:conv1.bias=0"], "conv1.bias=0 is not KEY=VALUE"),
        ([], ["a:baseline=fischer"], "arm a: baseline=fischer; use fisher or sparse; did you mean fisher?"),
        ([], ["a:baseline=fisher,net.fc=9"], "arm a: the baseline fisher knows no net.fc"),
        ([], ["a:baseline=fisher,sparse.atoms=9"], "arm a: the baseline fisher knows no sparse.atoms"),
        ([], ["a:fisher.passes=9"], "arm a: fisher.passes is none of a network: with it goes baseline=fisher"),
        ([], ["a:baseline=fisher,fisher.seed=9"], "fisher.seed is what --seeds sets"),
    ],
)
def test_what_no_arm_can_be_is_refused(varied, named, words):
    with pytest.raises(UsageError) as refused:
        arms(varied, named)
    assert words in str(refused.value)


def test_a_value_that_does_not_fit_is_refused_with_the_arm_s_name():
    with pytest.raises(UsageError, match="arm normalisation=maybe: net.normalisation is 'maybe'; use true or false"):
        Arm("normalisation=maybe", {"net.normalisation": "maybe"}).config(recipes.demo(), 0)


def test_one_seed_sets_every_seed_but_the_stored_order_s():
    (member,) = Comparison("one", recipes.demo(), (Arm("a", {"train.lr": ".5"}),), (7,)).members
    before, after = values(recipes.demo()), values(member.config)
    assert {name: value for name, value in after.items() if value != before[name]} == {
        "train.lr": 0.5,
        "train.seed": 7,
        "loader.seed": 7,
        "tracking.model_name": "alexnet-one",
    }


def test_a_baseline_is_an_arm_made_of_its_own_stage():
    named = ["network", "vectors:baseline=fisher,fisher.grids=1,2,evaluate.split=train", "codes:baseline=sparse"]
    found = Comparison("three", recipes.demo(), arms([], named), (7,), also=("neighbours",)).members
    assert [member.stages for member in found] == [
        ("ingest", "stats", "train", "evaluate", "features", "neighbours"),
        ("ingest", "fisher"),
        ("ingest", "sparse"),
    ]
    assert [(member.trained_by, member.evaluated_by) for member in found[:2]] == [
        ("train", "evaluate"),
        ("fisher", "fisher"),
    ]
    before, after = values(recipes.demo()), values(found[1].config)
    assert {name: value for name, value in after.items() if value != before[name]} == {
        "evaluate.split": "train",
        "fisher.seed": 7,
        "tracking.model_name": "alexnet-three",
    }
    assert after["fisher.grids"] == [1, 2]


def test_baselines_may_be_varied_and_the_same_one_twice_is_refused():
    assert list(settings(["baseline=fisher,sparse"])) == ["baseline=fisher", "baseline=sparse"]
    twice = Comparison("two", recipes.demo(), arms([], ["a:baseline=fisher", "b:baseline=fisher"]), (0,))
    with pytest.raises(UsageError, match="a and b are the same configuration"):
        _ = twice.members


def test_arms_that_say_the_same_are_refused():
    twice = Comparison("two", recipes.demo(), arms(["train.lr=.01,1e-2"], []), (0,))
    with pytest.raises(UsageError, match="lr=.01 and lr=1e-2 are the same configuration"):
        _ = twice.members


def test_names_come_from_the_varied_keys_or_the_arms_and_are_folders():
    varied = ["net.normalisation=true,false", "train.lr=1,2"]
    assert default_name("cifar10", varied, arms(varied, [])) == "cifar10-normalisation-lr"
    named = arms([], ["as run:train.lr=1", "a/b"])
    assert default_name("demo", [], named) == "demo-as-run-a-b"
    for name in ("..", ".hidden", "a/b", "", "x" * 61):
        with pytest.raises(UsageError, match="--name"):
            require_name(name)
    assert require_name("lrn-2.1_a=b") == "lrn-2.1_a=b"


def test_splitting_keeps_every_character():
    text = "a,(b,[c]),'d,e',\"f',g\",h"
    assert ",".join(split(text, "here")) == text
    assert split(text, "here") == ["a", "(b,[c])", "'d,e'", '"f\',g"', "h"]
