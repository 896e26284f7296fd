"""The autoencoder's code is binary, and carries what tells vectors apart."""

import torch

from model.autoencoder import Autoencoder, train_epoch


def clusters(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors around eight centres far from zero, and whose they are."""
    generator = torch.Generator().manual_seed(0)
    centres = 5 * torch.randn(8, 20, generator=generator) + 30
    of = torch.arange(count) % 8
    return centres[of] + torch.randn(count, 20, generator=generator), of


def trained(bits: int = 12, epochs: int = 30) -> tuple[Autoencoder, list[float]]:
    vectors, _ = clusters(512)
    net = Autoencoder(20, bits)
    net.standardise(vectors.double().sum(0), vectors.double().square().sum(0), len(vectors))
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    return net, [train_epoch(net, optimizer, vectors.split(64)) for _ in range(epochs)]


def test_vectors_are_standardised_by_their_sums():
    vectors, _ = clusters(512)
    net, _ = trained(epochs=0)
    assert torch.allclose(net.mean_U, vectors.mean(0), atol=1e-4)
    assert torch.allclose(net.scale, (vectors - vectors.mean(0)).square().mean().sqrt(), atol=1e-4)


def test_it_learns_codes_that_tell_clusters_apart():
    net, errors = trained()
    assert errors[0] > 0.5  # 1 is the error of the mean
    assert errors[-1] < 0.15
    vectors, of = clusters(256)
    codes = net.bits(vectors)
    assert codes.dtype == torch.bool
    differ = (codes[:, None] != codes[None]).sum(-1).float()
    same = of[:, None] == of[None]
    assert differ[same].mean() < 2
    assert differ[~same].mean() > 3


def test_a_seed_gives_the_same_network_and_leaves_other_randomness_alone():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    first, second, other = (Autoencoder(20, 8, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(torch.rand(3), expected)
    weights = [net.encoder[0].weight for net in (first, second, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_vectors_that_are_all_alike_have_a_code():
    vectors = torch.full((10, 20), 7.0)
    net = Autoencoder(20, 8)
    net.standardise(vectors.double().sum(0), vectors.double().square().sum(0), 10)
    assert train_epoch(net, torch.optim.Adam(net.parameters()), [vectors]) < 1
    assert net.bits(vectors).shape == (10, 8)
