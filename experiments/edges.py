"""Edge detection: the lectures' kernels on a photograph, a box detector, and learning the Sobel kernel.

Claim (lecture rows 002-04, 002-07, 002-14, 002-15, 002-16, 002-17, 003-07, 003-08): hand-crafted kernels respond most
to the patterns they were designed for. They can also be learned: from an image and its edges, gradient descent finds
the nine numbers of the Sobel kernel to 1e-3 from any start. A function that is not linear in the pixels, such as the
Sobel gradient magnitude, cannot be computed by one kernel, but by two kernels and a root, which are learned as well.

Measured with 5 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 12 s of processor time): Sobel's numbers are learned to
3e-05 at worst, to 0.001 after 304 ± 123 steps from the photograph and after 143 ± 3 steps from white noise; with as
much noise on the target to 0.069 and 0.040. Of the slopes' length one kernel leaves 0.86 of the variance, two and a
root 4e-06. A solid 5×5 box answers 72, any other at most 60.

    python experiments/edges.py                  # 15 seconds
    python experiments/edges.py --smoke          # fewer steps, not evidence

Each seed is another start, drawn from a normal distribution. Adam trains on all windows of an image at once, the
photograph or white noise, scaled to mean 0 and standard deviation 1. The pixels of noise are independent. Neighboring
pixels of a photograph are strongly correlated, so the loss hardly depends on some directions in kernel space, and
training takes longer. Targets are the response of SOBEL_X; the same with additive noise of equal standard deviation;
and the gradient magnitude √(H² + V²). The residual is given as a fraction of the variance of the target. Of the
learning rates 0.1 and 0.3, one for all targets, the second had smaller residuals for every target of the photograph.

The photograph, china.jpg by danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035, CC BY 2.0,
https://creativecommons.org/licenses/by/2.0/), is included in scikit-learn; here it is cropped to a square and halved.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from common.study import Progress, Study, StudyResult, mean_std, results_table, run_study
from jaxconv import filters, ops, plot
from jaxconv.plot import rgb

KERNELS = {
    "blur": filters.BLUR,
    "sharpen": filters.SHARPEN,
    "Laplacian": filters.LAPLACIAN,
    "Sobel, vertical edges": filters.SOBEL_X,
    "Sobel, horizontal edges": filters.SOBEL_Y,
}
TOLERANCE = 1e-3  # maximum error of a learned kernel
CREDIT = "photograph: danielbuechele, CC BY 2.0"
SHOWN = (0, 30, 100)  # steps after which the kernel is drawn

Learner = Callable[[dict[str, jax.Array], jax.Array], jax.Array]  # (params, image) -> prediction of the target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """Apply the lectures' kernels, and learn the Sobel kernel."""

    SMOKE = {"steps": 250, "num_seeds": 2}

    num_seeds: int = 5
    """Number of random starts for each target."""
    steps: int = 1000
    """Steps of Adam, each on all windows."""
    learning_rate: float = 0.3
    """Initial learning rate of Adam; cosine decay to 0."""


def photograph() -> jax.Array:
    """Load the photograph of a pagoda, ``(1, 192, 192, 3)`` from 0 to 1."""
    from sklearn.datasets import load_sample_image

    square = load_sample_image("china.jpg")[20:404, 20:404]
    return ops.avg_pool(jnp.asarray(square[None], jnp.float32) / 255, 2)


def boxes() -> dict[str, jax.Array]:
    """Return images ``(1, 17, 17, 1)`` of bright boxes of several sizes, a hollow box and a dark box."""

    def box(size: int) -> jax.Array:
        return jnp.zeros((1, 17, 17, 1)).at[:, 4 : 4 + size, 4 : 4 + size].set(1)

    solid = {f"{size}×{size}": box(size) for size in range(3, 10)}
    return solid | {"hollow 5×5": box(5).at[:, 5:8, 5:8].set(0), "dark 5×5": 1 - box(5)}


def step_edges() -> dict[str, list[float]]:
    """Return a row of the response to a step edge, 25 to 0, in three channels (row 002-07)."""
    image = jnp.zeros((1, 10, 10, 3)).at[:, :, :5].set(25)
    vertical = filters.conv_kernel(filters.VERTICAL, 3)
    responses = {
        "bright to dark": ops.conv(image, vertical),
        "dark to bright": ops.conv(image[:, :, ::-1], vertical),
        "red only": ops.conv(image, vertical.at[:, :, 1:].set(0)),
        "above one another": ops.conv(image.swapaxes(1, 2), filters.conv_kernel(filters.HORIZONTAL, 3)).swapaxes(1, 2),
    }
    return {name: y[0, 0, :, 0].tolist() for name, y in responses.items()}


