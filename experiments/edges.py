"""The lectures' kernels on a photograph, the box detector on boxes, and Sobel's kernel learned from what it makes.

Claim (lecture rows 002-04, 002-07, 002-14, 002-15, 002-16, 002-17, 003-07, 003-08): a kernel made by hand answers most
to what it was made for. And nobody has to make it: from an image and its edges gradient descent finds
Sobel's nine numbers to 1e-3, from wherever it starts. What is not linear in the pixels, such as the length of Sobel's
two slopes, no kernel can make; two kernels and a root can, and they are learned as well.

Measured with 5 seeds (cpu (Linux x86_64, 2 cores), jax 0.10.2, 12 s of processor time): Sobel's numbers are learned to
3e-05 at worst, to 0.001 after 304 ± 123 steps from the photograph and after 143 ± 3 steps from white noise; with as
much noise on the target to 0.069 and 0.040. Of the slopes' length one kernel leaves 0.86 of the variance, two and a
root 4e-06. A solid 5×5 box answers 72, any other at most 60.

    python experiments/edges.py                  # a quarter of a minute
    python experiments/edges.py --smoke          # fewer steps, and no evidence

Each seed is another start: numbers drawn from a normal distribution. They are learned by Adam from all windows of an
image at once, the photograph or white noise, scaled to mean 0 and standard deviation 1. The pixels of noise have
nothing to do with one another; in a photograph neighbours are nearly alike, so that the loss hardly tells some kernels
apart, and learning takes longer. Targets are what SOBEL_X makes of the image; the same with noise on it whose standard
deviation is as large; and the length √(H² + V²). What is left over is told as a share of the target's variance. Of the
learning rates 0.1 and 0.3, one for all, the second left less over of each of the photograph's targets.

The photograph, china.jpg by danielbuechele (https://www.flickr.com/photos/danielbuechele/6061409035, CC BY 2.0,
https://creativecommons.org/licenses/by/2.0/), comes with scikit-learn; it is cut to a square, half as large.
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
CLOSE = 1e-3  # as near as a learned kernel should come
CREDIT = "photograph: danielbuechele, CC BY 2.0"
SHOWN = (0, 30, 100)  # the steps after which it is drawn

Learner = Callable[[dict[str, jax.Array], jax.Array], jax.Array]  # (params, image) -> what should be the target


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(Study):
    """The lectures' kernels, and learning one of them."""

    SMOKE = {"steps": 250, "num_seeds": 2}

    num_seeds: int = 5
    """Starts of each thing that is learned."""
    steps: int = 1000
    """Steps of Adam, on all windows at once."""
    learning_rate: float = 0.3
    """Adam's highest; it falls to 0 along a cosine."""


def photograph() -> jax.Array:
    """A pagoda, ``(1, 192, 192, 3)`` from 0 to 1."""
    from sklearn.datasets import load_sample_image

    square = load_sample_image("china.jpg")[20:404, 20:404]
    return ops.avg_pool(jnp.asarray(square[None], jnp.float32) / 255, 2)


def boxes() -> dict[str, jax.Array]:
    """Boxes that are 1 brighter than what is around them, and a dark one; ``(1, 17, 17, 1)`` each."""

    def box(size: int) -> jax.Array:
        return jnp.zeros((1, 17, 17, 1)).at[:, 4 : 4 + size, 4 : 4 + size].set(1)

    solid = {f"{size}×{size}": box(size) for size in range(3, 10)}
    return solid | {"hollow 5×5": box(5).at[:, 5:8, 5:8].set(0), "dark 5×5": 1 - box(5)}


def step_edges() -> dict[str, list[float]]:
    """What a row of the answer is, for five bright columns (25) and five dark ones, in three colours (row 002-07)."""
    image = jnp.zeros((1, 10, 10, 3)).at[:, :, :5].set(25)
    vertical = filters.conv_kernel(filters.VERTICAL, 3)
    answers = {
        "bright to dark": ops.conv(image, vertical),
        "dark to bright": ops.conv(image[:, :, ::-1], vertical),
        "red only": ops.conv(image, vertical.at[:, :, 1:].set(0)),
        "above one another": ops.conv(image.swapaxes(1, 2), filters.conv_kernel(filters.HORIZONTAL, 3)).swapaxes(1, 2),
    }
    return {name: y[0, 0, :, 0].tolist() for name, y in answers.items()}


