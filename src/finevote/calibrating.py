"""A model calibrated: it predicts validation images as its bundle will, and what they tell is kept."""

from collections.abc import Callable, Sequence

from finevote.build import build_eval_loader
from finevote.config import CacheKind
from finevote.data.subset import some_of_each_class
from finevote.evaluation.calibrator import Calibration, calibrate
from finevote.evaluation.predict import predict
from finevote.evaluation.unknown import class_means
from finevote.model import FineGrainedClassifier
from finevote.types import DataSource, Predictions, Preprocessing, Record

IMAGES_FOR_MEAN = 50


def calibrate_model(
    model: FineGrainedClassifier,
    source: DataSource,
    *,
    preprocessing: Preprocessing,
    batch_size: int = 32,
    num_workers: int = 0,
    cache: CacheKind = "none",
    advance: Callable[[int], None] | None = None,
) -> Calibration | None:
    """Return what validation tells of a model at the keep rate that it has; None without validation.

    Every image is predicted in this process, without autocast. The class means are those of training images, which
    validation images and new ones are equally strange to.

    Args:
        model: on its device.
        source: with the splits "train" and "val" as they were divided for the model.
        preprocessing: how photographs become tensors.
        batch_size: images at once.
        num_workers: processes that read images; 0 for this one.
        cache: of the validation images; training images are kept on disk at most.
        advance: called with the number of images just done.
    """
    if not source.splits.get("val"):
        return None

    def predict_all(records: Sequence[Record], cache: CacheKind) -> Predictions:
        loader = build_eval_loader(
            records,
            read=source.read,
            preprocessing=preprocessing,
            batch_size=batch_size,
            num_workers=num_workers,
            cache=cache,
        )
        return predict(model, loader, records=records, device=next(model.parameters()).device, advance=advance)

    trained = predict_all(
        some_of_each_class(source.splits["train"], most=IMAGES_FOR_MEAN), "disk" if cache == "disk" else "none"
    )
    means = None
    if trained.embeddings is not None:
        means = class_means(trained.embeddings, trained.labels, num_classes=len(source.class_names))
    return calibrate(predict_all(source.splits["val"], cache), keep_rate=model.keep_rate, class_means=means)
