"""Networks that draw, without pooling: a convolutional autoencoder against PCA, and a variational one against both.

Claim (lecture rows 001-14, 001-26): networks that draw need no pooling: convolutions with stride 2 make an image small,
and transposed ones undo them. Such an autoencoder keeps more of an image in as many numbers than the best linear code,
PCA. A variational one (Kingma & Welling, 2013, https://arxiv.org/abs/1312.6114) gives up some of that so that its codes
are spread like standard normal numbers, and such numbers draw an image without a look at any other's code.

Measured with 3 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 13 min of processor time): Mean squared error of a test
image's pixels: PCA 0.0254, autoencoder 0.0092 ± 0.0001, variational 0.0103 ± 0.0001. The ELBO of the variational one is
-104.4 ± 0.3 nats an image: 80.4 ± 0.3 for the pixels and 24.0 ± 0.0 for the code, of which 16 ± 0 numbers are used.

    python experiments/generative.py             # 13 minutes of processor time
    python experiments/generative.py --smoke     # the embedded digits, a few steps: seconds, and no evidence

Both autoencoders have the same layers (but for the variances of the codes) and make the cross-entropy of the pixels
small; the variational one also the divergence of its codes from a normal distribution. The negative sum of both is its
ELBO. As it is linear in the pixels, it is less than the mean log p of images whose every pixel is white with the
probability that its brightness says. PCA makes the squared error small, by which all three are judged. Where codes are
drawn at random, those of the variational autoencoder are standard normal numbers, and those of the others, which have
no distribution, normal with the mean and the covariance of the codes of training images. The learning rate, one for
both, was chosen on validation images among 0.001, 0.003, 0.01 and 0.02 in trainings of 300 steps, the best two once
more in one of 1,000; nothing else was searched for.
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

from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import data, models, plot, runtime, train
from jaxconv.layers import Layer

KINDS = {"autoencoder": False, "variational": True}  # whether it is
COLUMNS = {"validation error": "val_mse", "test error": "test_mse", "pixels": "pixels", "code": "code", "ELBO": "elbo"}
SHOWN = 10  # pictures in a row of a figure
PAIRS = ((2, 7), (4, 0))  # test images, the first of these classes, that turn into one another


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Networks that make images."""

    SMOKE = {
        "dataset": "digits",
        "samples": 600,
        "epochs": 20,
        "num_seeds": 2,
        "code": 8,
        "batch_size": 32,
    }

    dataset: str = "mnist"
    """What is coded and drawn: 8 classes or more, height and width multiples of 4."""
    samples: int = 20000
    """Training images, at most."""
    code: int = 16
    """Numbers that an image becomes."""
    epochs: int = 8
    """How often the autoencoders go through them."""
    batch_size: int = 64
    """Images a step."""
    learning_rate: float = 2e-2
    """Adam's highest."""


class Coder(NamedTuple):
    """An autoencoder: its params are ``{"encoder": …, "decoder": …}``."""

    encoder: Layer  # from images to codes, or if it is variational to their means and log variances
    decoder: Layer  # from codes to logits of images
    variational: bool

    def encode(self, params: Any, images: Any) -> tuple[jax.Array, jax.Array | None]:
        """Mean and log variance of each image's code ``(N, code)``; without a variance, None."""
        code, _ = self.encoder.apply(params["encoder"], {}, train.to_float(images))
        return tuple(jnp.split(code, 2, axis=-1)) if self.variational else (code, None)

    def decode(self, params: Any, code: Any) -> jax.Array:
        """Logits of the images ``(N, H, W, C)``."""
        return self.decoder.apply(params["decoder"], {}, code)[0]


def coder(input_shape: tuple[int, int, int], code: int, variational: bool) -> Coder:
    """Both halves have stride 2 where others pool."""
    return Coder(models.encoder((1 + variational) * code), models.decoder(input_shape), variational)


def divergence(mean: jax.Array, log_var: jax.Array) -> jax.Array:
    """KL(N(mean, var) ‖ N(0, 1)) = ½ (mean² + var − 1 − log var), in nats, of each number of a code by itself."""
    return 0.5 * (mean**2 + jnp.exp(log_var) - 1 - log_var)


