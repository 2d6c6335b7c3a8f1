"""Autoencoders: output sizes, the terms of the evidence lower bound (ELBO), and PCA as the linear reference."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import generative
from jaxconv import InputError, data, models, train
from jaxconv.explain import summarize


def shapes(model, input_shape, kinds=("conv", "conv_transpose")):
    return [row.shape for row in summarize(model, input_shape).rows if row.kind in kinds]


def test_encoder_halves_and_decoder_doubles_sizes():  # row 001-14
    assert shapes(models.encoder(16), (28, 28, 1)) == [(14, 14, 16), (7, 7, 32)]
    assert shapes(models.decoder((28, 28, 1)), (16,)) == [(14, 14, 16), (28, 28, 1)]
    assert shapes(models.encoder(5, features=(3, 4)), (32, 20, 3)) == [(16, 10, 3), (8, 5, 4)]
    assert shapes(models.decoder((32, 20, 3), features=(3, 4)), (5,)) == [(16, 10, 3), (32, 20, 3)]
    kinds = {
        row.kind
        for model, shape in ((models.encoder(2), (8, 8, 1)), (models.decoder((8, 8, 1)), (2,)))
        for row in summarize(model, shape).rows
    }
    assert kinds == {"conv", "relu", "flatten", "dense", "unflatten", "conv_transpose"}  # no pooling


@pytest.mark.frameworks
def test_decoder_matches_torch(rng):
    torch = pytest.importorskip("torch")
    decoder = models.decoder((12, 20, 2), features=(3, 4))
    params, _ = decoder.init(jax.random.key(0), (5,))
    params = jax.tree.map(lambda p: rng.normal(size=p.shape).astype(np.float32), params)
    code = rng.normal(size=(3, 5)).astype(np.float32)
    dense, conv_transpose1, conv_transpose2 = (
        {name: torch.from_numpy(value) for name, value in params[layer].items()}
        for layer in ("dense1", "conv_transpose1", "conv_transpose2")
    )
    y = torch.relu(torch.from_numpy(code) @ dense["kernel"] + dense["bias"]).reshape(3, 3, 5, 4).permute(0, 3, 1, 2)
    for layer_params, last in ((conv_transpose1, False), (conv_transpose2, True)):
        kernel = layer_params["kernel"].permute(2, 3, 0, 1)  # in jaxconv the window axes come first
        y = torch.nn.functional.conv_transpose2d(y, kernel, layer_params["bias"], stride=2, padding=1)
        y = y if last else torch.relu(y)
    decoded, _ = decoder.apply(params, {}, jnp.asarray(code))
    np.testing.assert_allclose(decoded, y.permute(0, 2, 3, 1), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("shape", [(30, 28, 1), (28, 2, 1), (28, 28), (0, 28, 1)])
def test_decoder_rejects_sizes_not_divisible_by_4(shape):
    with pytest.raises(InputError, match=r"decoder: out_shape .* multiples of 4"):
        models.decoder(shape)


@pytest.mark.frameworks
def test_kl_divergence_matches_torch_and_monte_carlo(rng):
    torch = pytest.importorskip("torch")
    mean, log_var = (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(2))
    output = jnp.concatenate([jnp.zeros((4, 6)), mean, log_var], axis=1)  # logits of 6 pixels, means, log variances
    divergence = np.asarray(generative.Elbo(3).terms(output, jnp.zeros((4, 2, 3, 1)))[1])
    std = torch.from_numpy(np.exp(log_var / 2))
    posterior, prior = torch.distributions.Normal(torch.from_numpy(mean), std), torch.distributions.Normal(0.0, 1.0)
    np.testing.assert_allclose(divergence, torch.distributions.kl_divergence(posterior, prior), rtol=1e-5, atol=1e-6)
    z = mean + np.exp(log_var / 2) * rng.normal(size=(200_000, 4, 3))  # E_q[log q(z) − log p(z)]
    log_ratio = -((z - mean) ** 2) / (2 * np.exp(log_var)) - log_var / 2 + z**2 / 2
    error = log_ratio.std(axis=0) / np.sqrt(len(z))
    assert (np.abs(log_ratio.mean(axis=0) - divergence) < 5 * error).all()


@pytest.fixture
def tiny_coder(rng):
    """Return a function that creates a coder of small images, perturbed parameters and uint8 images."""

    def make(variational):
        coder = generative.coder((8, 12, 1), 3, variational)
        params = {
            "encoder": coder.encoder.init(jax.random.key(0), (8, 12, 1))[0],
            "decoder": coder.decoder.init(jax.random.key(1), (3,))[0],
        }
        params = jax.tree.map(lambda p: p + 0.05 * rng.normal(size=p.shape).astype(np.float32), params)
        return coder, params, rng.integers(0, 256, (5, 8, 12, 1), np.uint8)

    return make


def nats_per_image(coder, params, images, key):
    """Return the pixels' nats ``(N,)`` and the code's ``(N, 3)``, or zeros, of the network that is trained."""
    images = train.to_float(images)
    output, _ = coder.network().apply(params, {}, images, train=True, key=key)
    if coder.variational:
        return generative.Elbo(3).terms(output, images)
    return train.Reconstruction().loss(output, images) * images[0].size, jnp.zeros((len(images), 3))


def log_p(logits, pixels):
    """Compute the log-likelihood of binary pixels, summed over each image, in NumPy."""
    p = 1 / (1 + np.exp(-np.asarray(logits, np.float64)))
    return np.log(np.where(pixels, p, 1 - p)).sum(axis=(1, 2, 3))


def test_pixel_nats_match_bernoulli_samples(rng, tiny_coder, promoting):
    coder, params, images = tiny_coder(False)
    pixels, _ = nats_per_image(coder, params, images, jax.random.key(0))
    logits = coder.decode(params, coder.encode(params, images)[0])
    sampled = [-log_p(logits, rng.random(images.shape) < images / 255) for _ in range(4000)]
    assert (np.abs(np.mean(sampled, axis=0) - pixels) < 5 * np.std(sampled, axis=0) / np.sqrt(len(sampled))).all()
    [mean_pixels] = generative.elbo_terms(coder, 3, [params], images)["pixels"]
    np.testing.assert_allclose(mean_pixels, np.mean(pixels), rtol=1e-5)


def test_elbo_is_below_log_likelihood(rng, tiny_coder, promoting):
    coder, params, images = tiny_coder(True)
    white = images > 127
    nats = jax.jit(lambda key: nats_per_image(coder, params, 255 * white.astype(np.uint8), key))
    nats_per_key = [nats(jax.random.key(k)) for k in range(100)]
    elbo = -np.mean([np.asarray(pixels + code.sum(axis=-1)) for pixels, code in nats_per_key], axis=0)
    logits = np.asarray(coder.decode(params, rng.normal(size=(10_000, 3)).astype(np.float32)), np.float64)
    logits = logits.reshape(len(logits), -1)  # log p(x) = log E_p(z)[p(x | z)], estimated by Monte Carlo
    for image, bound in zip(white.reshape(5, -1), elbo):
        logs = logits @ image - np.logaddexp(0, logits).sum(axis=1)
        assert bound < np.logaddexp.reduce(logs) - np.log(len(logs)) + 0.05


def test_latent_samples_have_mean_and_variance(tiny_coder, promoting):
    coder, params, images = tiny_coder(True)
    samples = []

    class RecordingCoder(generative.Coder):
        def decode(self, params, code):
            samples.append(np.asarray(code))
            return super().decode(params, code)

    recording, (mean, log_var) = RecordingCoder(*coder), coder.encode(params, images)
    for k in range(400):
        nats_per_image(recording, params, images, jax.random.key(k))
    np.testing.assert_allclose(np.mean(samples, axis=0), mean, atol=5 * float(jnp.exp(log_var / 2).max()) / 20)
    np.testing.assert_allclose(np.log(np.var(samples, axis=0)), log_var, atol=0.5)


def test_evaluation_decodes_the_mean_code(tiny_coder, promoting):
    coder, params, images = tiny_coder(True)
    output, _ = coder.network().apply(params, {}, train.to_float(images))
    mean, log_var = coder.encode(params, images)
    expected = jax.nn.sigmoid(coder.decode(params, mean))
    np.testing.assert_allclose(generative.Elbo(3).predict(output).reshape(expected.shape), expected, rtol=1e-5)
    np.testing.assert_allclose(output[:, -6:], np.concatenate([mean, log_var], axis=1), rtol=1e-5, atol=1e-6)


CONFIG = generative.Config(samples=400, code=3, epochs=12, num_seeds=2, batch_size=16)


@pytest.fixture(scope="module")
def digits():
    return data.load("digits")


@pytest.mark.parametrize("variational", [False, True])
def test_training_reduces_loss(digits, promoting, caplog, variational):
    coder, progress = generative.coder(digits.image_shape, 3, variational), []
    images = digits.train.images[: CONFIG.samples]
    with jax.log_compiles():
        fitted = generative.fit(coder, digits, CONFIG, progress.append)
    messages = [record.getMessage() for record in caplog.records]
    for name in ("execution", "evaluate_batch"):  # a block of steps, and validation: 12 epochs, one compilation each
        assert sum(f"Finished XLA compilation of jit({name})" in line for line in messages) == 1
    np.testing.assert_allclose(progress, np.arange(1, 13) / 12)
    assert not np.array_equal(fitted[0]["encoder"]["conv1"]["kernel"], fitted[1]["encoder"]["conv1"]["kernel"])
    pixels, code = jax.jit(partial(nats_per_image, coder))(fitted[0], images, jax.random.key(0))
    mean_image = (images / 255).mean(axis=0).clip(1e-9, 1 - 1e-9)
    # The reference is a decoder that returns the mean image for every code.
    constant_entropy = -mean_image * np.log(mean_image) - (1 - mean_image) * np.log(1 - mean_image)
    assert float((pixels + code.sum(axis=-1)).mean()) < constant_entropy.sum()
    assert bool((code > 0).any()) == variational


def test_training_is_reproducible(digits, promoting):
    coder, config = generative.coder(digits.image_shape, 3, True), dataclasses.replace(CONFIG, samples=64, epochs=2)
    first, second = (generative.fit(coder, digits, config, lambda fraction: None) for _ in range(2))
    jax.tree.map(np.testing.assert_array_equal, first, second)


def test_linear_autoencoder_matches_pca(digits):
    images, test_images = digits.train.images, digits.test.images
    method = generative.pca_method(images, 6)
    x = images.reshape(len(images), -1) / 255
    mean = x.mean(axis=0)
    _, _, axes = np.linalg.svd(x - mean, full_matrices=False)
    flat = test_images.reshape(len(test_images), -1) / 255 - mean
    expected = np.clip(flat @ axes[:6].T @ axes[:6] + mean, 0, 1).reshape(test_images.shape)
    np.testing.assert_allclose(method.draw(method.codes(test_images)), expected, atol=1e-4)
    np.testing.assert_allclose(method.error(test_images), ((expected - test_images / 255) ** 2).mean(), rtol=1e-3)


def test_random_codes_have_expected_moments(rng, digits):
    images = digits.train.images
    fitted = generative.pca_method(images, 4)
    codes = fitted.random(50_000, images)
    np.testing.assert_allclose(np.cov(codes, rowvar=False), np.cov(fitted.codes(images), rowvar=False), atol=0.02)
    normal_codes = fitted._replace(normal=True).random(50_000, images)
    np.testing.assert_allclose(np.cov(normal_codes, rowvar=False), np.eye(4), atol=0.03)
    assert codes.shape == normal_codes.shape == (50_000, 4) and codes.dtype == normal_codes.dtype == np.float32


def test_interpolation_starts_and_ends_at_images(digits):
    images = digits.test.images[:10]
    rows = generative.interpolations({"PCA": generative.pca_method(digits.train.images, 4)}, images)
    assert list(rows) == ["pixels 2 → 7", "PCA 2 → 7", "pixels 4 → 0", "PCA 4 → 0"]
    np.testing.assert_allclose(rows["pixels 2 → 7"][[0, -1]], images[[2, 7]] / 255, atol=1e-6)
    np.testing.assert_allclose(rows["pixels 4 → 0"][3], images[4] / 255 * 2 / 3 + images[0] / 255 / 3, atol=1e-6)
    assert all(len(row) == generative.NUM_SHOWN for row in rows.values())
