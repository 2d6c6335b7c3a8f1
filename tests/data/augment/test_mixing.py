"""Cutout, mixup and cutmix: the boxes to the pixel, the shares to the area, and who is mixed with whom."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from jaxconv import DtypeError, InputError
from jaxconv.data import augment

KEY = jax.random.key(0)
EYE = np.eye(64, dtype=np.float32)  # one class an image, so that the targets tell the partner

# Batches of 64 and no jit of our own: Beta's loops are what takes long to compile here, and so they are compiled once.


@pytest.mark.parametrize("size", [(4, 2), (3, 3), (1, 6)])
def test_cutout_is_a_box_about_any_pixel_as_likely_as_another(size):
    count, (height, width) = 2400, (5, 6)
    y = np.asarray(augment.cutout(size)(KEY, np.ones((count, height, width, 2), np.float32)))
    assert (y[..., 0] == y[..., 1]).all()
    centres = {}
    for a in range(height):
        for b in range(width):
            image = np.ones((height, width), np.float32)
            top, left = a - size[0] // 2, b - size[1] // 2
            image[max(top, 0) : top + size[0], max(left, 0) : left + size[1]] = 0
            centres.setdefault(image.tobytes(), []).append((a, b))
    seen = dict.fromkeys(centres, 0)
    for each in y[..., 0]:
        seen[each.tobytes()] += 1  # one of those allowed, or a KeyError
    expected = np.array([len(same) for same in centres.values()]) * count / (height * width)
    chi2 = ((np.array(list(seen.values())) - expected) ** 2 / expected).sum()
    assert chi2 < len(centres) - 1 + 6 * np.sqrt(2 * (len(centres) - 1))


def test_cutout_hides_even_what_is_not_a_number():
    images = np.full((50, 3, 3, 1), np.nan, np.float32)
    assert (np.asarray(augment.cutout(3)(KEY, images)) == 0).any((1, 2, 3)).all()


@pytest.mark.parametrize("alpha", [0.2, 1.0, 5.0])
def test_mixup_is_a_line_between_an_image_and_its_partner(alpha):
    images = np.random.default_rng(0).uniform(size=(64, 3, 2, 1)).astype(np.float32)
    mix, shares = augment.mixup(alpha), []
    for seed in range(10):
        y, targets = mix(jax.random.key(seed), images, EYE)
        np.testing.assert_allclose(np.asarray(targets).sum(1), 1, rtol=1e-6)
        np.testing.assert_allclose(y, np.einsum("np,phwc->nhwc", targets, images), atol=1e-6)
        assert ((np.asarray(targets) > 0).sum(1) <= 2).all()
        np.testing.assert_allclose(np.asarray(targets).sum(0).sum(), 64, rtol=1e-5)
        others = np.asarray(targets) * (1 - EYE)
        partner = np.where(others.any(1), others.argmax(1), -1)
        met = partner[partner >= 0]
        assert len(set(met)) == len(met) > 30  # a permutation: nobody is a partner twice
        shares += list(np.diag(targets)[partner >= 0])
    # Shares are Beta(α, α). At α = 0.2 some are 1 to float32, so that nothing tells the partner: they are missing.
    if alpha >= 1:
        assert stats.kstest(shares, stats.beta(alpha, alpha).cdf).pvalue > 1e-4
    else:
        assert abs(np.mean(np.array(shares) > 0.5) - 0.5) < 0.15 and np.var(shares) > 0.1


@pytest.mark.parametrize("alpha", [0.001, 0.2, 1.0, 1000.0])
@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_shares_are_finite_at_every_alpha(name, alpha):
    y, targets = augment.BATCH_MIXERS[name](alpha)(KEY, np.ones((64, 6, 6, 1), np.float32), EYE)
    np.testing.assert_allclose(y, 1, atol=1e-6)
    np.testing.assert_allclose(targets.sum(1), 1, atol=1e-6)
    own = np.diag(targets)
    if alpha == 1000:
        assert (np.abs(own[own < 1] - 0.5) < 0.1).all() or name == "cutmix"
    if alpha == 0.001 and name == "mixup":
        assert ((own < 1e-3) | (own > 1 - 1e-3)).mean() > 0.9


def test_cutmix_is_a_box_of_the_partner_and_its_share_the_area():
    height, width = 9, 6
    rows, columns = np.mgrid[:height, :width]
    place = rows * width + columns
    # The value tells the image and the pixel: image · 100 + place.
    images = (np.arange(64)[:, None, None, None] * 100 + place[..., None]).astype(np.float32)
    mix, areas, centres = augment.cutmix(), [], []
    for seed in range(20):
        y, targets = mix(jax.random.key(seed), images, EYE)
        y = np.asarray(y)[..., 0]
        assert (y % 100 == place).all()  # every pixel stays where it was
        owner = y.astype(int) // 100
        assert len({(owner[n] != n).sum() for n in range(64)}) > 10  # each image its own size
        for n in range(64):
            foreign = owner[n] != n
            area = foreign.sum()
            assert targets[n, n] == pytest.approx(1 - area / (height * width), abs=1e-7)
            if area == 0:
                continue
            areas.append(area)
            (partner,) = set(owner[n][foreign])
            assert targets[n, partner] == pytest.approx(area / (height * width), abs=1e-7)
            i, j = np.nonzero(foreign)
            assert (np.ptp(i) + 1) * (np.ptp(j) + 1) == area  # a box
            centres.append((i.mean(), j.mean()))
    assert max(areas) > 0.7 * height * width
    # Where it lies and how large it is: as by the paper's recipe in numpy.
    rng, ours = np.random.default_rng(0), np.array([(area, *centre) for area, centre in zip(areas, centres)])
    drawn = []
    for side in np.sqrt(1 - rng.uniform(size=20_000)):
        first = [rng.integers(n) - int(n * side) // 2 for n in (height, width)]
        spans = [range(max(a, 0), min(a + int(n * side), n)) for a, n in zip(first, (height, width))]
        if all(spans):
            drawn.append((len(spans[0]) * len(spans[1]), *map(np.mean, spans)))
    error = np.std(drawn, axis=0) / np.sqrt(len(ours))
    assert (np.abs(ours.mean(0) - np.mean(drawn, axis=0)) < 5 * error).all()
    assert abs(len(ours) / 1280 - len(drawn) / 20_000) < 0.03


def test_a_cutmix_box_has_the_proportions_of_the_image():
    images = np.stack([np.zeros((40, 20, 1)), np.ones((40, 20, 1))] * 32).astype(np.float32)
    y = np.asarray(augment.cutmix()(KEY, images, EYE)[0])[..., 0]
    ratios = []
    for before, after in zip(images[..., 0], y):
        i, j = np.nonzero(before != after)
        inside = len(i) and min(i) > 0 and max(i) < 39 and min(j) > 0 and max(j) < 19
        if inside and len(i) > 50:
            ratios.append((np.ptp(i) + 1) / (np.ptp(j) + 1))
    assert len(ratios) > 3 and abs(np.mean(ratios) - 2) < 0.3


def test_soft_targets_are_mixed_too():
    images = np.zeros((64, 2, 2, 1), np.float32)
    targets = np.random.default_rng(0).dirichlet(np.ones(7), 64).astype(np.float32)
    for name in augment.BATCH_MIXERS:
        _, mixed = augment.BATCH_MIXERS[name](1.0)(KEY, images, targets)
        np.testing.assert_allclose(mixed.sum(1), 1, rtol=1e-5)
        assert mixed.shape == targets.shape and not np.allclose(mixed, targets)


@pytest.mark.parametrize("name", ["mixup", "cutmix"])
def test_targets_that_will_not_do(name):
    mix, images = augment.BATCH_MIXERS[name](), jnp.zeros((4, 3, 3, 1))
    with pytest.raises(InputError, match=rf"{name}: targets \(4,\) should be \(N, classes\) for 4 images: jax.nn.one"):
        mix(KEY, images, jnp.arange(4))
    with pytest.raises(InputError, match=rf"{name}: targets \(5, 5\) should be \(N, classes\) for 4 images"):
        mix(KEY, images, jnp.eye(5))
    with pytest.raises(DtypeError, match=f"{name}: targets is int32; convert it first"):
        mix(KEY, images, jnp.eye(4, dtype=int))
