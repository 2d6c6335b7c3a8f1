"""Generative networks without pooling: a convolutional autoencoder, a variational one, and PCA as the baseline.

Claim (lecture rows 001-14, 001-26): generative networks need no pooling: convolutions with stride 2 downsample an
image, and transposed convolutions upsample it. With a code of the same size, such an autoencoder has a smaller
reconstruction error than PCA, the best linear code. A variational autoencoder (Kingma & Welling, 2013,
https://arxiv.org/abs/1312.6114) has a larger error, but its codes follow a standard normal distribution, so that random
codes decode to images.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.12.0.1, 29 min of processor time): Mean squared error of a
test image's pixels: PCA 0.0254, autoencoder 0.0091 ± 0.0001, variational 0.0103 ± 0.0001. The ELBO of the variational
one is -104.2 ± 0.3 nats an image: 80.2 ± 0.2 for the pixels and 24.0 ± 0.2 for the code, of which 16 ± 0 numbers are
used.

    python experiments/generative.py             # 29 minutes of processor time
    python experiments/generative.py --smoke     # the embedded digits, a few steps: seconds, not evidence

Both autoencoders have the same layers (except for the variances of the codes) and minimize the cross-entropy of the
pixels; the variational one adds the KL divergence of its codes from a standard normal distribution. The negative sum of
both is its ELBO. It is linear in the pixels, so it is a lower bound of the mean log p of binary images whose pixels are
white with a probability equal to their brightness. PCA minimizes the squared error, the metric of all three methods.
Random codes of the variational autoencoder are standard normal; those of the other methods, which define no
distribution, are normal with the mean and covariance of the codes of training images. The learning rate, one for both,
was chosen on validation images among 0.001, 0.003, 0.01 and 0.02 in runs of 300 steps, the best two again in runs of
1,000; nothing else was tuned. ``train.fit_seeds`` trains both: one with the task ``train.Reconstruction``, the other
with the task :class:`Elbo`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.decomposition import PCA

from common.networks import train_in_parallel
from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import data, models, plot, runtime, train
from jaxconv.layers import Layer, serial

KINDS = {"autoencoder": False, "variational": True}  # name: variational
COLUMNS = {"validation error": "val_mse", "test error": "test_mse", "pixels": "pixels", "code": "code", "ELBO": "elbo"}
NUM_SHOWN = 10  # images in a row of a figure
PAIRS = ((2, 7), (4, 0))  # classes whose first test images are interpolated


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Autoencoders of images."""

    SMOKE = {
        "dataset": "digits",
        "samples": 600,
        "epochs": 20,
        "num_seeds": 2,
        "code": 8,
        "batch_size": 32,
    }

    dataset: str = "mnist"
    """Dataset name; at least 8 classes, height and width multiples of 4."""
    samples: int = 20000
    """Maximum number of training images."""
    code: int = 16
    """Dimension of the code of an image."""
    epochs: int = 8
    """Training epochs of the autoencoders."""
    batch_size: int = 64
    """Images per step."""
    learning_rate: float = 2e-2
    """Peak learning rate of Adam."""


class Coder(NamedTuple):
    """An autoencoder; its params are ``{"encoder": …, "decoder": …}``."""

    encoder: Layer  # from images to codes; if variational, to their means and log variances
    decoder: Layer  # from codes to logits of images
    variational: bool

    def encode(self, params: Any, images: Any) -> tuple[jax.Array, jax.Array | None]:
        """Return mean and log variance of the codes ``(N, code)``; the latter is None if not variational."""
        code, _ = self.encoder.apply(params["encoder"], {}, train.to_float(images))
        return tuple(jnp.split(code, 2, axis=-1)) if self.variational else (code, None)

    def decode(self, params: Any, code: Any) -> jax.Array:
        """Return logits of the pixels ``(N, H, W, C)``."""
        return self.decoder.apply(params["decoder"], {}, code)[0]

    def network(self) -> Layer:
        """Return the layer that is trained, from images to logits; if variational, to the outputs of :class:`Elbo`."""
        if not self.variational:
            return serial(self.encoder, self.decoder)

        def init(key: jax.Array, input_shape: tuple[int, ...]) -> tuple[Any, Any]:
            encoder_key, decoder_key = jax.random.split(key)
            encoder, _ = self.encoder.init(encoder_key, input_shape)
            mean, _ = jax.eval_shape(self.encode, {"encoder": encoder}, jnp.zeros((1, *input_shape)))
            decoder, _ = self.decoder.init(decoder_key, mean.shape[1:])
            return {"encoder": encoder, "decoder": decoder}, {}

        def apply(
            params: Any, state: Any, x: jax.Array, *, train: bool = False, key: Any = None, mask: Any = None
        ) -> tuple[jax.Array, Any]:
            mean, log_var = self.encode(params, x)
            code = mean
            if train:  # reparameterization: the gradient passes through mean and variance
                code = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
            return jnp.concatenate([self.decode(params, code).reshape(len(x), -1), mean, log_var], axis=-1), state

        return Layer("variational", init, apply)


