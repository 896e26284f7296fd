"""The baselines' arithmetic against slow obvious twins: descriptors, Fisher vectors, sparse codes, the pyramid."""

import math
from dataclasses import replace

import numpy as np
import pytest
import shard_builder
from scipy.stats import norm

from pipelines.baselines import encoding
from pipelines.baselines.descriptors import Dense, orientation_maps
from pipelines.baselines.fisher import FisherVocabulary
from pipelines.baselines.pyramid import regions
from pipelines.baselines.sparse import SparseVocabulary, dictionary, whitening
from pipelines.baselines.specs import DESCRIPTORS, FisherSpec, SparseSpec
from pipelines.shards import read_shard
from pipelines.storage import Folder

SMALL_FISHER = FisherSpec(gaussians=3, components=4)
SMALL_SPARSE = SparseSpec(atoms=5, threshold=0.2)


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(3)


@pytest.fixture
def images_BSSC(random) -> np.ndarray:
    return np.stack([shard_builder.pixels(seed, 16) for seed in range(4)])


def triangle(pixel: int, start: float, bin_px: float, number: int) -> float:
    return max(0.0, 1 - abs(pixel - (start + bin_px * (number + 0.5) - 0.5)) / max(bin_px, 1))


def sift_of_a_patch(image_SSC: np.ndarray, top: int, left: int, patch_px: int) -> np.ndarray:
    """4 x 4 bins of 8 orientations, pixel by pixel."""
    side = len(image_SSC)
    grey = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row.tolist()] for row in image_SSC]
    bins, weights = np.zeros((4, 4, 8)), np.zeros((4, 4, 1))
    for y in range(side):
        for x in range(side):
            dx = (grey[y][min(x + 1, side - 1)] - grey[y][max(x - 1, 0)]) / 2
            dy = (grey[min(y + 1, side - 1)][x] - grey[max(y - 1, 0)][x]) / 2
            turn = math.atan2(dy, dx) % (2 * math.pi) / (2 * math.pi) * 8
            share = turn - math.floor(turn)
            for i in range(4):
                for j in range(4):
                    w = triangle(y, top, patch_px / 4, i) * triangle(x, left, patch_px / 4, j)
                    weights[i, j] += w
                    bins[i, j, math.floor(turn) % 8] += w * (1 - share) * math.hypot(dx, dy)
                    bins[i, j, (math.floor(turn) + 1) % 8] += w * share * math.hypot(dx, dy)
    values = (bins / weights).ravel()
    return np.sqrt(np.minimum(values / max(1, np.linalg.norm(values)), 0.2))


def test_sift_is_that_of_each_patch_alone(images_BSSC):
    described = Dense("sift", 16, (0.5, 0.75), 0.25)
    found_BPD = described(images_BSSC)
    corners = [(8, top, left) for top in (0, 4, 8) for left in (0, 4, 8)]
    corners += [(12, top, left) for top in (0, 4) for left in (0, 4)]
    assert found_BPD.shape == (4, len(corners), 128)
    for place, (patch_px, top, left) in enumerate(corners):
        expected_D = sift_of_a_patch(images_BSSC[1], top, left, patch_px)
        np.testing.assert_allclose(found_BPD[1, place], expected_D, atol=1e-4)
        np.testing.assert_allclose(described.centres_P2[place], [(top + patch_px / 2) / 16, (left + patch_px / 2) / 16])


