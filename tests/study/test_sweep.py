"""Sweeps of trainings that take a second each."""

import csv
import json
import shutil
from importlib.metadata import version

import pytest
import yaml

from finevote.errors import ArgumentError, ConfigError, RunError
from finevote.study import trials
from finevote.study.sweep import combine, sweep
from finevote.study.trials import Variant, check_trials, plan_trials
from tests.training.helpers import make_photographs, tiny_values


@pytest.fixture(scope="module")
def recipe(tmp_path_factory):
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values(epochs=1)))
    return str(path)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_photographs(tmp_path_factory.mktemp("data") / "colours")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, recipe, data):
    out = tmp_path_factory.mktemp("sweep") / "out"
    found, _ = sweep(recipe, data, num_seeds=2, settings=["model.voting.merge=false|true"], out=out)
    return found, out


@pytest.fixture
def counted(monkeypatch):
    """Count the trainings that are started and resumed."""
    calls = []
    for name in ("fit", "resume"):
        original = getattr(trials, name)

        def counting(*args, _name=name, _original=original, **options):
            calls.append(_name)
            return _original(*args, **options)

        monkeypatch.setattr(trials, name, counting)
    return calls


def test_every_combination_of_alternatives_is_a_variant():
    found = combine(["a.b=1|2", "c=3", "d=x|y"])
    assert [variant.name for variant in found] == ["a.b=1, d=x", "a.b=1, d=y", "a.b=2, d=x", "a.b=2, d=y"]
    assert found[1].settings == ("a.b=1", "c=3", "d=y")
    assert combine(["c=3"]) == [Variant("as it is", ("c=3",))]


@pytest.mark.parametrize("setting", ["training.epochs", "=3", "a=1||2"])
def test_a_setting_that_is_none_is_refused(setting):
    with pytest.raises(ConfigError, match=r"must look like section\.field=value, or"):
        combine([setting])


def test_seeds_are_rounds_over_all_variants(recipe, tmp_path):
    planned = plan_trials(recipe, combine(["optim.lr=0.1|0.2"]), num_seeds=2, root=tmp_path)
    assert [(trial.variant, trial.seed) for trial in planned] == [
        ("optim.lr=0.1", 0),
        ("optim.lr=0.2", 0),
        ("optim.lr=0.1", 1),
        ("optim.lr=0.2", 1),
    ]
    assert {trial.config.data.validation_seed for trial in planned} == {0}
    assert planned[3].path == tmp_path / "optim.lr-0.2" / "seed-1"
    assert planned[3].config.training.seed == 1


def test_variants_stand_in_one_table_with_their_seeds(finished):
    found, out = finished
    assert [(row.name, row.seeds) for row in found.standings] == [
        ("model.voting.merge=false", (0, 1)),
        ("model.voting.merge=true", (0, 1)),
    ]
    assert found.duels[0].test == "hierarchical bootstrap of seeds and images"
    with (out / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["variant"] for row in rows] == [row.name for row in found.standings]
    assert float(rows[1]["difference"]) == pytest.approx(found.duels[0].difference)
    saved = json.loads((out / "sweep.json").read_text())
    about = {name: saved.pop(name) for name in ("machine", "versions", "commit")}
    assert saved == json.loads(json.dumps(found.to_dict()))
    assert about["versions"]["torch"] == version("torch")
    assert f"put together on {about['machine']['num_cores']} cores of " in (out / "sweep.md").read_text()
    assert "| model.voting.merge=true | 2 |" in (out / "sweep.md").read_text()
    assert (out / "sweep.png").stat().st_size > 0


def test_finished_runs_are_kept_and_an_interrupted_one_is_resumed(finished, recipe, data, tmp_path, counted):
    found, made = finished
    out = shutil.copytree(made, tmp_path / "out")
    shutil.rmtree(out / "model.voting.merge-true" / "seed-1")  # never begun
    shutil.rmtree(out / "model.voting.merge-true" / "seed-0" / "bundle")  # stopped before its end
    again, _ = sweep(recipe, data, num_seeds=2, settings=["model.voting.merge=false|true"], out=out)
    assert counted == ["resume", "fit"]
    assert [row.accuracy for row in again.standings] == [row.accuracy for row in found.standings]


def test_more_seeds_add_to_those_there_are(recipe, data, tmp_path, counted):
    for num_seeds in (1, 2):
        found, _ = sweep(recipe, data, num_seeds=num_seeds, out=tmp_path / "out")
    assert found.standings[0].seeds == (0, 1)
    assert counted == ["fit", "fit"]