def nats(coder: Coder, params: Any, images: jax.Array, key: jax.Array) -> tuple[jax.Array, jax.Array]:
    """What each image costs: the cross-entropy of its pixels ``(N,)``, and the divergence of its code ``(N, code)``."""
    mean, log_var = coder.encode(params, images)
    code, cost = mean, jnp.zeros_like(mean)
    if log_var is not None:  # a code is drawn, so that the gradient goes through mean and variance
        code = mean + jnp.exp(0.5 * log_var) * jax.random.normal(key, mean.shape)
        cost = divergence(mean, log_var)
    pixels = optax.sigmoid_binary_cross_entropy(coder.decode(params, code), train.to_float(images))
    return pixels.sum(axis=(1, 2, 3)), cost


def fit(coder: Coder, images: np.ndarray, config: Config, progress: Callable[[float], None]) -> list[Any]:
    """The params of each seed. An epoch is one program, compiled once: a scan over steps, whose batch and noise are
    functions of the seed and the step's number.
    """
    in_epoch = len(images) // config.batch_size
    optimizer = train.make_optimizer("adam", config.learning_rate, "one_cycle", config.epochs * in_epoch)

    def loss(params: Any, batch: jax.Array, key: jax.Array) -> jax.Array:
        pixels, code = nats(coder, params, batch, key)
        return jnp.mean(pixels + code.sum(axis=-1))

    @partial(jax.jit, compiler_options=runtime.fast_compile_options())
    def start(key: jax.Array) -> tuple[Any, Any]:
        first, second = jax.random.split(key)
        encoder, _ = coder.encoder.init(first, images.shape[1:])
        decoder, _ = coder.decoder.init(second, (config.code,))
        params = {"encoder": encoder, "decoder": decoder}
        return params, optimizer.init(params)

    @partial(jax.jit, compiler_options=runtime.compiler_options())
    def epoch(carry: tuple[Any, Any], key: jax.Array, numbers: jax.Array, images: jax.Array) -> tuple[Any, Any]:
        def step(carry: tuple[Any, Any], number: jax.Array) -> tuple[tuple[Any, Any], None]:
            params, moments = carry
            draw, noise = jax.random.split(jax.random.fold_in(key, number))
            batch = images[jax.random.randint(draw, (config.batch_size,), 0, len(images))]
            updates, moments = optimizer.update(jax.grad(loss)(params, batch, noise), moments, params)
            return (optax.apply_updates(params, updates), moments), None

        return jax.lax.scan(step, carry, numbers)[0]

    fitted, on_device = [], jnp.asarray(images)
    for seed in range(config.num_seeds):
        key = jax.random.key(seed)
        carry = start(jax.random.fold_in(key, config.epochs * in_epoch))
        for done in range(config.epochs):
            carry = epoch(carry, key, done * in_epoch + jnp.arange(in_epoch), on_device)
            jax.block_until_ready(carry)
            progress((seed + (done + 1) / config.epochs) / config.num_seeds)
        fitted.append(carry[0])
    return fitted


class Method(NamedTuple):
    """A way to code images: what is asked of PCA and of the autoencoders alike."""

    codes: Callable[[np.ndarray], Any]  # (N, H, W, C) bytes to (N, code)
    draw: Callable[[Any], Any]  # codes to images from 0 to 1
    normal: bool = False  # whether codes are meant to be standard normal numbers

    def error(self, images: np.ndarray) -> float:
        """The mean squared error of a pixel."""
        return float(np.mean((np.asarray(self.draw(self.codes(images))) - images / 255) ** 2))

    def random(self, count: int, images: np.ndarray) -> np.ndarray:
        """Codes drawn at random: normal; if no others are meant, with the mean and the covariance of the images'."""
        codes, rng = np.asarray(self.codes(images), np.float64), np.random.default_rng(0)
        if self.normal:
            return rng.standard_normal((count, codes.shape[1]), np.float32)
        return rng.multivariate_normal(codes.mean(axis=0), np.cov(codes, rowvar=False), count).astype(np.float32)


def linear(images: np.ndarray, code: int) -> Method:
    """PCA: of all linear codes the one that keeps most. What it draws is cut off at black and white, which helps it."""
    shape = images.shape[1:]
    pca = PCA(code, random_state=0).fit(images.reshape(len(images), -1) / np.float32(255))
    return Method(
        lambda images: pca.transform(images.reshape(len(images), -1) / np.float32(255)),
        lambda codes: np.clip(pca.inverse_transform(codes), 0, 1).reshape(-1, *shape),
    )


