"""What is told of one image: plain values, whoever draws or writes them."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from finevote.types import Box, Ranked

Map = NDArray[np.floating[Any]]  # (rows, columns), one value a patch


@dataclass(frozen=True, eq=False)
class VoteMaps:
    """The votes of one forward pass over one image, laid on the patches: the tensors of `Votes`, and nothing computed.

    `ballots` and `enhanced` (S, rows, columns) count the votes of each layer, as cast and after smoothing, `head_votes`
    (S, H, rows, columns) tells who cast them. `selected` (T,) are the patch numbers of the selected tokens, layer by
    layer as `budget` (S,) has them, `key_ballots` (T,) the second vote over them, and `key_positions` (K,) which of
    the T won it. `final` (rows, columns) is the second vote laid on the patches; where the classifier has none, how
    often each patch was selected, and `has_second_vote` is False.
    """

    grid: tuple[int, int]
    budget: tuple[int, ...]
    ballots: NDArray[np.float32]
    enhanced: NDArray[np.float32]
    head_votes: NDArray[np.bool_]
    selected: NDArray[np.int64]
    key_ballots: NDArray[np.float32]
    key_positions: NDArray[np.int64]
    final: NDArray[np.float32]
    has_second_vote: bool

    @property
    def num_layers(self) -> int:
        """S, trunk layers that vote."""
        return len(self.budget)

    @property
    def layer_of_token(self) -> NDArray[np.int64]:
        """The layer, from 0, that forwarded each of the T selected tokens, (T,)."""
        return np.repeat(np.arange(self.num_layers), self.budget)

    @property
    def key_picks(self) -> NDArray[np.int64]:
        """How many of the key tokens came from each layer, (S,); how many were selected, without a second vote."""
        return np.bincount(self.layer_of_token[self.key_positions], minlength=self.num_layers)

    def is_selected(self, layer: int | None = None) -> NDArray[np.bool_]:
        """Return which patches (rows, columns) a layer, from 0, forwards a token of; any layer if it is None."""
        tokens = slice(None) if layer is None else self.layer_of_token == layer
        chosen = np.zeros(self.grid[0] * self.grid[1], bool)
        chosen[self.selected[tokens]] = True
        return chosen.reshape(self.grid)


class PredictionSet(NamedTuple):
    """The classes, likeliest first, of the set that holds the true one with probability `coverage`."""

    coverage: float
    method: str
    class_names: tuple[str, ...]


class Verdict(NamedTuple):
    """Whether an image is of none of the classes: its score by `method` is above the threshold.

    Of images of known classes the share `false_alarms` is called unknown.
    """

    is_unknown: bool
    score: float
    threshold: float
    method: str
    false_alarms: float


@dataclass(frozen=True, eq=False)
class Contrast:
    """Why one class and not another: what the tokens of each patch add to logit_A - logit_B.

    `contributions` (rows, columns) are Shapley values in the refinement stage and after it, 0 where no token is
    selected, with their standard errors; they sum to `difference` (with every token) less `difference_without` any.
    """

    class_a: str
    class_b: str
    difference: float
    difference_without: float
    contributions: NDArray[np.float64]
    standard_errors: NDArray[np.float64]
    num_permutations: int


@dataclass(frozen=True, eq=False)
class Neighbour:
    """A training image: its class, how far its embedding lies from the explained one's, a picture if there is one."""

    image_id: str
    class_name: str
    distance: float
    picture: Image.Image | None = None


@dataclass(frozen=True, eq=False)
class Evidence:
    """The nearest training images of one class, nearest first."""

    class_name: str
    neighbours: tuple[Neighbour, ...]


@dataclass(frozen=True, eq=False)
class Explanation:
    """What a classifier says of one image, and why.

    `photograph` is the image upright and in its own proportions, at most 1,024 px a side; `view` the part of it that
    the model sees, on which the patches of `votes` lie. `prediction_set` and `verdict` are None where the bundle has
    no calibration that holds, and `notes` say why. `true_name` is the true
    class where it is known. `evidence` is of the likeliest class and the runner-up, empty
    without a gallery in the bundle; `contrast` is None unless it was asked for.
    """

    image_id: str
    photograph: Image.Image
    view: Box
    ranked: Ranked
    is_calibrated: bool
    votes: VoteMaps
    prediction_set: PredictionSet | None = None
    verdict: Verdict | None = None
    contrast: Contrast | None = None
    evidence: tuple[Evidence, ...] = ()
    notes: tuple[str, ...] = ()
    true_name: str | None = None

    @property
    def class_name(self) -> str:
        """The likeliest class."""
        return self.ranked.class_names[0]
