"""How long `finevote report` takes, and how large its page is: `python -m benchmarks.report_size --out FOLDER`.

Makes a run of 200 classes and 6,000 test photographs with a tiny untrained classifier, whose saved answers are then
made up: for each image the logit of its class is raised. The photographs are noise at 500 x 375 px, which no JPEG makes
small, one file for each. What is timed is the whole command in a process of its own, from saved predictions, with the
contrasts of classes that it computes and without a gallery.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from rich.console import Console

from finevote.build import build_model, build_preprocessing
from finevote.bundle.write import save_bundle
from finevote.config import load_config
from finevote.evaluation.predictions import load_predictions, save_predictions
from finevote.files import atomic_write
from finevote.machine import describe_machine, describe_versions, find_commit, machine_line
from finevote.measure.evaluate import evaluate
from finevote.report.render import MAX_BYTES
from finevote.training.prepare import prepare_run

SIZE = (500, 375)
SETTINGS = (
    "data.image_size=64",
    "data.resize=72",
    "model.backbone_args={patch_size: 8, embed_dim: 48, depth: 4, num_heads: 4}",
    "model.voting.num_votes_per_head=8",
    "model.voting.num_selected=24",
    "model.voting.num_key_tokens=8",
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=200)
    parser.add_argument("--images", type=int, default=6000)
    parser.add_argument("--out", type=Path, help="write report_size.json and report_size.md there")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = make_run(Path(folder), num_classes=arguments.classes, num_images=arguments.images)
        start = time.monotonic()
        command = [sys.executable, "-m", "finevote", "report", str(run), "--split", "test"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds = time.monotonic() - start
        text = (run / "report.html").read_text(encoding="utf-8")
    found = {
        "num_classes": arguments.classes,
        "num_images": arguments.images,
        "seconds": round(seconds, 1),
        "num_bytes": len(text.encode()),
        "num_photographs": text.count("data:image/jpeg"),
        "max_bytes": MAX_BYTES,
    }
    print(json.dumps(found))
    if arguments.out is not None:
        about = {"machine": describe_machine(), "versions": describe_versions(), "commit": find_commit()}
        atomic_write(arguments.out / "report_size.json", json.dumps({**about, **found}, indent=1) + "\n")
        atomic_write(arguments.out / "report_size.md", as_markdown(found))


def make_run(root: Path, *, num_classes: int, num_images: int) -> Path:
    """Return a measured run of so many classes and test images, whose answers are made up."""
    rng = np.random.default_rng(0)
    names = [f"{number:03d}.Made_up_species_{number}" for number in range(num_classes)]
    for number in range(num_images + 2 * num_classes):
        split = "test" if number < num_images else "train" if number < num_images + num_classes else "val"
        path = root / "data" / split / names[number % num_classes] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(rng.integers(0, 255, (48, 64, 3), np.uint8))
        coarse.resize(SIZE, Image.Resampling.BICUBIC).save(path, quality=90)
    config = load_config("demo", SETTINGS)
    run = prepare_run(config, root / "data", out=root / "run", skip_bad=False, console=Console(quiet=True))
    model = build_model(config, num_classes=num_classes)
    save_bundle(
        run.bundle,
        model.eval(),
        config=config,
        class_names=names,
        preprocessing=build_preprocessing(config.data, model.backbone),
        details={"data": "made up"},
    )
    evaluate(run.path, split="test")
    path = run.evaluation("test").predictions_npz
    saved, class_names = load_predictions(path)
    logits = rng.normal(0, 1, saved.logits.shape).astype(np.float32)
    logits[np.arange(num_images), saved.labels] += 3.4
    save_predictions(path, replace(saved, logits=logits), class_names)
    evaluate(run.path, split="test", saved=True)
    return run.path


def as_markdown(found: dict[str, float]) -> str:
    return (
        "# The report of a large run\n\n"
        "`python -m benchmarks.report_size`: the whole command from saved predictions, with contrasts of classes, "
        "photographs of noise.\n\n"
        "| classes | test images | time | size | photographs |\n|--:|--:|--:|--:|--:|\n"
        f"| {found['num_classes']:,} | {found['num_images']:,} | {found['seconds']:.1f} s "
        f"| {found['num_bytes'] / 1e6:.2f} MB | {found['num_photographs']} |\n\n"
        f"- measured on {machine_line()}\n"
    )


if __name__ == "__main__":
    main()