@pytest.mark.parametrize(("angle", "share"), [(0, 1.0), (45, 1.0), (-90, 1.0), (22.5, 0.5), (180, 1.0)])
def test_a_slope_goes_to_its_own_orientation(angle, share):
    y, x = np.mgrid[:16, :16]
    slope = np.cos(np.radians(angle)) * x + np.sin(np.radians(angle)) * y
    image = np.repeat(((slope - slope.min()) * 8)[..., None], 3, -1)  # not rounded to levels
    inner_M = orientation_maps(image[None])[:, 0, 8, 8]
    place = int(angle // 45) % 8
    assert inner_M[place] == pytest.approx(8 * share, abs=1e-3)
    assert inner_M.sum() == pytest.approx(8, abs=1e-3)


def test_colour_is_mean_and_deviation_of_each_bin():
    image = np.zeros((1, 16, 16, 3), np.uint8)
    image[:, :, :, 0], image[:, :, ::2, 1] = 64, 128  # even red; green stripes
    (values_D,) = Dense("colour", 16, (1.0,), 1.0)(image)[0]
    of_bins = values_D.reshape(4, 4, 6)[:, 1:3]  # whose pixels are all in the image
    np.testing.assert_allclose(of_bins, np.broadcast_to([-1, -1, -2, 0, 1, 0], of_bins.shape), atol=1e-3)


def test_patches_of_one_pixel_a_bin_are_the_pixels(images_BSSC):
    found_BPD = Dense("patches", 16, (6 / 16,), 1 / 16)(images_BSSC)
    pixels = images_BSSC[2, 3:9, 5:11].astype(float).ravel()
    expected = (pixels - pixels.mean()) / np.sqrt(pixels.var() + 9)
    np.testing.assert_allclose(found_BPD[2, 3 * 11 + 5], expected, atol=1e-4)


@pytest.mark.parametrize("kind", DESCRIPTORS)
def test_flat_and_grey_images_have_finite_vectors(kind, images_BSSC):
    described = Dense(kind, 16, (0.5,), 0.25)
    inside = regions(described.centres_P2, (1, 2))
    known_ND = described(images_BSSC).reshape(-1, described(images_BSSC).shape[-1])
    grey = np.repeat(images_BSSC[..., :1], 3, -1)
    odd = np.concatenate([np.zeros_like(grey[:1]), np.full_like(grey[:1], 255), grey[:1]])
    for spec in (SMALL_FISHER, SMALL_SPARSE):
        found = encoding.learn(known_ND, spec).encode(described(odd), inside)
        assert np.isfinite(found).all()
        assert np.linalg.norm(found, axis=1).max() < 1.001


def fisher_by_the_formula(x_PC, w_K, m_KC, v_KC) -> np.ndarray:
    """The vector of one region, Gaussian by Gaussian and descriptor by descriptor."""
    likelihood_PK = np.array(
        [[w * norm.pdf(x, m, np.sqrt(v)).prod() for w, m, v in zip(w_K, m_KC, v_KC, strict=True)] for x in x_PC]
    )
    q_PK = likelihood_PK / likelihood_PK.sum(1, keepdims=True)
    parts = []
    for k, w in enumerate(w_K):
        z_PC = (x_PC - m_KC[k]) / np.sqrt(v_KC[k])
        u = sum(q * z for q, z in zip(q_PK[:, k], z_PC, strict=True)) / len(x_PC) / np.sqrt(w)
        v = sum(q * (z**2 - 1) for q, z in zip(q_PK[:, k], z_PC, strict=True)) / len(x_PC) / np.sqrt(2 * w)
        parts += [u, v]
    vector = np.concatenate(parts)
    vector = np.sign(vector) * np.sqrt(np.abs(vector))
    return vector / np.linalg.norm(vector)


def test_fisher_vectors_are_those_of_the_formula(random):
    vocabulary = FisherVocabulary.learn(
        random.normal(size=(400, 6)).astype(np.float32) * [1, 2, 3, 1, 1, 5], SMALL_FISHER
    )
    descriptors_BPD = random.normal(size=(2, 9, 6)).astype(np.float32) * 2
    inside = [np.arange(9), np.array([0, 4, 7])]
    found_BF = vocabulary.encode(descriptors_BPD, inside)
    assert found_BF.shape == (2, 2 * SMALL_FISHER.values_each)
    learned = (vocabulary.weights_K, vocabulary.means_KC, vocabulary.variances_KC)
    for image in range(2):
        x_PC = (descriptors_BPD[image] - vocabulary.mean_D) @ vocabulary.components_DC
        expected = [fisher_by_the_formula(x_PC[part].astype(float), *learned) for part in inside]
        np.testing.assert_allclose(found_BF[image], np.concatenate(expected) / np.sqrt(2), atol=2e-4)


def test_what_encoded_images_take_is_known_before(random):
    """Of three kinds of descriptor, with a pyramid of 1 + 4 parts, 2 bytes a value."""
    descriptors_ND = random.normal(size=(60, 6)).astype(np.float32)
    vocabulary = SparseVocabulary.learn(descriptors_ND, SMALL_SPARSE)
    assert vocabulary.encode(descriptors_ND[None], [np.arange(60)]).shape == (1, SMALL_SPARSE.values_each)
    spec = replace(SMALL_SPARSE, grids=(1, 2))
    assert spec.encoded_bytes == 3 * 5 * 5 * 2


def test_the_mixture_finds_the_clusters_that_there_are(random):
    centres = np.array([[9, 0], [0, 9], [-9, -9]])
    points = np.concatenate([centre + random.normal(size=(50 * (k + 1), 2)) for k, centre in enumerate(centres)])
    spec = FisherSpec(gaussians=3, components=2)
    vocabulary = FisherVocabulary.learn(points.astype(np.float32), spec)
    order = np.argsort(vocabulary.weights_K)
    np.testing.assert_allclose(vocabulary.weights_K[order], [1 / 6, 2 / 6, 3 / 6], atol=0.02)
    found = vocabulary.means_KC[order] @ vocabulary.components_DC.T + vocabulary.mean_D
    np.testing.assert_allclose(found, centres, atol=0.5)


def test_sparse_codes_are_the_largest_products_above_the_threshold(random):
    vocabulary = SparseVocabulary.learn(random.normal(size=(300, 6)).astype(np.float32), SMALL_SPARSE)
    descriptors_BPD = random.normal(size=(2, 9, 6)).astype(np.float32)
    inside = [np.arange(9), np.array([0, 4, 7])]
    found_BF = vocabulary.encode(descriptors_BPD, inside)
    for image in range(2):
        codes = []
        for part in inside:
            whitened = [(x - vocabulary.mean_D) @ vocabulary.whitening_DD for x in descriptors_BPD[image, part]]
            for atom in vocabulary.atoms_AD:
                codes.append(max(0, max(x @ atom / np.linalg.norm(x) for x in whitened) - 0.2))
        np.testing.assert_allclose(found_BF[image], np.array(codes) / np.linalg.norm(codes), atol=1e-5)


def test_the_dictionary_finds_the_directions_that_there_are(random):
    directions_AD = np.linalg.qr(random.normal(size=(8, 8)))[0][:5]
    points = np.repeat(directions_AD, 60, 0) * random.choice([-1, 1], (300, 1)) + random.normal(size=(300, 8)) * 0.02
    points = (points / np.linalg.norm(points, axis=1, keepdims=True)).astype(np.float32)
    atoms_AD = dictionary(points, 12, random)
    assert (np.abs(directions_AD @ atoms_AD.T).max(1) > 0.99).all()
    np.testing.assert_allclose(np.linalg.norm(atoms_AD, axis=1), 1, atol=1e-5)


def test_whitening_undoes_the_covariance_and_a_little_noise(random):
    points = (random.normal(size=(2000, 4)) @ random.normal(size=(4, 4)) + 5).astype(np.float32)
    mean_D, whitening_DD = whitening(points)
    covariance = np.cov(points.T)
    noisy = covariance + np.eye(4) * covariance.trace() / 4 / 100
    np.testing.assert_allclose(whitening_DD @ noisy @ whitening_DD, np.eye(4), atol=1e-3)
    np.testing.assert_allclose(mean_D, points.mean(0))


@pytest.mark.parametrize("spec", [SMALL_FISHER, SMALL_SPARSE])
def test_too_few_descriptors_are_refused(spec):
    with pytest.raises(ValueError, match=r"2 descriptors are too few for (fisher.gaussians=3|sparse.atoms=5)"):
        encoding.learn(np.zeros((2, 6), np.float32), spec)


def test_regions_are_the_cells_of_each_grid():
    centres_P2 = np.array([[0.1, 0.1], [0.1, 0.9], [0.9, 0.1], [0.9, 0.9], [0.4, 0.6]])
    assert [part.tolist() for part in regions(centres_P2, (1, 2))] == [[0, 1, 2, 3, 4], [0], [1, 4], [2], [3]]
    with pytest.raises(ValueError, match="grids=3: a part of the image has no patch"):
        regions(centres_P2, (3,))


@pytest.mark.parametrize("encoded_as", ["jpeg", "raw"])
def test_a_shard_is_sampled_and_encoded_whatever_its_images_are(encoded_as, tmp_path, random):
    store, manifest = shard_builder.write_shards(tmp_path, {"train": [9]}, "parquet", encoded_as)
    (record,) = manifest.splits["train"]
    rows = read_shard(store, record)
    spec = FisherSpec(gaussians=3, components=4)
    described = encoding.dense("sift", spec, manifest.size_px)
    everything = described(np.concatenate(list(encoding.batches(rows.images, manifest.size_px))))
    sample_ND = encoding.sampled(rows, described, 50, random)
    assert sample_ND.shape == (50, 128)
    known = {values.tobytes() for values in everything.reshape(-1, 128)}
    assert all(values.tobytes() in known for values in sample_ND)
    vocabulary = encoding.learn(sample_ND, spec)
    encoding.save(vocabulary, Folder.at(tmp_path / "sift"))
    kept = encoding.load(Folder.at(tmp_path / "sift"), spec)
    vectors = np.concatenate(list(encoding.encoded(rows, described, kept, spec.grids)))
    inside = regions(described.centres_P2, spec.grids)
    np.testing.assert_allclose(vectors, vocabulary.encode(everything, inside), atol=1e-5)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"descriptors": ("sift", "hog")}, "fisher.descriptors is sift,hog; use some of sift, colour, patches"),
        ({"descriptors": ()}, "fisher.descriptors is ; use some of"),
        ({"patches": (0.5, 2.0)}, "fisher.patches is 0.5,2.0; use shares"),
        ({"grids": (0,)}, "fisher.grids is 0;"),
        ({"held_out": 0.0}, "fisher.held_out is 0.0; use a share between 0 and 1"),
        ({"rates": ()}, "fisher.rates is ;"),
        ({"components": 500}, "fisher.components is 500; use 1 to 48"),
    ],
)
def test_what_cannot_be_is_refused(given, said):
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        FisherSpec(**given)