def test_what_a_killed_fit_left_is_begun_again(recipe, data, tmp_path, counted):
    stub = tmp_path / "out" / "as-it-is" / "seed-0"
    (stub / "checkpoints").mkdir(parents=True)
    (stub / "split.json").write_text("{}")
    sweep(recipe, data, num_seeds=1, out=tmp_path / "out")
    assert counted == ["fit"]


def test_runs_of_other_settings_are_refused_before_anything_is_trained(finished, recipe, data, counted):
    with pytest.raises(RunError, match="merge-false/seed-0 holds a run of other settings: give another --out"):
        sweep(recipe, data, settings=["model.voting.merge=false|true", "training.epochs=2"], out=finished[1])
    assert counted == []


def test_runs_on_other_data_are_refused(finished, recipe, tmp_path):
    other = make_photographs(tmp_path / "other")
    with pytest.raises(RunError, match=r"holds a run on other data than .*other"):
        sweep(recipe, other, num_seeds=1, settings=["model.voting.merge=false|true"], out=finished[1])


def test_without_validation_the_split_must_be_test(recipe, data, tmp_path):
    with pytest.raises(ArgumentError, match="leaves no validation images: give --split test"):
        sweep(recipe, data / "train", settings=["data.validation_fraction=0"], out=tmp_path / "out")


@pytest.mark.parametrize(
    ("settings", "names"),
    [
        (["data.validation_seed=1|2"], r"data\.validation_seed must .*; or give --split test"),
        (["data.validation_seed=null"], r"data\.validation_seed must .*; or give --split test"),
        (["data.validation_fraction=0.2|0.4"], r"data\.validation_fraction must"),
        (["data.hold_out_classes=0|1"], r"data\.hold_out_classes must .* be compared$"),
    ],
)
def test_variants_measured_on_different_images_are_refused_before_training(
    recipe, data, tmp_path, counted, settings, names
):
    with pytest.raises(ArgumentError, match=names):
        sweep(recipe, data / "train", num_seeds=2, settings=settings, out=tmp_path / "out")
    assert counted == []


def test_held_out_images_may_differ_where_others_are_measured_on(recipe, data, tmp_path):
    planned = plan_trials(recipe, combine(["data.validation_seed=1|2"]), num_seeds=2, root=tmp_path)
    check_trials(planned, data, split="val")  # it has validation images of its own
    check_trials(planned, data / "train", split="test")


def test_the_seed_is_no_setting_of_a_variant(recipe, tmp_path):
    with pytest.raises(ArgumentError, match=r"training\.seed cannot be set here: .*\(--seeds\)"):
        plan_trials(recipe, combine(["training.seed=1|2"]), num_seeds=1, root=tmp_path)


def test_one_setting_under_two_names_is_refused(recipe, tmp_path):
    with pytest.raises(ArgumentError, match=r"'optim\.lr=0\.001' and 'optim\.lr=1e-3' are the same settings"):
        plan_trials(recipe, combine(["optim.lr=0.001|1e-3"]), num_seeds=1, root=tmp_path)


def test_held_out_validation_images_are_the_same_for_every_seed(recipe, data, tmp_path):
    found, out = sweep(recipe, data / "train", num_seeds=2, out=tmp_path / "out")
    held_out = [json.loads((out / "as-it-is" / f"seed-{seed}" / "split.json").read_text()) for seed in (0, 1)]
    assert held_out[0]["splits"]["val"] == held_out[1]["splits"]["val"]
    assert found.standings[0].seeds == (0, 1)


def test_no_seeds_are_refused(recipe, tmp_path):
    with pytest.raises(ArgumentError, match="seeds=0 must be at least 1"):
        plan_trials(recipe, combine([]), num_seeds=0, root=tmp_path)


def test_stopping_says_how_to_go_on(recipe, data, tmp_path, monkeypatch, capsys):
    def stopped(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(trials, "fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        sweep(recipe, data, num_seeds=1, out=tmp_path / "out")
    assert "the same command goes on from here" in capsys.readouterr().out


def test_the_command_prints_the_table_and_the_folder(finished, recipe, data, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    options = ("--seeds", 2, "--set", "model.voting.merge=false|true", "--out", finished[1])
    code, printed, _ = run("sweep", recipe, data, *options)
    assert code == 0
    assert "finished before" in printed
    assert "beside model.voting.merge=false" in printed


@pytest.mark.parametrize("name", ["config.yaml", "bundle.json"])
def test_nothing_is_put_into_a_run_or_a_bundle(recipe, data, tmp_path, counted, name):
    (tmp_path / name).write_text("")
    with pytest.raises(RunError, match="is itself a run or a bundle: give another --out"):
        sweep(recipe, data, out=tmp_path)
    assert ([path.name for path in tmp_path.iterdir()], counted) == ([name], [])
