"""A taxonomy on its way from beside the data to the answers of a bundle."""

import json
import shutil

import pytest

from finevote.bundle.read import load_bundle
from finevote.errors import ArgumentError
from finevote.evaluation.answers import AnswerRule
from finevote.measure.evaluate import evaluate
from finevote.predictor import Predictor
from finevote.training.fit import fit
from finevote.types import Taxonomy
from tests.tiny import make_config, write_photographs, write_run
from tests.training.helpers import changed

TABLE = "colour,kind\nred,warm\ngreen,cold\nblue,cold\n"
EXPECTED = Taxonomy(("colour", "kind"), (("blue", "cold"), ("green", "cold"), ("red", "warm")))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    root = tmp_path_factory.mktemp("made")
    data = write_photographs(root / "data")
    (data / "taxonomy.csv").write_text(TABLE)
    return fit(make_config(), data, out=root / "run")


@pytest.fixture
def finished(made, tmp_path):
    return shutil.copytree(made, tmp_path / "run")


def photograph(run):
    return json.loads((run / "data.json").read_text())["data"] + "/val/green/0.png"


def test_the_bundle_keeps_it(finished):
    assert load_bundle(finished / "bundle").taxonomy == EXPECTED


def test_a_report_tells_every_level_and_needs_no_image_again(finished):
    figures = evaluate(finished).sections["taxonomy"]
    assert [row.level for row in figures.levels] == ["colour", "kind"]
    assert figures.levels[0].accuracy.value <= figures.levels[1].accuracy.value
    assert evaluate(finished, saved=True).sections["taxonomy"].to_dict() == figures.to_dict()


def test_the_answer_is_the_deepest_level_that_is_sure(finished, run, tmp_path):
    predictor = Predictor.load(finished)
    ranked = predictor.predict(photograph(finished))
    shares = dict(zip(ranked.class_names, ranked.probabilities, strict=True))
    best, kinds = ranked.probabilities[0], {"cold": shares["blue"] + shares["green"], "warm": shares["red"]}
    kind = max(kinds, key=kinds.get)

    def answer(sure):
        return predictor.predict(photograph(finished), rule=AnswerRule(sure=sure)).answer

    assert answer(best - 1e-4) == (ranked.class_names[0], "class")
    assert answer((best + kinds[kind]) / 2) == (kind, "kind")
    assert answer(kinds[kind] + 1e-4) == ("not sure", "unsure")
    out = tmp_path / "out.csv"
    assert run("predict", finished, photograph(finished), "--sure", (best + kinds[kind]) / 2, "--out", out)[0] == 0
    assert out.read_text().splitlines()[1].split(",")[1:3] == [kind, "kind"]


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        (AnswerRule(sure=90), "sure=90 must lie between 0 and 1"),
        (AnswerRule(sure=0.9, max_error=0.1), "leave out one"),
    ],
)
def test_rules_that_make_no_sense_are_refused(finished, rule, words):
    with pytest.raises(ArgumentError, match=words):
        Predictor.load(finished).predict(photograph(finished), rule=rule)


def test_it_can_be_given_instead_and_survives_its_file(tmp_path):
    table = tmp_path / "colours.csv"
    table.write_text(TABLE)
    config = changed(make_config(), "data", taxonomy=str(table))
    out = fit(config, write_photographs(tmp_path / "data"), out=tmp_path / "run")
    table.unlink()
    assert load_bundle(out / "bundle").taxonomy == EXPECTED
    assert "taxonomy" in evaluate(out).sections


def test_without_one_levels_are_refused(tmp_path):
    out = fit(make_config(), write_photographs(tmp_path / "data"), out=tmp_path / "run")
    with pytest.raises(ArgumentError, match=r"the bundle has no taxonomy to answer from: put a taxonomy\.csv beside"):
        Predictor.load(out).predict(photograph(out), rule=AnswerRule(sure=0.9))


def test_the_command_takes_it_and_refuses_it_with_resume(run, tmp_path):
    data = write_photographs(tmp_path / "data")
    code, _, err = run("fit", data, "--recipe", "demo", "--taxonomy", tmp_path / "none.csv", "--out", tmp_path / "run")
    assert code == 2
    assert "cannot read the taxonomy" in err
    assert "none.csv" in err
    code, _, err = run("fit", "--resume", tmp_path / "run", "--taxonomy", tmp_path / "none.csv")
    assert "leave out --taxonomy" in err


def make_run_without(tmp_path):
    data = write_photographs(tmp_path / "data")
    return write_run(tmp_path / "run", data=data), data


def test_calibrate_gives_a_bundle_the_taxonomy_that_now_lies_beside_the_data(run, tmp_path):
    folder, data = make_run_without(tmp_path)
    evaluate(folder)
    (data / "taxonomy.csv").write_text(TABLE)
    code, out, err = run("calibrate", folder)
    assert code == 0, err
    assert "taxonomy: colour, kind\n" in out
    assert load_bundle(folder / "bundle").taxonomy == EXPECTED
    assert "taxonomy" in evaluate(folder, saved=True).sections
    assert run("predict", folder, photograph(folder), "--sure", "0.9")[0] == 0


def test_calibrate_takes_a_taxonomy_in_the_place_of_another_and_keeps_it(finished, run, tmp_path):
    table = tmp_path / "other.csv"
    table.write_text("colour,side\nred,left\ngreen,left\nblue,right\n")
    assert run("calibrate", finished, "--taxonomy", table)[0] == 0
    assert load_bundle(finished / "bundle").taxonomy.levels == ("colour", "side")
    code, out, _ = run("calibrate", finished)  # beside the data there is the old one
    assert (code, "taxonomy" in out) == (0, False)
    assert load_bundle(finished / "bundle").taxonomy.levels == ("colour", "side")


def test_calibrate_reads_a_taxonomy_of_held_out_classes_too(run, tmp_path):
    data = write_photographs(tmp_path / "data")
    config = changed(changed(make_config(), "data", hold_out_classes=("green",)), "training", batch_size=4)
    folder = fit(config, data, out=tmp_path / "run")
    (tmp_path / "kinds.csv").write_text(TABLE)
    code, _, err = run("calibrate", folder, "--taxonomy", tmp_path / "kinds.csv")
    assert code == 0, err
    assert load_bundle(folder / "bundle").taxonomy.lineages == (("blue", "cold"), ("red", "warm"))


def test_calibrate_leaves_a_bundle_alone_whose_new_taxonomy_is_of_other_classes(finished, run, tmp_path):
    (tmp_path / "kinds.csv").write_text(TABLE.replace("red", "rad"))
    before = (finished / "bundle" / "bundle.json").read_bytes()
    code, _, err = run("calibrate", finished, "--taxonomy", tmp_path / "kinds.csv")
    assert (code, "line 2: there is no class 'rad'; did you mean 'red'?" in err) == (2, True)
    assert (finished / "bundle" / "bundle.json").read_bytes() == before