def one_kernel(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return ops.conv(x, params["kernel"], params["bias"], precision="highest")


def two_kernel_magnitude(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """Compute √(y₁² + y₂²) of two kernels; the constant keeps the gradient of the root finite."""
    return jnp.sqrt((one_kernel(params, x) ** 2).sum(axis=-1, keepdims=True) + 1e-12)


@partial(jax.jit, static_argnames=("learner", "features", "steps"))
def learn(
    learner: Learner, features: int, steps: int, rate: float, key: jax.Array, x: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Return the kernel before each step and at the end, and the final residual as a fraction of the variance."""
    params = {"kernel": jax.random.normal(key, (3, 3, 1, features)), "bias": jnp.zeros(features)}
    optimizer = optax.adam(optax.cosine_decay_schedule(rate, steps))

    def loss(params: dict[str, jax.Array]) -> jax.Array:
        return ((learner(params, x) - target) ** 2).mean() / target.var()

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, state = carry
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), params["kernel"]

    (params, _), kernels = jax.lax.scan(step, (params, optimizer.init(params)), length=steps)
    return jnp.concatenate([kernels, params["kernel"][None]]), loss(params)


def learn_all(config: Config, image: jax.Array) -> tuple[dict[str, Any], jax.Array]:
    """Return the results of all starts and targets, and the kernels of the first start while learning SOBEL_X."""
    x = (image - image.mean()) / image.std()
    sobel = jnp.asarray(filters.SOBEL_X, x.dtype)[:, :, None, None]
    edges = ops.conv(x, sobel, precision="highest")
    noisy = edges + edges.std() * jax.random.normal(jax.random.key(1), edges.shape)
    magnitude = filters.sobel(x, padding="VALID")
    tasks: dict[str, tuple[Learner, int, jax.Array]] = {
        "Sobel": (one_kernel, 1, edges),
        "Sobel and noise": (one_kernel, 1, noisy),
        "length, one kernel": (one_kernel, 1, magnitude),
        "length, two kernels": (two_kernel_magnitude, 2, magnitude),
    }
    results: dict[str, Any] = {}
    for name, (learner, features, target) in tasks.items():
        runs = [
            learn(learner, features, config.steps, config.learning_rate, jax.random.key(seed), x, target)
            for seed in range(config.num_seeds)
        ]
        results[name] = {"left_over": [float(residual) for _, residual in runs]}
        if target is not magnitude:  # one kernel cannot compute it, and a pair is determined up to a rotation
            errors = [np.abs(np.asarray(kernels) - np.asarray(sobel)).max(axis=(1, 2, 3, 4)) for kernels, _ in runs]
            results[name]["error"] = [float(error[-1]) for error in errors]
            results[name]["steps"] = [first_converged_step(error) for error in errors]
        if name == "Sobel":
            kernel_history = runs[0][0][..., 0, 0]
    return results, kernel_history


def first_converged_step(errors: np.ndarray) -> int | None:
    """Return the first step after which the error stays within ``TOLERANCE``, or None."""
    not_close = np.flatnonzero(errors > TOLERANCE)
    step = int(not_close[-1] + 1) if len(not_close) else 0
    return step if step < len(errors) else None


def measure(config: Config, progress: Progress) -> StudyResult:
    color = photograph()
    gray = color.mean(axis=-1, keepdims=True)
    flat = jnp.ones((1, 5, 6, 1))
    l1, l2 = (filters.sobel(gray, combine=combine) for combine in ("l1", "l2"))
    responses = {name: filters.box_detector(image) for name, image in boxes().items()}
    peaks = {name: peak_response(y) for name, y in responses.items()}
    results: dict[str, Any] = {
        "of_flat": {name: float(filters.apply_filter(flat, kernel)[0, 0, 0, 0]) for name, kernel in KERNELS.items()},
        "step_edges": step_edges(),
        "l1_over_l2": float((l1[l2 > 0] / l2[l2 > 0]).max()),
        "slope_of_flat": float(jnp.abs(jax.grad(lambda x: filters.sobel(x).sum())(flat)).max()),
        "boxes": peaks,
        "pixels_at_the_peak": int((responses["5×5"] == peaks["5×5"]).sum()),
        "learned": {},
    }
    kernel_histories = {}
    images = {"photograph": gray, "noise": jax.random.normal(jax.random.key(0), gray.shape)}
    for name in progress.track(list(images), "learning from {}"):
        results["learned"][name], kernel_histories[name] = learn_all(config, images[name])
    figure = draw(color, gray, kernel_histories["photograph"])
    return StudyResult(results, {"edges": figure}, tables(results))


def peak_response(y: jax.Array) -> float:
    """Return the value of largest magnitude: the maximum or the minimum."""
    return float(y.max() if y.max() >= -y.min() else y.min())


def draw(color: jax.Array, gray: jax.Array, kernel_history: jax.Array) -> Any:
    box_images = boxes()
    upper, lower = (
        jnp.concatenate([box_images[name] for name in pair], axis=2) for pair in (("3×3", "5×5"), ("hollow 5×5", "7×7"))
    )
    canvas = jnp.concatenate([upper, lower], axis=1)
    images = {
        "photograph": rgb.to_rgb(color[0]),
        "blur": rgb.to_rgb(filters.apply_filter(color, filters.normalized(filters.BLUR))[0]),
        "sharpen": rgb.to_rgb(filters.apply_filter(color, filters.normalized(filters.SHARPEN))[0]),
        "Laplacian": signed(filters.apply_filter(gray, filters.LAPLACIAN)),
        "vertical edges": signed(filters.apply_filter(gray, filters.SOBEL_X)),
        "horizontal edges": signed(filters.apply_filter(gray, filters.SOBEL_Y)),
        "|H| + |V|": heatmap(filters.sobel(gray, combine="l1")),
        "√(H² + V²)": heatmap(filters.sobel(gray)),
        "vertical edges of red": signed(filters.apply_filter(color[..., :1], filters.SOBEL_X)),
        "box detector": signed(filters.box_detector(gray)),
        "boxes: 3, 5, hollow 5, 7": rgb.to_rgb(canvas[0]),
        "detected": signed(filters.box_detector(canvas), quantile=1.0),
    }
    for step in [*(step for step in SHOWN if step < len(kernel_history) - 1), len(kernel_history) - 1]:
        images[f"after {step} steps" if step else "a kernel to be trained"] = rgb.diverging(kernel_history[step], 2.0)
    return plot.image_grid(list(images.values()), list(images), columns=4, size=1.6, title=CREDIT)


def signed(y: jax.Array, quantile: float = 0.99) -> np.ndarray:
    """Map signed values to red and blue; the scale is a quantile of the magnitudes."""
    return rgb.diverging(y[0, :, :, 0], float(jnp.quantile(jnp.abs(y), quantile)))


def heatmap(y: jax.Array) -> np.ndarray:
    return rgb.heatmap(np.minimum(y[0, :, :, 0], float(jnp.quantile(y, 0.99))))


def tables(results: dict[str, Any]) -> list[Any]:
    rows = [
        (
            f"{image}: {target}",
            f"{max(values['left_over']):.1e}",
            f"{max(values['error']):.1e}" if "error" in values else "",
            ", ".join("never" if step is None else str(step) for step in values.get("steps", ())),
        )
        for image, targets in results["learned"].items()
        for target, values in targets.items()
    ]
    return [
        results_table(
            "Box detector", ("box", "response"), [(name, f"{peak:g}") for name, peak in results["boxes"].items()]
        ),
        results_table("Learned", ("image: target", "max residual", "max error", f"steps to {TOLERANCE:g}"), rows),
    ]


def summarize_results(results: dict[str, Any]) -> str:
    photo, noise = results["learned"]["photograph"], results["learned"]["noise"]
    max_error = max(photo["Sobel"]["error"] + noise["Sobel"]["error"])
    steps = [
        "not at all" if None in targets["Sobel"]["steps"] else f"after {mean_std(targets['Sobel']['steps'], 0)} steps"
        for targets in (photo, noise)
    ]
    noisy = [max(targets["Sobel and noise"]["error"]) for targets in (photo, noise)]
    one, two = (max(photo[f"length, {learner}"]["left_over"]) for learner in ("one kernel", "two kernels"))
    max_other = max(peak for name, peak in results["boxes"].items() if name != "5×5")
    return (
        f"Sobel's numbers are learned to {max_error:.0e} at worst, to {TOLERANCE:g} {steps[0]} from the photograph and "
        f"{steps[1]} from white noise; with as much noise on the target to {noisy[0]:.3f} and {noisy[1]:.3f}. Of the "
        f"slopes' length one kernel leaves {one:.2f} of the variance, two and a root {two:.0e}. "
        f"A solid 5×5 box answers {results['boxes']['5×5']:g}, any other at most {max_other:g}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
