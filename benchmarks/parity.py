"""Does a run answer alike everywhere? Bundle, torch.export, ONNX Runtime, HTTP and the numbers that the page shows.

    python -m benchmarks.parity RUN [--data DATA] [--out FOLDER]

Every validation photograph of the run that is a file of its own goes each of these ways, from the file on. Written are
the largest differences of logits (programs) and probabilities (HTTP), how many images get another class, and how many
of the page's five names and percentages are not those of the bundle. fp16 and int8 are told beside them.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import ROUND_HALF_UP, Decimal
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import numpy as np

from finevote.client import Client
from finevote.data.resizing import model_input, read_pixels
from finevote.errors import ExportError
from finevote.evaluation.calibrator import told_probabilities
from finevote.evaluation.metrics import rank_classes
from finevote.export.candidates import ProgramCandidate
from finevote.export.choices import Precision
from finevote.export.run import export
from finevote.machine import describe_machine, describe_versions, find_commit
from finevote.measure.opening import open_split
from finevote.onnx_model import OnnxModel
from finevote.predictor import Predictor
from finevote.run_folder import RunFolder

TOP = 5
_BATCH, _PER_LOOK = 20, 100
_BROWSER = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data")
    parser.add_argument("--images", type=int, help="so many photographs at most")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/parity"))
    arguments = parser.parse_args()
    found = compare_ways(arguments.run, data=arguments.data, most=arguments.images)
    arguments.out.mkdir(parents=True, exist_ok=True)
    about = {"machine": describe_machine(), "versions": describe_versions(), "commit": find_commit()}
    (arguments.out / "parity.json").write_text(json.dumps({**found, **about}, indent=1) + "\n")
    print(json.dumps(found, indent=1))


def compare_ways(run: Path, *, data: str | None, most: int | None) -> dict[str, object]:
    predictor = Predictor.load(run)
    source = open_split(RunFolder.open(run), predictor.bundle, split="val", data=data)
    records = [record for record in source.splits["val"] if record.path is not None][:most]
    paths = [record.path for record in records if record.path is not None]
    source = type(source)(**{**vars(source), "splits": {**source.splits, "val": tuple(records)}})
    known = predictor.predict_records(source, "val")
    probabilities = told_probabilities(known.logits, predictor.bundle.calibration)
    found: dict[str, object] = {"num_images": len(paths), "num_classes": len(predictor.class_names)}

    pixels = np.stack(
        [read_pixels(lambda record=record: source.read(record), predictor.preprocessing) for record in records]
    )
    with tempfile.TemporaryDirectory() as folder:
        for precision in Precision:
            path = Path(folder) / f"{precision}.onnx"
            export(run, precision=precision, out=path, data=data, max_drop=1.0, min_agreement=0.0)
            model = OnnxModel(path)
            logits = np.concatenate([model.run(images).logits for images in _inputs(pixels, predictor)])
            found[f"onnx {precision}"] = _difference(known.logits, logits, known.labels)
        program = ProgramCandidate(predictor.bundle)
        logits = np.concatenate([program.run(images) for images in _inputs(pixels, predictor)])
        found["torch.export"] = _difference(known.logits, logits, known.labels)
        found["int8 gate"] = _gate(run, data=data, out=Path(folder) / "gate.onnx")
    with serving(run) as url:
        found["http"] = _ask_server(url, paths, probabilities, predictor.class_names)
        found["page"] = _read_page(url, paths, probabilities, predictor.class_names)
    return found


def _inputs(pixels: np.ndarray, predictor: Predictor) -> Iterator[np.ndarray]:
    for start in range(0, len(pixels), _BATCH):
        yield model_input(pixels[start : start + _BATCH], predictor.preprocessing)


def _difference(ours: np.ndarray, theirs: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    return {
        "largest_difference_of_logits": float(np.abs(ours - theirs).max()),
        "num_other_class": int((ours.argmax(1) != theirs.argmax(1)).sum()),
        "top_1": float((theirs.argmax(1) == labels).mean()),
    }


def _gate(run: Path, *, data: str | None, out: Path) -> dict[str, str]:
    """Return what the gate of int8 says with the limits that it has, and where 99% of the images must agree."""
    told = {}
    for name, min_agreement in (("as it is", 0.95), ("99% must agree", 0.99)):
        try:
            done = export(run, precision=Precision.INT8, out=out, data=data, min_agreement=min_agreement)
            told[name] = f"written: agreement {done.parity.agreement:.2%}, drop {done.parity.drop * 100:.2f} points"
        except ExportError as error:
            told[name] = f"blocked: {error}"
    return told


def _ask_server(url: str, paths: Sequence[Path], probabilities: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    client = Client(url)
    largest, num_other = 0.0, 0
    for start in range(0, len(paths), _BATCH):
        answers = client.predict_all(paths[start : start + _BATCH], top=len(names))
        for row, answer in enumerate(answers, start):
            told = {entry.class_name: entry.probability for entry in answer.top}
            largest = max(largest, *(abs(told[name] - probabilities[row, label]) for label, name in enumerate(names)))
            num_other += answer.top[0].class_name != names[int(probabilities[row].argmax())]
    return {"largest_difference_of_probabilities": float(largest), "num_other_class": num_other}


def _read_page(url: str, paths: Sequence[Path], probabilities: np.ndarray, names: Sequence[str]) -> dict[str, int]:
    from playwright.sync_api import sync_playwright

    ranks = rank_classes(probabilities)[:, :TOP]
    num_other_names = num_other_numbers = num_read = 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=list(_BROWSER))
        for first in range(0, len(paths), _PER_LOOK):
            page = browser.new_page()
            page.goto(url)
            some = paths[first : first + _PER_LOOK]
            for start in range(0, len(some), _BATCH):
                batch = some[start : start + _BATCH]
                page.set_input_files("#files", batch)
                _wait(page, start + len(batch))
            for place in range(len(some)):
                shown = page.evaluate(_READ_CARD, place)
                wanted = [
                    (names[label].replace("_", " "), percent(probabilities[first + place, label]))
                    for label in ranks[first + place]
                ]
                num_read += 1
                num_other_names += [name for name, _ in shown] != [name for name, _ in wanted]
                num_other_numbers += [value for _, value in shown] != [value for _, value in wanted]
            page.close()
        browser.close()
    return {"num_read": num_read, "num_other_names": num_other_names, "num_other_numbers": num_other_numbers}


_READ_CARD = """place => {
  document.querySelectorAll('.card')[place].click();
  const text = (kind) => [...document.querySelectorAll(`.bars .${kind}`)].map((node) => node.textContent);
  const names = text('name'), values = text('value');
  return names.map((name, at) => [name, values[at]]); }"""


def _wait(page: object, num: int) -> None:
    for _ in range(1200):
        if page.evaluate(f"document.querySelectorAll('.card.done, .card.failed').length === {num}"):  # type: ignore[attr-defined]
            return
        time.sleep(0.1)
    raise TimeoutError(f"the page has not answered {num} photographs in two minutes")


def percent(share: float) -> str:
    """Return a share as the page writes it."""
    if 0 < share < 0.0005:
        return "<0.1%"
    if 0.9995 <= share < 1:
        return ">99.9%"
    return f"{Decimal(float(share) * 100).quantize(Decimal('0.1'), ROUND_HALF_UP)}%"


@contextmanager
def serving(run: Path) -> Iterator[str]:
    """Serve a run in another process; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "finevote", "serve", str(run), "--port", str(port)]
    server = subprocess.Popen(command, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urlopen(f"{url}/readyz", timeout=1).close()
                break
            except (URLError, OSError):
                time.sleep(0.1)
        yield url
    finally:
        server.terminate()
        server.wait(30)


if __name__ == "__main__":
    main()
