"""Cutout, mixup and CutMix: the boxes, the mixing weights and the partners, exactly and in distribution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxconv import DtypeError, InputError
from jaxconv.data import augment

KEY = jax.random.key(0)
EYE = np.eye(64, dtype=np.float32)  # one class per image, so that the targets identify the partner

# Batches of 64 without jit, so that the loops of the Beta distribution, which are slow to compile, compile once.


@pytest.mark.parametrize("size", [(4, 2), (3, 3), (1, 6)])
def test_cutout_center_is_uniform(size):
    count, (height, width) = 2400, (5, 6)
    y = np.asarray(augment.cutout(size)(KEY, np.ones((count, height, width, 2), np.float32)))
    assert (y[..., 0] == y[..., 1]).all()
    centers = {}
    for a in range(height):
        for b in range(width):
            image = np.ones((height, width), np.float32)
            top, left = a - size[0] // 2, b - size[1] // 2
            image[max(top, 0) : top + size[0], max(left, 0) : left + size[1]] = 0
            centers.setdefault(image.tobytes(), []).append((a, b))
    counts = dict.fromkeys(centers, 0)
    for image in y[..., 0]:
        counts[image.tobytes()] += 1  # KeyError for an impossible image
    expected = np.array([len(equivalent) for equivalent in centers.values()]) * count / (height * width)
    chi2 = ((np.array(list(counts.values())) - expected) ** 2 / expected).sum()
    assert chi2 < len(centers) - 1 + 6 * np.sqrt(2 * (len(centers) - 1))


def test_cutout_replaces_nan():
    images = np.full((50, 3, 3, 1), np.nan, np.float32)
    assert (np.asarray(augment.cutout(3)(KEY, images)) == 0).any((1, 2, 3)).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_interpolates_with_beta_weights(alpha):
    images = np.random.default_rng(0).uniform(size=(64, 3, 2, 1)).astype(np.float32)
    mix, weights = augment.mixup(alpha), []
    for seed in range(10):
        y, targets = mix(jax.random.key(seed), images, EYE)
        np.testing.assert_allclose(np.asarray(targets).sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(y, np.einsum("np,phwc->nhwc", targets, images), atol=1e-6)
        assert ((np.asarray(targets) > 0).sum(1) <= 2).all()
        np.testing.assert_allclose(np.asarray(targets).sum(0).sum(), 64, rtol=1e-5)
        off_diagonal = np.asarray(targets) * (1 - EYE)
        partner = np.where(off_diagonal.any(1), off_diagonal.argmax(1), -1)
        identified = partner[partner >= 0]
        assert len(set(identified)) == len(identified) > 30  # partners are a permutation
        weights += list(np.diag(targets)[partner >= 0])
    # Weights are Beta(α, α). At α = 0.2 some round to 1 in float32; they identify no partner and are left out.
    if alpha >= 1:
        assert stats.kstest(weights, stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    else:
        assert abs(np.mean(np.array(weights) > 0.5) - 0.5) < 0.15 and np.var(weights) > 0.1


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 1000.0])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixing_weights_are_finite_at_every_alpha(name, alpha):
    y, targets = augment.BATCH_MIXERS[name](alpha)(KEY, np.ones((64, 6, 6, 1), np.float32), EYE)
    np.testing.assert_allclose(y, 1, atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    weights = np.diag(targets)
    if alpha == 1000:
        assert (np.abs(weights[weights < 1] - 0.5) < 0.1).all() or name == "cutmix"
    if alpha == 0.001 and name == "mixup":
        assert ((weights < 1e-3) | (weights > 1 - 1e-3)).mean() > 0.9


def test_cutmix_box_matches_weight_and_paper():
    height, width = 9, 6
    rows, columns = np.mgrid[:height, :width]
    position = rows * width + columns
    # A value identifies the image and the pixel: image · 100 + position.
    images = (np.arange(64)[:, None, None, None] * 100 + position[..., None]).astype(np.float32)
    mix, areas, centers = augment.cutmix(), [], []
    for seed in range(20):
        y, targets = mix(jax.random.key(seed), images, EYE)
        y = np.asarray(y)[..., 0]
        assert (y % 100 == position).all()  # pixels keep their position
        source = y.astype(int) // 100
        assert len({(source[n] != n).sum() for n in range(64)}) > 10  # the sizes differ between images
        for n in range(64):
            box = source[n] != n
            area = box.sum()
            assert targets[n, n] == pytest.approx(1 - area / (height * width), abs=1e-7)
            if area == 0:
                continue
            areas.append(area)
            (partner,) = set(source[n][box])
            assert targets[n, partner] == pytest.approx(area / (height * width), abs=1e-7)
            i, j = np.nonzero(box)
            assert (np.ptp(i) + 1) * (np.ptp(j) + 1) == area  # the changed pixels are a rectangle
            centers.append((i.mean(), j.mean()))
    assert max(areas) > 0.7 * height * width
    # Compare position and area with the paper's algorithm in numpy.
    rng, actual = np.random.default_rng(0), np.array([(area, *center) for area, center in zip(areas, centers)])
    reference = []
    for side in np.sqrt(1 - rng.uniform(size=20_000)):
        starts = [rng.integers(n) - int(n * side) // 2 for n in (height, width)]
        spans = [range(max(a, 0), min(a + int(n * side), n)) for a, n in zip(starts, (height, width))]
        if all(spans):
            reference.append((len(spans[0]) * len(spans[1]), *map(np.mean, spans)))
    error = np.std(reference, axis=0) / np.sqrt(len(actual))
    assert (np.abs(actual.mean(0) - np.mean(reference, axis=0)) < 5 * error).all()
    assert abs(len(actual) / 1280 - len(reference) / 20_000) < 0.03


def test_cutmix_box_has_aspect_ratio_of_image():
    images = np.stack([np.zeros((40, 20, 1)), np.ones((40, 20, 1))] * 32).astype(np.float32)
    y = np.asarray(augment.cutmix()(KEY, images, EYE)[0])[..., 0]
    ratios = []
    for before, after in zip(images[..., 0], y):
        i, j = np.nonzero(before != after)
        inside = len(i) and min(i) > 0 and max(i) < 39 and min(j) > 0 and max(j) < 19
        if inside and len(i) > 50:
            ratios.append((np.ptp(i) + 1) / (np.ptp(j) + 1))
    assert len(ratios) > 3 and abs(np.mean(ratios) - 2) < 0.3


def test_mixers_accept_soft_targets():
    images = np.zeros((64, 2, 2, 1), np.float32)
    targets = np.random.default_rng(0).dirichlet(np.ones(7), 64).astype(np.float32)
    for name in augment.BATCH_MIXERS:
        _, mixed = augment.BATCH_MIXERS[name](1.0)(KEY, images, targets)
        np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-5)
        assert mixed.shape == targets.shape and not np.allclose(mixed, targets)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_mixers_invalid_targets_raise(name):
    mix, images = augment.BATCH_MIXERS[name](), jnp.zeros((4, 3, 3, 1))
    with pytest.raises(InputError, match=rf"{name}: targets \(4,\) should be \(N, classes\) for 4 images: jax.nn.one"):
        mix(KEY, images, jnp.arange(4))
    with pytest.raises(InputError, match=rf"{name}: targets \(5, 5\) should be \(N, classes\) for 4 images"):
        mix(KEY, images, jnp.eye(5))
    with pytest.raises(DtypeError, match=f"{name}: targets is int32; convert it first"):
        mix(KEY, images, jnp.eye(4, dtype=int))
