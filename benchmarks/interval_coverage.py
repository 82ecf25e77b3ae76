"""How often each kind of interval holds the truth: `python -m benchmarks.interval_coverage`.

Samples of 50, 500 and 5,000 images are drawn from models of which the truth is known (from a million images where it
has no closed form), and the functions that reports use are asked for their 95% intervals. Wilson's are counted exactly.
Writes `coverage.json` and `coverage.md` into `--out` after every kind.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.stats import binom, norm

from finevote.evaluation.calibration import (
    brier_scores,
    calibration_error,
    confidences_of,
    negative_log_likelihoods,
)
from finevote.evaluation.calibration_interval import calibration_error_interval
from finevote.evaluation.intervals import Interval, area_interval, macro_interval, wilson_interval
from finevote.evaluation.means import mean_interval
from finevote.evaluation.metrics import softmax
from finevote.evaluation.paired import paired_bootstrap
from finevote.evaluation.shares import macro_share, share
from finevote.evaluation.unknown import auroc, false_positive_rate
from finevote.evaluation.unknown_figures import passing_share

SIZES = (50, 500, 5000)
NUM_CLASSES = 10
GROUP_SIZE = 5
# How the three models' logits are drawn: signal for the true class, and how much too sure they are.
MODELS = {"perfect, 51% right": (2, 1.0), "too sure, 81% right": (5, 1.4), "too sure, 97% right": (8, 2.0)}
SET_THRESHOLD = 0.05


class Row(NamedTuple):
    """How often one kind of interval held the truth; `num_trials` is 0 where that was counted exactly."""

    kind: str
    case: str
    num_images: int
    truth: float
    covered: float
    num_trials: int


def covered(draw: Callable[[], Interval], truth: float, num_trials: int) -> float:
    intervals = [draw() for _ in range(num_trials)]
    return float(np.mean([low - 1e-12 <= truth <= high + 1e-12 for low, high in intervals]))


def accuracies(_: int, rng: np.random.Generator) -> Iterator[Row]:
    del rng
    for num_images in SIZES:
        for rate in (0.5, 0.8, 0.9, 0.95, 0.99):
            counts = np.arange(num_images + 1)
            ends = np.array([wilson_interval(count, num_images) for count in counts])
            held = (ends[:, 0] <= rate) & (rate <= ends[:, 1])
            exact = float(binom.pmf(counts, num_images, rate)[held].sum())
            yield Row("accuracy, per class", f"{rate:.0%} right", num_images, rate, exact, 0)


def macros(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    for num_images in SIZES:
        for rate in (0.6, 0.9):
            rates = rng.beta(rate * 6, (1 - rate) * 6, NUM_CLASSES)
            sizes = np.full(NUM_CLASSES, num_images // NUM_CLASSES)
            found = covered(lambda r=rates, s=sizes: macro_interval(rng.binomial(s, r), s), rates.mean(), num_trials)
            yield Row("macro accuracy", f"{rate:.0%} right", num_images, float(rates.mean()), found, num_trials)


def grouped(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    for num_images in SIZES:
        groups = np.repeat(np.arange(num_images // GROUP_SIZE), GROUP_SIZE)
        labels = groups % NUM_CLASSES
        for rate in (0.6, 0.9):
            for alike in (0.0, 0.5, 1.0):
                case = f"{rate:.0%} right, groups of {GROUP_SIZE}, {alike:.0%} alike"

                def draw(rate: float = rate, alike: float = alike, groups: NDArray[np.int64] = groups) -> NDArray:
                    whole = (rng.random(groups.max() + 1) < rate)[groups]
                    return np.where(rng.random(len(groups)) < alike, whole, rng.random(len(groups)) < rate)

                def plain(draw: Callable = draw, groups: NDArray[np.int64] = groups) -> Interval:
                    return Interval(*share(draw(), groups=groups)[1:3])

                def macro(
                    draw: Callable = draw, groups: NDArray[np.int64] = groups, labels: NDArray[np.int64] = labels
                ) -> Interval:
                    return Interval(*macro_share(draw(), labels, groups=groups)[1:3])

                for kind, function in (("accuracy by groups", plain), ("macro accuracy by groups", macro)):
                    yield Row(kind, case, num_images, rate, covered(function, rate, num_trials), num_trials)


def draw_model(
    num_images: int, signal: float, excess: float, rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return logits that are too sure by the factor `excess`, and labels drawn from them without it."""
    logits = rng.normal(0, 1, (num_images, NUM_CLASSES)).astype(np.float32)
    logits[:, 0] += rng.normal(signal, 2, num_images)
    labels = (softmax(logits).cumsum(axis=1) > rng.random((num_images, 1))).argmax(axis=1)
    return excess * logits, labels


def figures(logits: NDArray, labels: NDArray[np.int64]) -> dict[str, NDArray]:
    """Return a value for each image: their means are the figures."""
    probabilities = softmax(logits)
    held = probabilities >= SET_THRESHOLD
    held[np.arange(len(labels)), probabilities.argmax(axis=1)] = True
    return {
        "Brier score": brier_scores(probabilities, labels),
        "likelihood": negative_log_likelihoods(logits, labels),
        "mean size of sets": held.sum(axis=1).astype(float),
        "coverage of sets": held[np.arange(len(labels)), labels],
    }


