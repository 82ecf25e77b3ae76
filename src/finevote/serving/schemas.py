"""What is asked and answered over HTTP, as values. No web framework here, so that the client shares them."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Share = float
Grid = tuple[int, int]
Rows = list[list[float]]
Counts = list[list[int]]


class _Query(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class PredictQuery(_Query):
    """What is wanted of each image."""

    top: int = Field(5, ge=1, le=100_000, description="How many classes to name.")
    coverage: float | None = Field(
        None, gt=0, lt=1, description="Also the set of classes that holds the true one with this probability."
    )
    false_alarms: float | None = Field(
        None, gt=0, lt=1, description="Also whether it is of none of the classes, wrong in this share of known ones."
    )
    max_error: float | None = Field(
        None, gt=0, lt=1, description="Answer `not sure` as often as keeps the share of wrong answers below this."
    )
    sure: float | None = Field(
        None, gt=0, lt=1, description="Answer with the class if its probability reaches this, else with its genus."
    )
    explain: bool = Field(default=False, description="Also the final votes on the patches.")
    evidence: bool = Field(
        default=False, description="Also the nearest training photographs of the two likeliest classes."
    )


class ExplainQuery(_Query):
    """What is to be explained of an image, and how."""

    format: Literal["json", "png"] = Field("json", description="All that is known, or the votes over the photograph.")
    top: int = Field(5, ge=1, le=100_000, description="How many classes to name.")
    coverage: float | None = Field(None, gt=0, lt=1, description="Of the set; 0.9 where it can be promised.")
    false_alarms: float | None = Field(None, gt=0, lt=1, description="Of the verdict; 0.05 where it can be promised.")
    layer: int | None = Field(None, ge=1, description="In the PNG: the ballots of this layer, from 1; else the final.")
    head: int | None = Field(None, ge=1, description="In the PNG: the votes of this head of the layer, from 1.")
    contrast: list[str] | None = Field(
        None, description="Why A and not B: `A,B`, `A` for A and the likeliest other, empty for the two likeliest."
    )


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, populate_by_name=True, serialize_by_alias=True)


class ModelReference(_Answer):
    """Which model answers: what it is called, and the hash of its weights and all that it says of itself."""

    name: str
    sha256: str


class LikelyClass(_Answer):
    """A class and how likely it is, calibrated where the bundle is."""

    class_name: str = Field(alias="class")
    probability: Share


class ClassSet(_Answer):
    """The classes, likeliest first, of the set that holds the true one with probability `coverage`."""

    coverage: float
    method: str
    classes: list[str]


class UnknownVerdict(_Answer):
    """Whether an image is of none of the classes: its score by `method` is above the threshold."""

    is_unknown: bool
    score: float
    threshold: float
    method: str
    false_alarms: float


class SaidAnswer(_Answer):
    """What it amounts to under the rules asked for; `kind` is class, a level such as genus, unknown or unsure."""

    text: str
    kind: str


class ViewBox(_Answer):
    """The part of the photograph that the model sees, as fractions of its width and height."""

    left: float
    top: float
    right: float
    bottom: float


class FinalVotes(_Answer):
    """The final votes on the patches, row by row over the view."""

    grid: Grid
    final: Counts
    view: ViewBox


class NearPhotograph(_Answer):
    """A training photograph: its id, how far its embedding lies from the image's, a small JPEG as data URI."""

    image_id: str
    distance: float
    thumbnail: str | None = None


class ClassEvidence(_Answer):
    """The nearest training photographs of a class, nearest first."""

    class_name: str = Field(alias="class")
    neighbours: list[NearPhotograph]


class ImageProblem(_Answer):
    """Why one image of several has no answer; `status` is what it would have got alone."""

    status: int
    reason: str


class ImageAnswer(_Answer):
    """What is said of one image; what was not asked for, or cannot be had, is null or empty."""

    name: str
    top: list[LikelyClass] = []
    set: ClassSet | None = None
    verdict: UnknownVerdict | None = None
    answer: SaidAnswer | None = None
    votes: FinalVotes | None = None
    evidence: list[ClassEvidence] = []
    error: ImageProblem | None = None


