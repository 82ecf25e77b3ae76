import pytest

from finevote.cli import DEFAULT_RECIPE
from finevote.config import dump_config, list_recipes, load_config

SHIPPED = {
    "cub200_dinov2_b14",
    "demo",
    "dogs_dinov2_b14",
    "flowers102_dinov2_b14",
    "flowers102_dinov2_s14",
    "flowers102_scratch_tiny",
    "flowers102_vit_b16",
}


def test_the_promised_recipes_are_there():
    assert set(list_recipes()) >= SHIPPED


def test_the_default_recipe_is_one_of_them():
    assert DEFAULT_RECIPE in list_recipes()


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_parses_and_says_its_name_source_and_hardware(name):
    config = load_config(name)
    assert config.name == name
    assert config.source
    assert config.hardware


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_survives_being_written_and_read(name, tmp_path):
    path = tmp_path / "copy.yaml"
    path.write_text(dump_config(load_config(name)))
    assert load_config(path) == load_config(name)
