"""Hand-rolled and lax convolution, and the gradients derived by hand: one table and one figure.

Claim: every lowering, and the gradients derived by hand, give the same value and the same gradients as
``lax.conv_general_dilated``, to 1e-12 of the largest entry in float64, for one convolution and for every parameter
of LeNet-5 and of the MNIST network.

    python experiments/compare_gradients.py              # about two minutes on 2 cores
    python experiments/compare_gradients.py --smoke      # one small convolution, seconds
    python experiments/compare_gradients.py --readme     # also renew the table and the figure that the README shows
"""

import dataclasses
import shutil
from pathlib import Path

import jax
import tyro
from rich.console import Console

from jaxconv import plot, runtime
from jaxconv.compare import Comparison, Contest, compare_all, contest
from jaxconv.experiment import write_json
from jaxconv.models.contest import model_contest

PROJECT = Path(__file__).resolve().parents[1]
MARKS = ("<!-- compare_gradients -->", "<!-- end -->")
PICTURE = Path(".github/pictures/compare-gradients.png")


@dataclasses.dataclass(frozen=True)
class Config:
    """Compare every lowering and the gradients derived by hand."""

    repeats: int = 15
    """Rounds of timing."""
    smoke: bool = False
    """One small convolution, to see that it runs."""
    readme: bool = False
    """Renew the README's table and figure."""
    out: Path = Path("runs/compare_gradients")
    """Folder for compare_gradients.json and the figure."""


def main(config: Config) -> None:
    found: dict[str, Comparison] = {}
    with Console(stderr=True).status("") as status, jax.enable_x64(True):
        for title, ready in contests(config.smoke).items():
            found[title] = compare_all(
                ready.functions,
                *ready.args,
                names=ready.names,
                repeats=2 if config.smoke else config.repeats,
                progress=lambda what, title=title: status.update(f"{title}: {what}"),
            )
    config.out.mkdir(parents=True, exist_ok=True)
    report = {"device": runtime.device_name(), "versions": runtime.versions()}
    write_json(config.out / "compare_gradients.json", report | {title: c.as_dict() for title, c in found.items()})
    picture = config.out / "compare_gradients.png"
    plot.errors(found).savefig(picture)
    if config.readme:
        renew_readme(markdown(found), picture)
    for title, comparison in found.items():
        print(f"\n{title}\n{comparison}")
    worst = max(row.relative for comparison in found.values() for row in comparison.rows)
    agree = all(comparison.ok for comparison in found.values())
    print(f"\n{'all agree' if agree else 'THEY DIFFER'}: largest relative error {worst:.1e}")
    print(f"saved in {config.out}: {', '.join(sorted(path.name for path in config.out.iterdir()))}")


def contests(smoke: bool) -> dict[str, Contest]:
    if smoke:
        return {"conv": contest("conv", (1, 6, 5, 2), features=3)}
    return {
        "one convolution": contest("conv", (8, 28, 28, 3), features=16, kernel=3, stride=2),
        "LeNet-5": model_contest("lenet5"),
        "the MNIST network": model_contest("mnist_cnn"),
    }


def markdown(found: dict[str, Comparison]) -> str:
    """For each implementation the largest error of any gradient, and its time: the README's table."""
    names = list(dict.fromkeys(name for comparison in found.values() for name in comparison.seconds))
    lines = [
        "| | " + " | ".join(f"{title}: error | time" for title in found) + " |",
        "|---" * (1 + 2 * len(found)) + "|",
    ]
    for name in names:
        cells = []
        for comparison in found.values():
            errors = [row.relative for row in comparison.rows if row.implementation == name]
            cells.append(f"{max(errors):.0e}" if errors else "reference")
            cells.append(f"{comparison.seconds[name].both * 1e3:.1f} ms" if name in comparison.seconds else "")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def renew_readme(table: str, picture: Path) -> None:
    """Put the table between the README's marks, and the figure beside its other pictures."""
    readme = PROJECT / "README.md"
    before, rest = readme.read_text().split(MARKS[0])
    _, after = rest.split(MARKS[1])
    readme.write_text(f"{before}{MARKS[0]}\n{table}\n{MARKS[1]}{after}")
    shutil.copy(picture, PROJECT / PICTURE)


if __name__ == "__main__":
    main(tyro.cli(Config, description=__doc__))
