"""Properties that every augmentation has, and the arguments that each rejects."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxconv import DtypeError, InputError
from jaxconv.data import augment

KEY = jax.random.key(0)
SHAPE = (24, 9, 7, 2)  # N, H, W, C

AUGMENTATIONS = {
    "flip": augment.random_horizontal_flip(),
    "shift": augment.random_translation((2, 3)),
    "crop": augment.random_crop((5, 6), padding=1),
    "affine": augment.random_affine(20, scale=(0.8, 1.3), shear=10, translate=1.5),
    "cutout": augment.cutout((4, 3)),
    "compose": augment.compose(
        augment.random_horizontal_flip(), augment.random_translation(2, padding_mode="reflect"), augment.cutout(3)
    ),
}
MIXERS = {"mixup": augment.mixup(1.0), "cutmix": augment.cutmix()}
# Compiled once for all tests. Mixers are not jitted as a whole: jax caches the loops of the Beta distribution, which
# take longest to compile.
COMPILED = {name: jax.jit(function) for name, function in AUGMENTATIONS.items()} | MIXERS


def images_of(shape, seed=0):
    """Images of distinct values in (0, 1], so that a value identifies the pixel it came from."""
    rng = np.random.default_rng(seed)
    count = np.prod(shape)
    return ((rng.permutation(count) + 1) / count).reshape(shape).astype(np.float32)


def run(name, key, images):
    """Run an augmentation; mixers get one class per image."""
    if name in MIXERS:
        return COMPILED[name](key, images, np.eye(len(images), dtype=np.float32))[0]
    return COMPILED[name](key, images)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_is_determined_by_key(name):
    images = images_of(SHAPE)
    y = run(name, KEY, images)
    np.testing.assert_array_equal(y, run(name, KEY, images))
    assert not np.array_equal(y, run(name, jax.random.key(1), images))
    assert (y.dtype, y.shape) == (np.float32, (24, 5, 6, 2) if name == "crop" else SHAPE)
    assert 0 <= float(y.min()) and float(y.max()) <= 1 + 1e-6


@pytest.mark.parametrize("name", ["compose", "crop", "cutmix"])
def test_augmentation_jitted_equals_eager(name):
    args = KEY, images_of(SHAPE), *[np.eye(24, dtype=np.float32)] * (name in MIXERS)
    function = (AUGMENTATIONS | MIXERS)[name]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), jax.jit(function)(*args), function(*args))


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_is_random_per_image(name):
    images = np.repeat(images_of((1, *SHAPE[1:])), 24, axis=0)
    if name in MIXERS:  # alternate two images, so that partners can differ
        images[::2] = images_of((1, *SHAPE[1:]), seed=1)
    y = np.asarray(run(name, KEY, images)).reshape(24, -1)
    num_distinct = len(np.unique(y.round(4), axis=0))
    assert num_distinct == 2 if name == "flip" else num_distinct > 8


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_preserves_bfloat16(name):
    images = jnp.asarray(images_of(SHAPE)).astype(jnp.bfloat16)
    y = run(name, KEY, images)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(y.astype(np.float32), run(name, KEY, images.astype(jnp.float32)), atol=2**-8)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_vmap_inside_scan_equals_loop(name):
    keys, images = jax.random.split(KEY, 4), images_of(SHAPE)
    one_by_one = np.stack([run(name, key, images) for key in keys])

    def step(carry, keys):
        return carry, jax.vmap(lambda key: run(name, key, images))(keys)

    _, y = jax.lax.scan(step, 0, keys.reshape(2, 2))
    np.testing.assert_allclose(y.reshape(one_by_one.shape), one_by_one, atol=1e-6)


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_gradient_is_linear(name):
    x, other = images_of(SHAPE), images_of(SHAPE, 1)
    dx = jax.grad(lambda x: 0.5 * run(name, KEY, x).sum())(x)
    assert np.isfinite(dx).all()
    np.testing.assert_allclose((dx * other).sum(), 0.5 * run(name, KEY, other).sum(), rtol=1e-5)


def test_augmentation_preserves_float64(x64):
    images = np.random.default_rng(0).uniform(size=(2, 4, 5, 1))
    for function in (augment.random_translation(1), augment.random_affine(20, scale=(0.5, 2))):
        assert jax.jit(function)(KEY, images).dtype == np.float64
    y, targets = jax.eval_shape(augment.mixup(), KEY, images, np.eye(2, dtype=np.float32))
    assert (y.dtype, targets.dtype) == (np.float64, np.float32)


SMALL = jax.ShapeDtypeStruct((2, 4, 5, 1), jnp.float32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: augment.random_translation(4),
            "random_translation: (4, 4) pixels of padding must be smaller than the image, (4, 5)",
        ),
        (
            lambda: augment.random_translation((1, 5), padding_mode="reflect"),
            "random_translation: (1, 5) pixels of padding must be smaller than the image, (4, 5)",
        ),
        (lambda: augment.random_translation(-1), "random_translation: pixels -1: give an int of at least 0"),
        (
            lambda: augment.random_translation(1, padding_mode="reflct"),
            "random_translation: unknown padding_mode 'reflct': did you mean 'reflect'",
        ),
        (
            lambda: augment.random_crop(6, padding=0),
            "crop: size (6, 6) is larger than the image, (4, 5) with its padding",
        ),
        (lambda: augment.random_crop((4, 8), padding=1), "crop: size (4, 8) is larger than the image, (6, 7)"),
        (
            lambda: augment.random_crop(3, padding=4),
            "crop: (4, 4) pixels of padding must be smaller than the image, (4, 5)",
        ),
        (lambda: augment.random_crop(0), "crop: size 0: give"),
        (lambda: augment.random_crop(2, padding_mode=None), "crop: unknown padding_mode None"),
        (lambda: augment.cutout(5), "cutout: size (5, 5) is larger than the image, (4, 5)"),
        (lambda: augment.cutout((1, 2, 3)), "cutout: size (1, 2, 3): give"),
        (lambda: augment.random_affine(scale=1.2), "affine: scale=1.2 should be two factors"),
        (lambda: augment.random_affine(scale=(1.2, 0.8)), "affine: scale=0.8 should be a number from 1.2"),
        (lambda: augment.random_affine(scale=(0, 1)), "affine: scale=0 should be a number from"),
        (lambda: augment.random_affine(shear=90), "affine: shear=90 should be a number from 0 to 89"),
        (lambda: augment.random_affine("10"), "affine: degrees='10' should be a number"),
        (lambda: augment.random_affine(translate=float("inf")), "affine: translate=inf should be"),
        (lambda: augment.random_horizontal_flip(p=True), "random_horizontal_flip: p=True should be a number"),
    ],
)
def test_augmentation_invalid_options_raise(make, message):
    with pytest.raises(InputError) as caught:
        jax.eval_shape(make(), KEY, SMALL)  # tracing checks the options that depend on the image size
    assert message in str(caught.value) and "\n" not in str(caught.value)


# Names in error messages; cutout, mixup and cutmix are named after their functions.
FUNCTION_NAMES = {
    "compose": "random_horizontal_flip",  # its first augmentation
    "flip": "random_horizontal_flip",
    "shift": "random_translation",
    "crop": "random_crop",
    "affine": "random_affine",
}


@pytest.mark.parametrize("name", [*AUGMENTATIONS, *MIXERS])
def test_augmentation_invalid_images_or_key_raise(name):
    def call(key, images):
        return (AUGMENTATIONS | MIXERS)[name](key, images, *[jnp.eye(24)] * (name in MIXERS))

    function = FUNCTION_NAMES.get(name, name)
    with pytest.raises(DtypeError, match=f"{function}: images is uint8; convert it first.*/ 255"):
        call(KEY, np.zeros(SHAPE, np.uint8))
    with pytest.raises(InputError, match=rf"{function}: images \(9, 7, 2\) should be \(N, H, W, C\).*add the batch"):
        call(KEY, jnp.zeros(SHAPE[1:]))
    with pytest.raises(InputError, match=rf"{function}: images \(24, 0, 7, 2\) should be"):
        call(KEY, jnp.zeros((24, 0, 7, 2)))
    if name != "compose":  # compose calls jax.random.fold_in, which raises first
        with pytest.raises(InputError, match=rf"{function}: key should be one jax.random.key\(…\), not None"):
            call(None, jnp.zeros(SHAPE))