def coder(input_shape: tuple[int, int, int], code: int, variational: bool) -> Coder:
    """Build an autoencoder, with stride 2 in place of pooling."""
    return Coder(models.encoder((1 + variational) * code), models.decoder(input_shape), variational)


@dataclasses.dataclass(frozen=True)
class Elbo:
    """Task of a variational autoencoder: its loss is the negative ELBO of an image, in nats.

    Labels are ignored; outputs are ``(N, pixels + 2 · code)``: logits of the pixels, means and log variances of codes.
    """

    code: int
    monitor: str = "val_loss"

    def check(self, labels: np.ndarray, output: jax.ShapeDtypeStruct) -> None:
        """Accept any labels."""

    def targets(self, image: jax.Array, label: jax.Array, output: jax.ShapeDtypeStruct, soft: bool) -> jax.Array:
        return image

    def terms(self, output: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return the cross-entropy of the pixels ``(N,)`` and the KL divergence of the code ``(N, code)``.

        KL(N(mean, var) ‖ N(0, 1)) = ½ (mean² + var − 1 − log var).
        """
        logits, codes = output[:, : -2 * self.code], output[:, -2 * self.code :]
        mean, log_var = jnp.split(codes, 2, axis=-1)
        pixels = optax.sigmoid_binary_cross_entropy(logits, target.reshape(logits.shape))
        return pixels.sum(axis=-1), 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var)

    def loss(self, output: jax.Array, target: jax.Array) -> jax.Array:
        pixels, divergences = self.terms(output, target)
        return pixels + divergences.sum(axis=-1)

    def metrics(self, output: jax.Array, target: jax.Array, mask: jax.Array) -> dict[str, jax.Array]:
        return {"divergence": jnp.sum(self.terms(output, target)[1].sum(axis=-1), where=mask)}

    def compute(self, total: train.MetricSums) -> dict[str, Any]:
        return {"divergence": total.sums["divergence"] / total.count}

    def predict(self, output: jax.Array) -> jax.Array:
        return jax.nn.sigmoid(output[:, : -2 * self.code])


def fit(coder: Coder, dataset: data.Dataset, config: Config, progress: Callable[[float], None]) -> list[Any]:
    """Train an autoencoder from each seed and return the params of the best epoch on validation."""
    result = train_in_parallel(
        coder.network(),
        dataset.train.subset(slice(config.samples)),
        dataset.validation,
        seeds=range(config.num_seeds),
        epochs=config.epochs,
        batch_size=config.batch_size,
        learning_rate=config.learning_rate,
        on_progress=progress,
        task=Elbo(config.code) if coder.variational else train.Reconstruction(),
    )
    return [member.params for member in result.members]


class Method(NamedTuple):
    """An encoder and decoder: the common interface of PCA and the autoencoders."""

    codes: Callable[[np.ndarray], Any]  # uint8 images (N, H, W, C) to codes (N, code)
    draw: Callable[[Any], Any]  # codes to images from 0 to 1
    normal: bool = False  # True if codes are trained to be standard normal

    def error(self, images: np.ndarray) -> float:
        """Return the mean squared reconstruction error per pixel."""
        return float(np.mean((np.asarray(self.draw(self.codes(images))) - images / 255) ** 2))

    def random(self, count: int, images: np.ndarray) -> np.ndarray:
        """Draw codes: standard normal, or normal with the mean and covariance of the images' codes."""
        codes, rng = np.asarray(self.codes(images), np.float64), np.random.default_rng(0)
        if self.normal:
            return rng.standard_normal((count, codes.shape[1]), np.float32)
        return rng.multivariate_normal(codes.mean(axis=0), np.cov(codes, rowvar=False), count).astype(np.float32)


def pca_method(images: np.ndarray, code: int) -> Method:
    """Fit PCA, the optimal linear code. Decoded pixels are clipped to [0, 1], which reduces its error."""
    shape = images.shape[1:]
    pca = PCA(code, random_state=0).fit(images.reshape(len(images), -1) / np.float32(255))
    return Method(
        lambda images: pca.transform(images.reshape(len(images), -1) / np.float32(255)),
        lambda codes: np.clip(pca.inverse_transform(codes), 0, 1).reshape(-1, *shape),
    )


def network_methods(coder: Coder, params_by_seed: list[Any]) -> list[Method]:
    """Return the method of each trained network; codes and decoded pixels are the means of their distributions."""
    jit = partial(jax.jit, compiler_options=runtime.fast_compile_options())  # called only a few times
    encode = jit(lambda params, images: coder.encode(params, images)[0])
    draw = jit(lambda params, code: jax.nn.sigmoid(coder.decode(params, code)))
    return [Method(partial(encode, params), partial(draw, params), coder.variational) for params in params_by_seed]


def measure(config: Config, progress: Progress) -> StudyResult:
    dataset = data.load(config.dataset)
    images, (test_images, labels) = dataset.train.subset(slice(config.samples)).images, dataset.test
    methods, results = {"PCA": [pca_method(images, config.code)]}, {"PCA": {}}
    for name, variational in progress.track(list(KINDS.items()), "training: {0[0]}"):
        autoencoder = coder(dataset.image_shape, config.code, variational)
        params_by_seed = fit(autoencoder, dataset, config, progress.set_fraction)
        methods[name] = network_methods(autoencoder, params_by_seed)
        results[name] = elbo_terms(autoencoder, config.code, params_by_seed, test_images)
    for name, seeds in methods.items():
        results[name]["val_mse"] = [method.error(dataset.validation.images) for method in seeds]
        results[name]["test_mse"] = [method.error(test_images) for method in seeds]

    first_seed = {name: seeds[0] for name, seeds in methods.items()}
    examples = np.stack([test_images[labels == label][0] for label in range(len(dataset.class_names))])[:NUM_SHOWN]
    errors = {name: f"{name}\n{np.mean(results[name]['test_mse']):.4f}" for name in first_seed}
    figure_rows = {"original": examples} | {
        errors[name]: method.draw(method.codes(examples)) for name, method in first_seed.items()
    }
    figure_rows |= {
        f"{name},\nat random": method.draw(method.random(NUM_SHOWN, images[:10000]))
        for name, method in first_seed.items()
    }
    title = f"{dataset.name}: {config.code} numbers an image; mean squared error of test images"
    figures = {
        "generative": plot.image_rows(figure_rows, title=title),
        "between": plot.image_rows(interpolations(first_seed, examples), title=dataset.name),
    }
    rows = [
        [name, *(mean_std(values[key]) if key in values else "" for key in COLUMNS.values())]
        for name, values in results.items()
    ]
    return StudyResult(results, figures, [results_table("", (f"codes of {config.code} numbers", *COLUMNS), rows)])


def elbo_terms(coder: Coder, code: int, params_by_seed: list[Any], images: np.ndarray) -> dict[str, list[float]]:
    """Return cross-entropy, divergence and ELBO in nats, averaged over images, for each seed; codes are sampled."""
    network, target = coder.network(), train.to_float(images)

    @partial(jax.jit, compiler_options=runtime.fast_compile_options())
    def terms(params: Any, target: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
        output, _ = network.apply(params, {}, target, train=True, key=key)
        if coder.variational:
            pixels, divergences = Elbo(code).terms(output, target)
            return pixels.mean(), divergences.mean(axis=0)
        return optax.sigmoid_binary_cross_entropy(output, target).sum(axis=(1, 2, 3)).mean(), jnp.zeros(code)

    outputs = [terms(params, target, jax.random.key(seed)) for seed, params in enumerate(params_by_seed)]
    pixels = [float(cost) for cost, _ in outputs]
    if not coder.variational:
        return {"pixels": pixels}
    codes = [float(divergences.sum()) for _, divergences in outputs]
    elbo = [-pixel_cost - code_cost for pixel_cost, code_cost in zip(pixels, codes, strict=True)]
    used = [int((divergences > 0.01).sum()) for _, divergences in outputs]
    return {"pixels": pixels, "code": codes, "elbo": elbo, "used": used}


def interpolations(methods: dict[str, Method], images: np.ndarray) -> dict[str, Any]:
    """Interpolate linearly between pairs of images: in pixel space, and in the code space of each method."""
    spaces = {"pixels": Method(lambda images: images / 255, lambda pixels: pixels)} | methods
    rows = {}
    for pair in PAIRS:
        for name, space in spaces.items():
            start, end = np.asarray(space.codes(images[list(pair)]))
            rows[f"{name} {pair[0]} → {pair[1]}"] = space.draw(np.linspace(start, end, NUM_SHOWN, dtype=np.float32))
    return rows


def summarize_results(results: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {mean_std(values['test_mse'])}" for name, values in results.items())
    values = results["variational"]
    return (
        f"Mean squared error of a test image's pixels: {errors}. The ELBO of the variational one is "
        f"{mean_std(values['elbo'], 1)} nats an image: {mean_std(values['pixels'], 1)} for the pixels and "
        f"{mean_std(values['code'], 1)} for the code, of which {mean_std(values['used'], 0)} numbers are used."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
