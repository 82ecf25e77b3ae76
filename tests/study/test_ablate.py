import pytest
import yaml

from finevote.config import list_recipes, load_config
from finevote.errors import ArgumentError
from finevote.study.ablate import AS_RECIPE, FULL, LEFT_OUT, PLAIN, ablate, choose, switch_on, variants_of
from finevote.study.contestants import flatten
from tests.training.helpers import make_photographs, tiny_values


def config_of(recipe, variant, settings=()):
    found = {row.name: row for row in variants_of(recipe, settings)}[variant]
    return flatten(load_config(recipe, found.settings).model_dump(mode="json"))


def changes(recipe, variant):
    full, other = config_of(recipe, FULL), config_of(recipe, variant)
    return {name: other[name] for name in full if full[name] != other[name]}


@pytest.mark.parametrize("recipe", list_recipes())
def test_each_variant_changes_what_its_name_says_and_nothing_else(recipe):
    assert changes(recipe, "no multi-scale") == {"model.voting.dilations": [1]}
    assert changes(recipe, "no voting (plain)") == {"model.voting.enabled": False, "loss.triplet_weight": 0}
    assert changes(recipe, "no triplet") == {"loss.triplet_weight": 0}
    assert changes(recipe, "no merging") == {"model.voting.merge": False}
    assert changes(recipe, "no dynamic selection") == {"model.voting.dynamic_selection": "off"}
    assert changes(recipe, "random-init refinement") == {"model.voting.block_init": "random"}


@pytest.mark.parametrize("recipe", list_recipes())
def test_full_has_every_mechanism(recipe):
    variants = {row.name: row for row in variants_of(recipe)}
    assert switch_on(load_config(recipe, variants[FULL].settings)) == ()


def test_a_recipe_that_is_none_of_the_variants_stands_beside_them():
    assert [row.name for row in variants_of("demo")] == [FULL, *LEFT_OUT]  # the demo is "random-init refinement"
    assert config_of("demo", "random-init refinement") == flatten(load_config("demo").model_dump(mode="json"))
    other = ("model.voting.dynamic_selection=off",)
    assert variants_of("demo", other)[-1] == (AS_RECIPE, other)


def test_a_mechanism_that_a_setting_leaves_off_is_switched_on_in_full():
    assert config_of("demo", FULL, ("loss.triplet_weight=0",))["loss.triplet_weight"] == 0.1
    assert config_of("demo", FULL, PLAIN)["model.voting.enabled"] is True


def test_some_variants_can_be_chosen_and_full_is_always_there():
    assert [row.name for row in choose(variants_of("demo"), ["no triplet"])] == [FULL, "no triplet"]


def test_an_unknown_variant_is_refused_with_the_nearest():
    with pytest.raises(ArgumentError, match="no variant is called 'no triplets'; did you mean 'no triplet'"):
        choose(variants_of("demo"), ["no triplets"])


def test_an_ablation_is_one_table_of_paired_tests(tmp_path, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    recipe, out = tmp_path / "tiny.yaml", tmp_path / "out"
    recipe.write_text(yaml.safe_dump(tiny_values(epochs=1)))
    data = make_photographs(tmp_path / "colours")
    options = ("--seeds", 1, "--only", "no voting (plain)", "--only", "no triplet", "--out", out)
    code, printed, _ = run("ablate", recipe, data, *options)
    assert code == 0
    assert "beside full" in printed
    assert (out / "no-voting-plain" / "seed-0" / "bundle").is_dir()
    table = (out / "ablation.md").read_text()
    assert [line.split(" | ")[0] for line in table.splitlines() if line.startswith("| ")] == [
        "| variant",
        "| full",
        "| no voting (plain)",
        "| no triplet",
    ]
    assert "McNemar, exact; p-values adjusted by Holm" in table
    assert {path.suffix for path in out.glob("ablation.*")} == {".md", ".csv", ".json", ".png"}


@pytest.mark.slow
def test_every_variant_trains_and_a_stopped_ablation_goes_on(tmp_path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(yaml.safe_dump(tiny_values(epochs=1)))
    data = make_photographs(tmp_path / "colours")
    ablate(str(recipe), data, num_seeds=1, only=["no merging"], out=tmp_path / "out")
    found, _ = ablate(str(recipe), data, num_seeds=1, out=tmp_path / "out")
    assert [row.name for row in found.standings] == [FULL, *LEFT_OUT]
