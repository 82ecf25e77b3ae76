"""The probe before the first step: the baseline that stands beside the run, and a start for its classifier."""

from __future__ import annotations

import torch
from rich.console import Console

from finevote.config import Config, load_config
from finevote.errors import DataError
from finevote.probe.fitted import load_probes
from finevote.probe.logistic import Linear
from finevote.probe.run import probe_run
from finevote.run_folder import RunFolder
from finevote.training.prepare import load_data


def probe_first(run: RunFolder, *, console: Console) -> None:
    """Probe the frozen backbone of a run, unless its settings do not want it, it is done, or the training has begun.

    One process does it, before the others are there or while they wait. Features are kept as they come, so that an
    interrupted probe goes on where it was.

    Raises:
        DataError: there are no validation images, and the classifier is to start from the probe.
        KeyboardInterrupt: it was told to stop; the run can be resumed.
    """
    config = load_config(run.config_yaml)
    if not config.is_probed or run.probe_json.exists() or run.last_checkpoint.exists():
        return
    source = load_data(run)
    if not source.splits.get("val"):
        if config.model.classifier_from_probe:
            raise DataError(
                f"{source.name} has no validation images to choose the probe's penalty by, so the classifier cannot "
                "start from it: set data.validation_fraction above 0, or model.classifier_from_probe=false"
            )
        console.print("the backbone is not probed: there are no validation images to choose k and penalty by")
        return
    try:
        probe_run(run, source, config, console=console)
    except KeyboardInterrupt:
        console.print("stopped while the backbone was probed; what it has seen is kept, go on with", highlight=False)
        console.print(f"  finevote fit --resume {run.path}", highlight=False, soft_wrap=True)
        raise
    torch.cuda.empty_cache()  # for processes that start now; nothing without a GPU


def starting_classifier(run: RunFolder, config: Config) -> Linear | None:
    """Return the probe's regression on CLS where the classifier is to start from it, the same for every process.

    Raises:
        RunError: the run's probe is missing or broken.
    """
    if not config.model.classifier_from_probe:
        return None
    return load_probes(arrays=run.probe_arrays, description=run.probe_json).linear["cls"]
