"""Several photographs of one subject: from a table with groups to the report, and from files to one answer."""

import csv
import json
import re

import numpy as np
import pytest

from finevote.evaluation.fusion import measure_fusion
from finevote.evaluation.predictions import load_predictions
from finevote.measure.evaluate import evaluate
from tests.tiny import write_photographs, write_run


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Return a run on a table whose validation photographs are of two subjects a class, one of them alone."""
    root = tmp_path_factory.mktemp("made")
    photographs = write_photographs(root / "data")
    with (root / "data.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "label", "split", "group"])
        for path in sorted(photographs.rglob("*.png")):
            split, name = path.parts[-3:-1]
            group = f"{split} {name} {int(path.stem) // 2}"  # 0 and 1 together, 2 alone
            writer.writerow([path, name, split, group])
    return write_run(root / "run", data=root / "data.csv"), photographs


def test_the_report_says_what_photographs_of_a_subject_gain(finished):
    run, _ = finished
    report = evaluate(run)
    saved, _ = load_predictions(run / "evaluation" / "val" / "predictions.npz")
    fusion = report.sections["fusion"]
    assert (fusion.num_subjects, fusion.num_alone, fusion.photographs_per_subject) == (3, 3, 2)
    assert fusion == measure_fusion(saved)
    assert json.loads((run / "evaluation" / "val" / "report.json").read_text())["fusion"]["num_subjects"] == 3


def test_saved_predictions_give_the_same_figures(finished):
    run, _ = finished
    assert evaluate(run).sections["fusion"] == evaluate(run, saved=True).sections["fusion"]


def test_a_split_without_groups_has_no_such_section(tmp_path):
    run = write_run(tmp_path / "run", data=write_photographs(tmp_path / "data"))
    assert "fusion" not in evaluate(run).sections


def test_the_command_gives_one_answer_and_says_for_how_many(finished, run):
    folder, photographs = finished
    code, out, _ = run("predict", folder, photographs / "val" / "red", "--together", "--top", "2")
    assert code == 0
    assert "3 photographs: 0.png, 1.png, 2.png" in out
    assert len(re.findall(r"0\.\d{4}", out)) == 2


def test_an_answer_for_several_lists_them_in_json(finished, run, tmp_path):
    folder, photographs = finished
    paths = [photographs / "val" / "red" / name for name in ("0.png", "1.png")]
    code, _, err = run("predict", folder, *paths, tmp_path / "gone.png", "--together", "--out", tmp_path / "a.jsonl")
    assert code == 0
    assert "gone.png: No such file" in err
    assert "1 prediction written" in err
    (line,) = (tmp_path / "a.jsonl").read_text().splitlines()
    answer = json.loads(line)
    assert answer["photographs"] == [str(path) for path in paths]
    assert np.isclose(sum(row["probability"] for row in answer["top"]), 1)


@pytest.mark.parametrize("option", ["--coverage", "--false-alarms", "--max-error"])
def test_what_is_promised_of_single_photographs_is_refused_for_several(finished, run, option):
    folder, photographs = finished
    code, _, err = run("predict", folder, photographs, "--together", option, "0.1")
    assert code == 2
    assert f"--together with {option}: what is promised was calibrated on single photographs" in err
    assert "leave one of them out" in err


def test_no_readable_photograph_is_an_error(finished, run, tmp_path):
    code, _, err = run("predict", finished[0], tmp_path / "gone.png", "--together")
    assert code == 2
    assert "error: there is no photograph that can be read" in err