class PredictAnswer(_Answer):
    """An answer for each image, in order."""

    model: ModelReference
    results: list[ImageAnswer]


class VoteDetails(_Answer):
    """The votes of one forward pass. Patches are numbered row by row from 0, layers and heads by their place.

    `kind` tells what `final` is: the second vote, or, in a classifier without one, how often a patch was selected.
    """

    grid: Grid
    view: ViewBox
    kind: Literal["second vote", "selections"]
    final: Counts
    budget: list[int]
    key_tokens: list[int] = Field(description="Of the tokens that won the second vote, how many came from each layer.")
    selected: list[list[int]] = Field(description="For each layer the patches that it passes on.")
    ballots: list[Counts] = Field(description="For each layer how many heads voted for each patch.")
    enhanced: list[Rows] = Field(description="The same after smoothing.")
    heads: list[list[list[int]]] = Field(description="For each layer and head the patches that it voted for.")


class ContrastDetails(_Answer):
    """Why A and not B: what the tokens of each patch add to logit_A - logit_B, as Shapley values."""

    class_a: str
    class_b: str
    difference: float
    difference_without: float
    contributions: Rows
    standard_errors: Rows
    num_permutations: int


class ExplainAnswer(_Answer):
    """Why one image is named as it is; `notes` say why something was left out."""

    model: ModelReference
    name: str
    top: list[LikelyClass]
    is_calibrated: bool
    set: ClassSet | None
    verdict: UnknownVerdict | None
    votes: VoteDetails
    contrast: ContrastDetails | None
    evidence: list[ClassEvidence]
    notes: list[str]


class FigureWithInterval(_Answer):
    """A figure that was measured: a share in [0, 1] with its 95% interval, on so many images of a split."""

    name: str
    split: str
    value: float
    low: float | None = None
    high: float | None = None
    num_images: int | None = None


class TaxonomyDetails(_Answer):
    """Names from the class upwards: `lineages` has one list a class, in the order of `class_names`."""

    levels: list[str]
    lineages: list[list[str]]


class CalibrationDetails(_Answer):
    """What can be promised, as far as its validation images go.

    Up to `largest_coverage` a set need not hold every class; `smallest_false_alarms` and `smallest_max_error` are the
    smallest that can be asked for, null where none can.
    """

    temperature: float
    num_images: int
    largest_coverage: float
    smallest_false_alarms: float | None
    smallest_max_error: float | None
    can_name_levels: bool


class PreprocessingDetails(_Answer):
    """How a photograph becomes what the model sees; sizes are rows, columns in px."""

    image_size: Grid
    resize: Grid
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    decoding: str


class Licence(_Answer):
    """Under which terms a part is: the backbone's weights, the data."""

    part: str
    licence: str
    obligations: str = ""


class Abilities(_Answer):
    """What this server can answer."""

    sets: bool
    verdicts: bool
    votes: bool
    explain: bool
    contrast: bool
    evidence: bool
    levels: bool


class VotingDetails(_Answer):
    """The size of what is voted on: layers that vote, heads in each, patches."""

    num_layers: int
    num_heads: int
    grid: Grid


class LimitDetails(_Answer):
    """What a request may hold."""

    max_image_bytes: int
    max_request_bytes: int
    max_pixels: int
    max_images: int
    formats: list[str]


class ModelAnswer(_Answer):
    """What is served."""

    name: str
    task: str
    engine: str
    precision: str
    keep_rate: float
    class_names: list[str]
    taxonomy: TaxonomyDetails | None
    figures: list[FigureWithInterval]
    calibration: CalibrationDetails | None
    preprocessing: PreprocessingDetails
    voting: VotingDetails | None
    can: Abilities
    limits: LimitDetails
    hashes: dict[str, str]
    licences: list[Licence]
    versions: dict[str, str]


class Health(_Answer):
    """Whether the server lives, or is ready."""

    status: str


class ErrorDetails(_Answer):
    """Why a request was refused."""

    status: int
    reason: str
    allowed: str = ""
    what_to_do: str = ""


class ErrorAnswer(_Answer):
    """The body of every refusal."""

    error: ErrorDetails
