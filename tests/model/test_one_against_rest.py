"""Linear classifiers: the step is the gradient's, settings do not touch each other, and what can be told apart is."""

import pytest
import torch

from model.one_against_rest import OneAgainstRest, Setting

SETTINGS = (Setting(0.5, 0.0), Setting(2.0, 0.1))


def data(num_images=40, num_values=6, num_classes=3):
    random = torch.Generator().manual_seed(0)
    labels_B = torch.arange(num_images) % num_classes
    values_BF = torch.randn(num_images, num_values, generator=random) * 0.2
    values_BF[torch.arange(num_images), labels_B] += 1
    return values_BF, labels_B


def test_a_step_goes_down_the_slope_of_the_logistic_loss():
    values_BF, labels_B = data()
    classifier = OneAgainstRest([Setting(0.5, 0.1)], 6, 3, len(labels_B))
    for left in (1.0, 0.5):
        weights_FK = classifier.weights_FX.clone().requires_grad_()
        biases_K = classifier.biases_X.clone().requires_grad_()
        is_class_BK = torch.nn.functional.one_hot(labels_B, 3).float()
        scores_BK = values_BF @ weights_FK + biases_K
        losses_BK = torch.nn.functional.binary_cross_entropy_with_logits(scores_BK, is_class_BK, reduction="none")
        (losses_BK.sum(1).mean() + 0.1 / 2 * (weights_FK**2).sum()).backward()
        expected_FK = weights_FK - 0.5 * left * weights_FK.grad
        expected_K = biases_K - 0.1 * 0.5 * left * biases_K.grad
        classifier.step(values_BF, labels_B, left)
        torch.testing.assert_close(classifier.weights_FX, expected_FK.detach())
        torch.testing.assert_close(classifier.biases_X, expected_K.detach())


def test_settings_learn_side_by_side_as_each_alone():
    values_BF, labels_B = data()
    together = OneAgainstRest(SETTINGS, 6, 3, 10)
    alone = [OneAgainstRest([setting], 6, 3, 10) for setting in SETTINGS]
    for number, start in enumerate(range(0, 40, 10)):
        batch = (values_BF[start : start + 10], labels_B[start : start + 10], 1 - number / 4)
        for classifier in (together, *alone):
            classifier.step(*batch)
    found_SBK = together.probabilities(values_BF)
    torch.testing.assert_close(found_SBK, torch.cat([one.probabilities(values_BF) for one in alone]))
    torch.testing.assert_close(found_SBK.sum(-1), torch.ones(2, 40))
    assert (found_SBK[0] - found_SBK[1]).abs().max() > 0.05


def test_what_is_left_of_a_batch_counts_for_less():
    values_BF, labels_B = data()
    rest = OneAgainstRest([Setting(0.5, 0.0)], 6, 3, 40)
    rest.step(values_BF[:1], labels_B[:1], 1.0)
    slower = OneAgainstRest([Setting(0.5 / 40, 0.0)], 6, 3, 1)
    slower.step(values_BF[:1], labels_B[:1], 1.0)
    torch.testing.assert_close(rest.weights_FX, slower.weights_FX)
    assert rest.weights_FX.any()


@pytest.mark.parametrize("place", [0, 1])
def test_what_can_be_told_apart_is(place):
    values_BF, labels_B = data()
    classifier = OneAgainstRest(SETTINGS, 6, 3, 10)
    for number in range(100):
        start = number % 4 * 10
        classifier.step(values_BF[start : start + 10], labels_B[start : start + 10], 1 - number / 100)
    assert (classifier.probabilities(values_BF)[place].argmax(-1) == labels_B).all()
