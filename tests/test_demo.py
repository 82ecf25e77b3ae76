import io
import json

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from finevote import config, demo
from finevote.data import synthetic
from finevote.demo import DemoFigures, run_demo
from finevote.errors import RunError
from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure, PointingGame
from finevote.evaluation.report import make_report
from finevote.types import Predictions

CONTROLS = ("voting classifier", "plain backbone, same budget", "colour histograms alone", "chance")
SMALL = (
    "data.image_size=32",
    "data.resize=36",
    "model.backbone_args={patch_size: 8, embed_dim: 32, depth: 3, num_heads: 4}",
    "model.voting.num_votes_per_head=4",
    "model.voting.num_selected=12",
    "model.voting.num_key_tokens=4",
    "training.epochs=1",
)


def make_report_of(num_correct, num_images, pointing=None, game=None):
    """Return the report of four classes of which the first `num_correct` images are right."""
    labels = np.arange(num_images) % 4
    taken = np.where(np.arange(num_images) < num_correct, labels, (labels + 1) % 4)
    logits = np.eye(4, dtype=np.float32)[taken]
    predictions = Predictions(tuple(map(str, range(num_images))), labels, logits)
    measurement = Measurement(run="r", data="d", split="test", bundle_sha256="", pointing=pointing, pointing_game=game)
    return make_report(predictions, measurement, class_names="abcd")


def printed(renderable):
    console = Console(file=io.StringIO(), width=100)
    console.print(renderable)
    return console.file.getvalue()


def test_the_table_sets_the_classifier_beside_every_control():
    figures = DemoFigures(
        voting=make_report_of(90, 100),
        plain=make_report_of(60, 100),
        color_histogram=0.30,
        voting_s=41.2,
        plain_s=27.8,
    )
    _, *rows = [line for line in printed(demo._table(figures)).splitlines() if line.strip()]
    assert [row.split("  ")[0].strip() for row in rows] == list(CONTROLS)
    # Wilson's intervals of 90, 60 and 30 in 100
    for row, texts in zip(
        rows,
        (
            ("90.0%", "82.6% to 94.5%", "41 s"),
            ("60.0%", "50.2% to 69.1%", "28 s"),
            ("30.0%", "21.9% to 39.6%"),
            ("25.0%",),
        ),
        strict=True,
    ):
        assert all(text in row for text in texts), row


def test_the_votes_are_compared_with_the_area_of_the_parts():
    sentence = demo._vote_sentence(make_report_of(1, 4, PointingFigure(0.30, 0.06, 5.0, 4)))
    assert "30.0% of the final votes" in sentence
    assert "cover 6.0% of the view" in sentence
    assert "5.0 times as many" in sentence


def test_the_most_voted_patch_is_told_too():
    game = PointingGame(0.36, 0.32, 0.41, 0.06, 6.0, 5.33, 6.83, 4)
    sentence = demo._vote_sentence(make_report_of(1, 4, PointingFigure(0.30, 0.06, 5.0, 4), game))
    assert sentence.endswith("in 36.0% of the images, 6.0 times as often as by area (5.3 to 6.8).")


def test_without_final_votes_the_sentence_says_so():
    assert demo._vote_sentence(make_report_of(1, 4)) == "No final votes were cast."


def test_a_folder_that_exists_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(RunError, match="already exists: give another --out, or delete it"):
        run_demo(tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_out_each_demo_has_a_new_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in (1, 2):
        folder = demo._free_folder(None)
        assert folder.as_posix() == f"runs/demo-{number}"
        folder.mkdir(parents=True)


@pytest.mark.slow
def test_a_small_demo_leaves_figures_and_pictures_and_prints_every_control(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(demo, "load_config", lambda name, more=(): config.load_config(name, (*more, *SMALL)))
    for split in synthetic.SPLITS:
        monkeypatch.setitem(synthetic.IMAGES_PER_CLASS, split, 4)
    folder = run_demo(tmp_path / "demo")
    output = capsys.readouterr().out

    figures = json.loads((folder / "demo.json").read_text())
    assert set(figures) == {"voting", "plain", "color_histogram_top_1", "training_s"}
    assert 0 <= figures["color_histogram_top_1"] <= 1
    for name in ("voting", "plain"):
        assert figures["training_s"][name] > 0
        assert (figures[name]["split"], figures[name]["num_images"]) == ("test", 48)
        assert (figures[name]["pointing"] is not None) == (name == "voting")
    for name in ("voting", "plain"):
        assert (folder / name / "bundle" / "model.safetensors").exists()

    assert all(name in output for name in CONTROLS)
    pictures = [line.strip() for line in output.splitlines() if line.strip().endswith(".png")]
    assert len(pictures) == 3
    for picture in pictures:
        with Image.open(picture) as image:
            assert image.width > 300
