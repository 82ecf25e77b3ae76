"""From the command to the answer: `finevote predict` on one photograph, beside a bare script that does the same."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from finevote.backbones.catalogue import timm_name_of
from finevote.bench.contenders import OURS, PLAIN, config_of
from finevote.bench.plan import Case, Plan, What
from finevote.bench.results import Sample
from finevote.bench.timing import Timed, ratio_of, spread_of, time_in_turn
from finevote.build import build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.data.synthetic import synthetic_source

_BY_PART = "ours, by part"  # a process of its own: the command prints no times
_WHOLE = "whole process"
_PARTS = ("imports", "load", "forward")

_OURS_SCRIPT = """
import json, sys, time
times = [time.perf_counter()]
from pathlib import Path
import finevote.cli
from finevote.files import atomic_write
from finevote.data.listing import list_images
from finevote.predictor import Predictor
from finevote.progress import Meter
times.append(time.perf_counter())
predictor = Predictor.load(sys.argv[1], device="auto")
times.append(time.perf_counter())
predictor.predict_files(list_images([Path(sys.argv[2])]), top=5)
times.append(time.perf_counter())
print(json.dumps(times))
"""

_BARE_SCRIPT = """
import json, sys, time
times = [time.perf_counter()]
import numpy, timm, torch
from PIL import Image
from safetensors.torch import load_file
times.append(time.perf_counter())
settings = json.loads(sys.argv[3])
device = "cuda" if torch.cuda.is_available() else "cpu"
model = timm.create_model(settings.pop("name"), **settings)
model.load_state_dict(load_file(sys.argv[1]))
model = model.to(device).eval()
times.append(time.perf_counter())
image = Image.open(sys.argv[2]).convert("RGB").resize(model.patch_embed.img_size[::-1], Image.Resampling.BICUBIC)
pixels = torch.from_numpy(numpy.asarray(image).copy()).permute(2, 0, 1)[None].to(device) / 255
mean, std = (torch.tensor(model.pretrained_cfg[name], device=device)[:, None, None] for name in ("mean", "std"))
with torch.inference_mode():
    best = model((pixels - mean) / std).softmax(-1).topk(min(5, model.num_classes))
best.values.cpu()
times.append(time.perf_counter())
print(json.dumps(times))
"""


def measure_startup(plan: Plan) -> Iterator[list[Sample]]:
    """Yield the times of each backbone at the first size, whole processes and their parts."""
    for case in plan.plain_cases():
        if case.size == plan.sizes[0]:
            with tempfile.TemporaryDirectory() as folder:
                yield [sample.of(case) for sample in _time_processes(case, plan, folder=Path(folder))]


def _time_processes(case: Case, plan: Plan, *, folder: Path) -> Iterator[Sample]:
    bundle, weights, photograph = (folder / name for name in ("bundle", "plain.safetensors", "bird.jpg"))
    settings = _write(case, bundle=bundle, weights=weights, photograph=photograph)
    parts: dict[str, list[list[float]]] = defaultdict(list)
    environment = {} if plan.threads is None else {"OMP_NUM_THREADS": str(plan.threads)}
    if case.device == "cpu":
        environment["CUDA_VISIBLE_DEVICES"] = ""  # both look for a GPU by themselves

    def run(name: str, arguments: Sequence[Any]) -> Callable[[], None]:
        def start() -> None:
            printed = _run(arguments, environment=environment)
            if name != OURS.name:
                parts[name].append(json.loads(printed.splitlines()[-1]))

        return start

    timed = time_in_turn(
        {
            PLAIN.name: run(PLAIN.name, ["-c", _BARE_SCRIPT, weights, photograph, json.dumps(settings)]),
            OURS.name: run(OURS.name, ["-m", "finevote", "predict", bundle, photograph]),
            _BY_PART: run(_BY_PART, ["-c", _OURS_SCRIPT, bundle, photograph]),
        },
        num_rounds=plan.rounds,
    )
    yield from _whole_samples(timed)
    for process, name in ((PLAIN.name, PLAIN.name), (_BY_PART, OURS.name)):
        yield from _part_samples(name, parts[process][1:])


def _whole_samples(timed: Timed) -> Iterator[Sample]:
    whole = {name: timed.seconds[name] for name in (PLAIN.name, OURS.name) if name in timed.seconds}
    for name, seconds in whole.items():
        yield _sample("time", name, seconds, part=_WHOLE)
    if len(whole) == 2:
        ratio = ratio_of(whole[OURS.name], whole[PLAIN.name])
        raw = tuple(a / b for a, b in zip(whole[OURS.name], whole[PLAIN.name], strict=True))
        yield Sample(What.STARTUP, "time ratio", OURS.name, unit="", part=_WHOLE, raw=raw, **ratio._asdict())
    for name, note in timed.failures.items():
        yield Sample(What.STARTUP, "time", name, None, "s", part=_WHOLE, note=note)


def _part_samples(name: str, rounds: Sequence[Sequence[float]]) -> Iterator[Sample]:
    if rounds:
        for number, part in enumerate(_PARTS):
            yield _sample("time", name, [times[number + 1] - times[number] for times in rounds], part=part)


def _sample(quantity: str, name: str, values: Sequence[float], *, part: str) -> Sample:
    return Sample(What.STARTUP, quantity, name, unit="s", part=part, raw=tuple(values), **spread_of(values)._asdict())


def _write(case: Case, *, bundle: Path, weights: Path, photograph: Path) -> dict[str, Any]:
    """Write a bundle, a timm model's weights and a photograph; return how timm is to build that model."""
    config = config_of(case)
    names = [f"class {number}" for number in range(case.num_classes)]
    ours: Any = OURS.build(case).model
    preprocessing = build_preprocessing(config.data, ours.backbone)
    save_bundle(bundle, ours, config=config, class_names=names, preprocessing=preprocessing, details={})
    plain: Any = PLAIN.build(case).model
    save_file(plain.state_dict(), weights)
    drawn = synthetic_source(splits=("train",), image_size=512, images_per_class={"train": 1})
    drawn.read(drawn.splits["train"][0]).save(photograph, quality=90)
    return {
        "name": timm_name_of(case.backbone),
        "img_size": plain.patch_embed.img_size,
        "num_classes": case.num_classes,
        "global_pool": plain.global_pool,
        **config.model.backbone_args,
    }


def _run(arguments: Sequence[Any], *, environment: Mapping[str, str]) -> str:
    command = [sys.executable, *map(str, arguments)]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode != 0:
        raise RuntimeError(done.stderr.strip().splitlines()[-1] if done.stderr.strip() else f"exit {done.returncode}")
    return done.stdout