def learned(coder: Coder, fitted: list[Any]) -> list[Method]:
    """A network's code of an image is its mean, and what it draws are the means of the pixels."""
    jit = partial(jax.jit, compiler_options=runtime.fast_compile_options())  # each is asked a few times
    encode = jit(lambda params, images: coder.encode(params, images)[0])
    draw = jit(lambda params, code: jax.nn.sigmoid(coder.decode(params, code)))
    return [Method(partial(encode, params), partial(draw, params), coder.variational) for params in fitted]


def measure(config: Config, progress: Progress) -> StudyResult:
    dataset = data.load(config.dataset)
    images, (tested, labels) = dataset.train.subset(slice(config.samples)).images, dataset.test
    methods, results = {"PCA": [linear(images, config.code)]}, {"PCA": {}}
    for name, variational in progress.track(list(KINDS.items()), "training: {0[0]}"):
        network = coder(dataset.image_shape, config.code, variational)
        fitted = fit(network, images, config, progress.set_fraction)
        methods[name] = learned(network, fitted)
        results[name] = costs(network, fitted, tested)
    for name, seeds in methods.items():
        results[name]["val_mse"] = [method.error(dataset.validation.images) for method in seeds]
        results[name]["test_mse"] = [method.error(tested) for method in seeds]

    first = {name: seeds[0] for name, seeds in methods.items()}
    ten = np.stack([tested[labels == label][0] for label in range(len(dataset.class_names))])[:SHOWN]
    errors = {name: f"{name}\n{np.mean(results[name]['test_mse']):.4f}" for name in first}
    shown = {"original": ten} | {errors[name]: method.draw(method.codes(ten)) for name, method in first.items()}
    shown |= {
        f"{name},\nat random": method.draw(method.random(SHOWN, images[:10000])) for name, method in first.items()
    }
    title = f"{dataset.name}: {config.code} numbers an image; mean squared error of test images"
    figures = {
        "generative": plot.image_rows(shown, title=title),
        "between": plot.image_rows(between(first, ten), title=dataset.name),
    }
    rows = [
        [name, *(mean_std(found[part]) if part in found else "" for part in COLUMNS.values())]
        for name, found in results.items()
    ]
    return StudyResult(results, figures, [results_table("", (f"{config.code} numbers an image", *COLUMNS), rows)])


def costs(coder: Coder, fitted: list[Any], images: np.ndarray) -> dict[str, list[float]]:
    """The mean image's, in nats, for each seed; and the ELBO, which is less than the mean log p of an image."""
    ask = jax.jit(partial(nats, coder))
    asked = [ask(params, images, jax.random.key(seed)) for seed, params in enumerate(fitted)]
    pixels = [float(cost.mean()) for cost, _ in asked]
    if not coder.variational:
        return {"pixels": pixels}
    each = [np.asarray(code.mean(axis=0)) for _, code in asked]  # of the numbers of a code
    codes = [float(cost.sum()) for cost in each]
    elbo = [-a - b for a, b in zip(pixels, codes, strict=True)]
    return {"pixels": pixels, "code": codes, "elbo": elbo, "used": [int((cost > 0.01).sum()) for cost in each]}


def between(methods: dict[str, Method], images: np.ndarray) -> dict[str, Any]:
    """The straight way from one image to another: of the pixels, and of the codes."""
    ways = {"pixels": Method(lambda images: images / 255, lambda pixels: pixels)} | methods
    rows = {}
    for pair in PAIRS:
        for name, way in ways.items():
            start, end = np.asarray(way.codes(images[list(pair)]))
            rows[f"{name} {pair[0]} → {pair[1]}"] = way.draw(np.linspace(start, end, SHOWN, dtype=np.float32))
    return rows


def summarize_results(results: dict[str, Any]) -> str:
    errors = ", ".join(f"{name} {mean_std(found['test_mse'])}" for name, found in results.items())
    found = results["variational"]
    return (
        f"Mean squared error of a test image's pixels: {errors}. The ELBO of the variational one is "
        f"{mean_std(found['elbo'], 1)} nats an image: {mean_std(found['pixels'], 1)} for the pixels and "
        f"{mean_std(found['code'], 1)} for the code, of which {mean_std(found['used'], 0)} numbers are used."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
