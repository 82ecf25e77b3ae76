"""Right and wrong predictions of a measured split, drawn."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from finevote.bundle.read import Bundle
from finevote.evaluation.calibrator import told_probabilities
from finevote.explanation.figures import Example, example_grid, save_figure
from finevote.measure.evaluate import predictions_of
from finevote.measure.opening import open_split
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder
from finevote.types import DataSource, Predictions, Preprocessing

TITLES = {"val": "Validation", "test": "Test"}
_NUM_EXAMPLES, _NUM_OF_EACH = 12, 4


def draw_examples(run: Path | str, *, split: str = "val", data: str | Path | None = None) -> Path:
    """Draw right and wrong predictions of a split as `examples.png` in the run's `evaluation/{split}`; return its path.

    Measures the split first if that has not been done with the bundle that the run has now. Raises as `evaluate` does.
    """
    predictions, _ = predictions_of(run, split=split, data=data)
    folder = RunFolder.open(Path(run))
    predictor = Predictor.load(folder.path)
    source = open_split(folder, predictor.bundle, split=split, data=data)
    rows = choose_examples(predictions)
    is_right = predictions.logits.argmax(axis=1) == predictions.labels
    num_right = int(is_right[rows].sum())
    chosen = ", drawn at random" if len(rows) < len(is_right) else ""
    protocol = f" (protocol {source.protocol})" if source.protocol else ""
    discs = "; yellow discs are final votes" if predictions.final_votes is not None else ""
    figure = example_grid(
        _make_examples(predictions, rows, source=source, split=split, bundle=predictor.bundle),
        title=f"{TITLES[split]}: {is_right.mean():.1%} of {len(is_right):,} images are named right{protocol}",
        subtitle=f"{num_right} right and {len(rows) - num_right} wrong ones{chosen}{discs}",
    )
    return save_figure(figure, folder.evaluation(split).examples_png)


def choose_examples(predictions: Predictions) -> list[int]:
    """Return rows of up to 12 images drawn at random, the right ones first.

    The mix is that of the split, but with at least 4 right and 4 wrong ones where there are as many.
    """
    is_right = predictions.logits.argmax(axis=1) == predictions.labels
    order = np.random.default_rng(0).permutation(len(is_right))
    right, wrong = order[is_right[order]].tolist(), order[~is_right[order]].tolist()
    wanted = int(np.clip(round(_NUM_EXAMPLES * is_right.mean()), _NUM_OF_EACH, _NUM_EXAMPLES - _NUM_OF_EACH))
    num_right = min(len(right), max(wanted, _NUM_EXAMPLES - len(wrong)))
    return [*right[:num_right], *wrong[: _NUM_EXAMPLES - num_right]]


def _make_examples(
    predictions: Predictions, rows: Sequence[int], *, source: DataSource, split: str, bundle: Bundle
) -> list[Example]:
    by_id = {record.image_id: record for record in source.splits[split]}
    probabilities = told_probabilities(predictions.logits, bundle.calibration)
    names = source.class_names
    examples = []
    for row in rows:
        label = int(predictions.logits[row].argmax())
        votes, grid = predictions.final_votes, predictions.grid
        examples.append(
            Example(
                image=crop_to_view(source.read(by_id[predictions.image_ids[row]]), bundle.preprocessing),
                true_name=names[predictions.labels[row]],
                predicted_name=names[label],
                probability=float(probabilities[row, label]),
                votes=None if votes is None or grid is None else votes[row].reshape(grid),
            )
        )
    return examples


def crop_to_view(image: Image.Image, preprocessing: Preprocessing) -> Image.Image:
    """Return the part of a photograph that the model sees, in the photograph's own proportions."""
    rows_share, columns_share = (
        kept / whole for kept, whole in zip(preprocessing.image_size, preprocessing.resize, strict=True)
    )
    left, top = image.width * (1 - columns_share) / 2, image.height * (1 - rows_share) / 2
    return image.crop((round(left), round(top), round(image.width - left), round(image.height - top)))
