"""The notation of the logs: which rate holds where and when, and a caret under what cannot be read."""

import pytest

from model.notation import parse, parse_values, value_at

OF_2010 = "1:*=.01 *.bias=.02 23:*=.001 *.bias=.002 51:*=.0001 68:conv1=1e-5,light=0 72:conv1=0 78:*=1e-5"


def at(text: str, parameter: str, epoch: float) -> float | None:
    return value_at(parse(text, "train.schedule"), parameter, epoch)


@pytest.mark.parametrize(
    ("parameter", "changes"),
    [
        ("fc6.weight", [(1, 0.01), (22.99, 0.01), (23, 0.001), (51, 1e-4), (72, 1e-4), (77.99, 1e-4), (78, 1e-5)]),
        ("fc6.bias", [(1, 0.02), (22.99, 0.02), (23, 0.002), (51, 0.002), (93, 0.002)]),
        ("conv1.weight", [(1, 0.01), (67.99, 1e-4), (68, 1e-5), (71.99, 1e-5), (72, 0), (78, 0), (93.5, 0)]),
        ("conv1.bias", [(1, 0.02), (67.99, 0.002), (68, 1e-5), (72, 0), (93, 0)]),
        ("light", [(1, None), (67.99, None), (68, 0), (93, 0)]),
    ],
)
def test_the_log_of_table_1_is_read_as_it_was_meant(parameter, changes):
    """Its changes came at epochs 23, 51, 68, 72 and 78, counted from 1; the frozen conv1 stays so after the last."""
    assert [(epoch, at(OF_2010, parameter, epoch)) for epoch, _ in changes] == changes


@pytest.mark.parametrize(
    "text",
    [
        "1:conv1.bias=7 conv1=6 conv*.bias=5 conv*=4 c*=3 *.bias=2 *=1",
        "1:*=1 *.bias=2 c*=3 conv*=4 conv*.bias=5 conv1=6 conv1.bias=7",
        "1:*=9 c*=9,conv1=9 conv1.bias=9 1:conv1.bias=7 conv1=6 2:conv*.bias=5 3:conv*=4 c*=3 *.bias=2 *=1",
    ],
)
def test_the_closest_name_holds_in_whatever_order(text):
    found = [at(text, name, 3) for name in ("conv1.bias", "conv1.weight", "conv2.bias", "conv2.weight")]
    assert found == [7, 6, 5, 4]
    assert [at(text, name, 3) for name in ("fc6.bias", "fc6.weight")] == [2, 1]


def test_of_one_name_the_latest_holds_and_epochs_may_be_fractions():
    text = "1:*=.1 1.5:*=.2 *=.3 6.65:fc8=.01"
    assert [at(text, "fc8.weight", epoch) for epoch in (1, 1.49, 1.5, 6.64, 6.65)] == [0.1, 0.1, 0.3, 0.3, 0.01]


def test_decays_have_no_epochs():
    settings = parse_values("*.bias=0, fc10=.004", "train.decays")
    assert [value_at(settings, name, 1) for name in ("conv1.bias", "fc10.bias", "conv1.weight")] == [0, 0.004, None]


@pytest.mark.parametrize(
    ("text", "words", "column"),
    [
        ("1:*=.01 23:*=x", "'x' is not a value", 13),
        ("1:*=.01 conv1", "'conv1' is not NAME=VALUE", 8),
        ("*=.01", "no epoch is named yet", 0),
        ("1:*=.01 x:*=.1", "'x' is not an epoch", 8),
        ("0:*=.01", "epoch 0 comes before 1", 0),
        ("5:*=.01 3:*=.1", "epoch 3 comes before 5", 8),
        ("1:*=.01 3:*=-1", "'-1' is not a value, a number of 0 or more", 12),
        ("1:*=nan", "'nan' is not a value", 4),
        ("1:*=inf", "'inf' is not a value", 4),
        ("1:*=.01 2.5:light=0", "light changes with a whole epoch", 12),
        ("1:*=.01 2:conv1..bias=0", "is not NAME=VALUE", 10),
        ("1:*=.01,, 2:=0", "is not NAME=VALUE", 12),
    ],
)
def test_a_mistake_has_a_caret_under_its_place(text, words, column):
    with pytest.raises(ValueError, match="train.schedule: ") as caught:
        parse(text, "train.schedule")
    shown, caret = caught.value.__notes__
    assert words in str(caught.value)
    assert shown == f"  {text}"
    assert caret == f"  {' ' * column}^"


def test_a_schedule_without_any_rate_is_refused():
    with pytest.raises(ValueError, match="use epochs and rates"):
        parse("1:", "train.schedule")