def one_kernel(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    return ops.conv(x, params["kernel"], params["bias"], precision="highest")


def length_of_two(params: dict[str, jax.Array], x: jax.Array) -> jax.Array:
    """√(y₁² + y₂²) of two kernels; the constant keeps the root's slope finite."""
    return jnp.sqrt((one_kernel(params, x) ** 2).sum(axis=-1, keepdims=True) + 1e-12)


@partial(jax.jit, static_argnames=("learner", "features", "steps"))
def learn(
    learner: Learner, features: int, steps: int, rate: float, key: jax.Array, x: jax.Array, target: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The kernel before each step and at the end, and what is left over at the end, as a share of the variance."""
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
    """What each start makes of each target, and the first start's kernels on the way to SOBEL_X's."""
    x = (image - image.mean()) / image.std()
    sobel = jnp.asarray(filters.SOBEL_X, x.dtype)[:, :, None, None]
    edges = ops.conv(x, sobel, precision="highest")
    noisy = edges + edges.std() * jax.random.normal(jax.random.key(1), edges.shape)
    length = filters.sobel(x, padding="VALID")
    tasks: dict[str, tuple[Learner, int, jax.Array]] = {
        "Sobel": (one_kernel, 1, edges),
        "Sobel and noise": (one_kernel, 1, noisy),
        "length, one kernel": (one_kernel, 1, length),
        "length, two kernels": (length_of_two, 2, length),
    }
    found: dict[str, Any] = {}
    for name, (learner, features, target) in tasks.items():
        each = [
            learn(learner, features, config.steps, config.learning_rate, jax.random.key(seed), x, target)
            for seed in range(config.num_seeds)
        ]
        found[name] = {"left_over": [float(left) for _, left in each]}
        if target is not length:  # the length is no one kernel's, and a pair's may be turned
            errors = [np.abs(np.asarray(kernels) - np.asarray(sobel)).max(axis=(1, 2, 3, 4)) for kernels, _ in each]
            found[name]["error"] = [float(error[-1]) for error in errors]
            found[name]["steps"] = [first_close(error) for error in errors]
        if name == "Sobel":
            way = each[0][0][..., 0, 0]
    return found, way


def first_close(errors: np.ndarray) -> int | None:
    """The step from which on a kernel stays close."""
    far = np.flatnonzero(errors > CLOSE)
    return None if len(far) and far[-1] == len(errors) - 1 else int(far[-1] + 1) if len(far) else 0


def measure(config: Config, progress: Progress) -> StudyResult:
    colours = photograph()
    grey = colours.mean(axis=-1, keepdims=True)
    flat = jnp.ones((1, 5, 6, 1))
    l1, l2 = (filters.sobel(grey, combine=combine) for combine in ("l1", "l2"))
    answers = {name: filters.box_detector(image) for name, image in boxes().items()}
    peaks = {name: extreme(y) for name, y in answers.items()}
    results: dict[str, Any] = {
        "of_flat": {name: float(filters.apply_filter(flat, kernel)[0, 0, 0, 0]) for name, kernel in KERNELS.items()},
        "step_edges": step_edges(),
        "l1_over_l2": float((l1[l2 > 0] / l2[l2 > 0]).max()),
        "slope_of_flat": float(jnp.abs(jax.grad(lambda x: filters.sobel(x).sum())(flat)).max()),
        "boxes": peaks,
        "pixels_at_the_peak": int((answers["5×5"] == peaks["5×5"]).sum()),
        "learned": {},
    }
    ways = {}
    images = {"photograph": grey, "noise": jax.random.normal(jax.random.key(0), grey.shape)}
    for name in progress.track(list(images), "learning from {}"):
        results["learned"][name], ways[name] = learn_all(config, images[name])
    figure = draw(colours, grey, ways["photograph"])
    return StudyResult(results, {"edges": figure}, tables(results))


def extreme(y: jax.Array) -> float:
    """The largest number, or the least if it is the larger without its sign."""
    return float(y.max() if y.max() >= -y.min() else y.min())


def draw(colours: jax.Array, grey: jax.Array, way: jax.Array) -> Any:
    kinds = boxes()
    above, below = (
        jnp.concatenate([kinds[name] for name in names], axis=2) for names in (("3×3", "5×5"), ("hollow 5×5", "7×7"))
    )
    canvas = jnp.concatenate([above, below], axis=1)
    shown = {
        "photograph": rgb.to_rgb(colours[0]),
        "blur": rgb.to_rgb(filters.apply_filter(colours, filters.normalized(filters.BLUR))[0]),
        "sharpen": rgb.to_rgb(filters.apply_filter(colours, filters.normalized(filters.SHARPEN))[0]),
        "Laplacian": signed(filters.apply_filter(grey, filters.LAPLACIAN)),
        "vertical edges": signed(filters.apply_filter(grey, filters.SOBEL_X)),
        "horizontal edges": signed(filters.apply_filter(grey, filters.SOBEL_Y)),
        "|H| + |V|": heat(filters.sobel(grey, combine="l1")),
        "√(H² + V²)": heat(filters.sobel(grey)),
        "vertical edges of red": signed(filters.apply_filter(colours[..., :1], filters.SOBEL_X)),
        "box detector": signed(filters.box_detector(grey)),
        "boxes: 3, 5, hollow 5, 7": rgb.to_rgb(canvas[0]),
        "detected": signed(filters.box_detector(canvas), share=1.0),
    }
    for step in [*(step for step in SHOWN if step < len(way) - 1), len(way) - 1]:
        shown[f"after {step} steps" if step else "a kernel to be trained"] = rgb.diverging(way[step], 2.0)
    return plot.image_grid(list(shown.values()), list(shown), columns=4, size=1.6, title=CREDIT)


def signed(y: jax.Array, share: float = 0.99) -> np.ndarray:
    """In red and blue, the deepest for what no more than 1 % of the pixels exceed."""
    return rgb.diverging(y[0, :, :, 0], float(jnp.quantile(jnp.abs(y), share)))


def heat(y: jax.Array) -> np.ndarray:
    return rgb.heatmap(np.minimum(y[0, :, :, 0], float(jnp.quantile(y, 0.99))))


def tables(results: dict[str, Any]) -> list[Any]:
    learned = [
        (
            f"{image}: {target}",
            f"{max(each['left_over']):.1e}",
            f"{max(each['error']):.1e}" if "error" in each else "",
            ", ".join("never" if step is None else str(step) for step in each.get("steps", ())),
        )
        for image, found in results["learned"].items()
        for target, each in found.items()
    ]
    return [
        results_table(
            "Box detector", ("box", "answer"), [(name, f"{peak:g}") for name, peak in results["boxes"].items()]
        ),
        results_table("Learned", ("from", "left over at most", "error at most", f"steps to {CLOSE:g}"), learned),
    ]


def summarize_results(results: dict[str, Any]) -> str:
    photo, noise = results["learned"]["photograph"], results["learned"]["noise"]
    far = max(photo["Sobel"]["error"] + noise["Sobel"]["error"])
    steps = [
        "not at all" if None in found["Sobel"]["steps"] else f"after {mean_std(found['Sobel']['steps'], 0)} steps"
        for found in (photo, noise)
    ]
    noisy = [max(found["Sobel and noise"]["error"]) for found in (photo, noise)]
    one, two = (max(photo[f"length, {learner}"]["left_over"]) for learner in ("one kernel", "two kernels"))
    others = max(peak for name, peak in results["boxes"].items() if name != "5×5")
    return (
        f"Sobel's numbers are learned to {far:.0e} at worst, to {CLOSE:g} {steps[0]} from the photograph and "
        f"{steps[1]} from white noise; with as much noise on the target to {noisy[0]:.3f} and {noisy[1]:.3f}. Of the "
        f"slopes' length one kernel leaves {one:.2f} of the variance, two and a root {two:.0e}. "
        f"A solid 5×5 box answers {results['boxes']['5×5']:g}, any other at most {others:g}."
    )


if __name__ == "__main__":
    run_study(Config, measure, summarize_results)