def means(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    for case, (signal, excess) in MODELS.items():
        truths = {kind: values.mean() for kind, values in figures(*draw_model(10**6, signal, excess, rng)).items()}
        for num_images in SIZES:
            held = dict.fromkeys(truths, 0)
            for _ in range(num_trials):
                for kind, values in figures(*draw_model(num_images, signal, excess, rng)).items():
                    is_mean_size = kind == "mean size of sets"
                    low, high = (
                        share(values)[1:3]
                        if kind == "coverage of sets"
                        else mean_interval(values, reach=float(is_mean_size))
                    )
                    held[kind] += bool(low <= truths[kind] <= high)
            for kind, truth in truths.items():
                yield Row(kind, case, num_images, float(truth), held[kind] / num_trials, num_trials)


def errors(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    num_trials = max(num_trials // 4, 1)
    for case, (signal, excess) in MODELS.items():

        def sample(num_images: int, signal: float = signal, excess: float = excess) -> tuple[NDArray, NDArray]:
            logits, labels = draw_model(num_images, signal, excess, rng)
            return confidences_of(softmax(logits), labels)

        many = sample(10**6)
        for bins in ("width", "mass"):
            truth = calibration_error(*many, bins=bins)
            for num_images in SIZES:
                found = covered(
                    lambda n=num_images, b=bins: calibration_error_interval(*sample(n), bins=b).interval,
                    truth,
                    num_trials,
                )
                yield Row(f"calibration error, equal {bins}", case, num_images, truth, found, num_trials)


def differences(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    num_trials = max(num_trials // 2, 1)
    for num_images in SIZES:
        for lost, gained in ((0.1, 0.1), (0.05, 0.1), (0.01, 0.01)):

            def draw(n: int = num_images, lost: float = lost, gained: float = gained) -> Interval:
                kinds = rng.choice(4, size=n, p=[0.6, lost, gained, 0.4 - lost - gained])
                pair = np.isin(kinds, (0, 1)), np.isin(kinds, (0, 2))
                return Interval(*paired_bootstrap(*pair, seed=int(rng.integers(2**31)), num_draws=2000)[1:3])

            case = f"{lost:.0%} lost, {gained:.0%} gained"
            found = covered(draw, gained - lost, num_trials)
            yield Row("paired difference", case, num_images, gained - lost, found, num_trials)


def areas(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    for distance in (1.0, 2.5, 4.0):
        truth = float(norm.cdf(distance / 2**0.5))
        for num_images in SIZES:

            def draw(n: int = num_images, d: float = distance) -> Interval:
                return area_interval(auroc(rng.normal(0, 1, n), rng.normal(d, 1, n)), n, n)

            found = covered(draw, truth, num_trials)
            yield Row("area under ROC", f"{distance:g} sd apart", num_images, truth, found, num_trials)


def passing(num_trials: int, rng: np.random.Generator) -> Iterator[Row]:
    num_trials = max(num_trials // 10, 1)
    for distance in (1.0, 2.5):
        truth = false_positive_rate(rng.normal(0, 1, 10**6), rng.normal(distance, 1, 10**6))
        for num_images in SIZES:

            def draw(n: int = num_images, d: float = distance) -> Interval:
                return Interval(*passing_share(rng.normal(0, 1, n), rng.normal(d, 1, n))[1:])

            found = covered(draw, truth, num_trials)
            yield Row("unknown that pass", f"{distance:g} sd apart", num_images, truth, found, num_trials)


KINDS = {
    "accuracies": accuracies,
    "macros": macros,
    "grouped": grouped,
    "means": means,
    "differences": differences,
    "errors": errors,
    "areas": areas,
    "passing": passing,
}


def as_markdown(rows: list[Row], command: str) -> str:
    """Return a table with a line for each case, and the share of cases within 93 to 97%."""
    cases: dict[tuple[str, str], dict[int, Row]] = {}
    for row in rows:
        cases.setdefault((row.kind, row.case), {})[row.num_images] = row
    lines = [
        "# How often 95% intervals hold the truth",
        "",
        f"`{command}`. In percent, for each number of images; bold outside 93 to 97%.",
        "Where a kind is not counted exactly, 1,000 trials have a standard error of 0.7 points, 250 one of 1.4, and",
        "100 one of 2.2.",
        "",
        f"| interval | case | {' | '.join(f'{size:,}' for size in SIZES)} | trials |",
        f"|---|---|{'---:|' * (len(SIZES) + 1)}",
    ]
    for (kind, case), found in cases.items():
        cells = []
        for size in SIZES:
            text = f"{found[size].covered * 100:.1f}"
            cells.append(text if 0.93 <= found[size].covered <= 0.97 else f"**{text}**")
        trials = found[SIZES[0]].num_trials
        lines.append(f"| {kind} | {case} | {' | '.join(cells)} | {trials or 'exact'} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=1000, help="of the quick kinds; others get a part of them")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/intervals"))
    arguments = parser.parse_args()
    command = f"python -m benchmarks.interval_coverage --trials {arguments.trials} --seed {arguments.seed}"
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: list[Row] = []
    for number, (name, function) in enumerate(KINDS.items()):
        if name in arguments.only:
            rows += function(arguments.trials, np.random.default_rng((arguments.seed, number)))
            content = {"command": command, "rows": [row._asdict() for row in rows]}
            (arguments.out / "coverage.json").write_text(json.dumps(content, indent=1) + "\n")
            (arguments.out / "coverage.md").write_text(as_markdown(rows, command))


if __name__ == "__main__":
    main()
