import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finevote.config import Config, config_from_values, dump_config, list_recipes, load_config
from finevote.errors import ConfigError

POSITIVE = st.floats(1e-12, 1e12)
SIDES = st.integers(1, 2048)


def set_on_demo(*overrides):
    return load_config("demo", overrides)


class TestCombinations:
    @pytest.mark.parametrize("mixing", ["data.mixup=0.2", "data.cutmix=1.0"])
    def test_mixing_images_with_the_triplet_is_refused_and_says_why(self, mixing):
        with pytest.raises(ConfigError, match=r"no single label to mine triplets by: set loss\.triplet_weight=0"):
            set_on_demo(mixing)
        assert set_on_demo(mixing, "loss.triplet_weight=0").loss.triplet_weight == 0

    @pytest.mark.parametrize(("batch_size", "images_per_class"), [(10, 4), (4, 4), (2, 4)])
    def test_a_batch_that_cannot_hold_p_times_k_is_refused(self, batch_size, images_per_class):
        sizes = (f"training.batch_size={batch_size}", f"training.images_per_class={images_per_class}")
        with pytest.raises(ConfigError, match=rf"batch_size={batch_size} cannot hold P >= 2.*use a multiple of 4"):
            set_on_demo(*sizes)
        assert set_on_demo(*sizes, "loss.triplet_weight=0").training.batch_size == batch_size

    def test_more_head_only_epochs_than_epochs_are_refused(self):
        with pytest.raises(ConfigError, match=r"training\.head_only_epochs=4 exceeds epochs=3"):
            set_on_demo("training.epochs=3", "training.head_only_epochs=4")

    def test_more_key_tokens_than_selected_ones_are_refused(self):
        voting = ("model.voting.num_selected=10", "model.voting.num_key_tokens=11")
        with pytest.raises(ConfigError, match=r"model\.voting\.num_key_tokens=11 exceeds num_selected=10"):
            set_on_demo(*voting)

    def test_no_dilations_are_refused(self):
        with pytest.raises(ConfigError, match="dilations"):
            set_on_demo("model.voting.dilations=[]")

    def test_a_crop_scale_that_falls_is_refused(self):
        with pytest.raises(ConfigError, match="crop_scale"):
            set_on_demo("data.crop_scale=[0.8, 0.4]")

    def test_all_problems_are_told_at_once(self):
        with pytest.raises(ConfigError, match=r"no single label.*head_only_epochs=99"):
            set_on_demo("data.mixup=0.2", "training.head_only_epochs=99")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainig.epochs=3", "unknown setting 'trainig'; did you mean 'training'?"),
        ("training.epoch=3", "unknown setting 'training.epoch'; did you mean 'training.epochs'?"),
        (
            "model.voting.dilation=[1]",
            "unknown setting 'model.voting.dilation'; did you mean 'model.voting.dilations'?",
        ),
        ("optim.zzz=1", "unknown setting 'optim.zzz'; allowed: betas, clip_norm,"),
        ("training.epoch=3", "--set training.epoch=3: unknown setting"),
        ("optim.lr=.inf", "optim.lr: Input should be a finite number"),
        ("model.drop_path=.nan", "model.drop_path: Input should be a finite number"),
        ("training.seed=-1", "training.seed: Input should be greater than or equal to 0"),
        ("training.seed=4294967296", "training.seed: Input should be less than or equal to 4294967295"),
        ("data.image_size=4097", "Input should be less than or equal to 4096"),
        ("data.resize=[32, 5000]", "Input should be less than or equal to 4096"),
        ("optim.warmup_epochs=99.5", "optim.warmup_epochs=99.5 exceeds epochs="),
        ("training.epochs", "--set 'training.epochs' must look like section.field=value, e.g. training.epochs=10"),
        ("=3", "--set '=3' must look like section.field=value"),
        ("data.image_size=[32", "--set 'data.image_size=[32': '[32' is not a YAML value"),
        ("training.epochs.more=3", "--set 'training.epochs.more=3': 'epochs' is a value, not a section"),
        ("training=3", "training: Input should be a valid dictionary"),
        ("training.epochs=many", "training.epochs: Input should be a valid integer"),
        ("training.epochs=many", "but got 'many'"),
        ("training.epochs=0", "training.epochs: Input should be greater than or equal to 1, but got 0"),
        ("training.precision=fp8", "training.precision: Input should be 'fp32', 'bf16' or 'fp16', but got 'fp8'"),
    ],
)
def test_a_wrong_set_is_told_with_what_is_allowed(override, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        set_on_demo(override)


def test_a_set_may_name_what_the_recipe_leaves_out():
    assert set_on_demo("optim.layer_decay=0.5").optim.layer_decay == 0.5


def test_the_last_of_two_sets_counts():
    assert set_on_demo("training.epochs=3", "training.epochs=4").training.epochs == 4


class TestBlame:
    def test_a_recipe_is_blamed_for_its_own_mistakes_and_a_set_for_its_own(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("data: {flipp: 1}")
        with pytest.raises(ConfigError, match=r"mine\.yaml: unknown setting 'data\.flipp'.*; --set optim\.lr=x: optim"):
            load_config(path, ["optim.lr=x", "data.flip=0"])

    def test_settings_that_do_not_go_together_are_told_of_the_recipe(self):
        with pytest.raises(ConfigError, match=r"^demo: training\.head_only_epochs=99"):
            set_on_demo("training.head_only_epochs=99", "data.flip=0")


class TestRecipeFiles:
    def test_an_unknown_recipe_is_told_with_the_nearest(self):
        with pytest.raises(ConfigError, match=r"no recipe or file is called 'dem0'; did you mean 'demo'\?"):
            load_config("dem0")

    def test_an_unknown_recipe_near_none_is_told_with_all(self):
        with pytest.raises(ConfigError, match=f"allowed: {', '.join(list_recipes())}"):
            load_config("zzzzzz")

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("data: [32", r"mine\.yaml is not valid YAML: "),
            ("- data", r"mine\.yaml must hold `section: settings`, but holds a list"),
            ("demo", r"mine\.yaml must hold `section: settings`, but holds a str"),
            ("trainig: {epochs: 3}", r"mine\.yaml: unknown setting 'trainig'; did you mean 'training'\?"),
        ],
    )
    def test_a_file_that_is_no_recipe_is_told(self, tmp_path, content, message):
        path = tmp_path / "mine.yaml"
        path.write_text(content)
        with pytest.raises(ConfigError, match=message) as caught:
            load_config(path)
        assert len(str(caught.value).splitlines()) == 1

    def test_a_file_that_is_not_text_is_told(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(ConfigError, match=r"cannot read the recipe .*mine\.yaml: "):
            load_config(path)

    def test_a_missing_file_is_told(self, tmp_path):
        with pytest.raises(ConfigError, match=r"cannot read the recipe .*gone\.yaml: .*No such file"):
            load_config(tmp_path / "gone.yaml")

    def test_an_empty_file_is_the_defaults(self, tmp_path):
        path = tmp_path / "mine.yaml"
        path.write_text("")
        assert load_config(path) == Config()


@st.composite
def configs(draw):
    """Settings of every kind: texts, pairs, numbers near the ends of float, lists, nulls, free mappings."""
    images_per_class = draw(st.integers(2, 8))
    voting = {
        "dilations": draw(st.lists(st.integers(1, 9), min_size=1, max_size=4)),
        "initial_rates": draw(st.none() | st.lists(POSITIVE, min_size=1, max_size=4)),
    }
    backbone_args = draw(st.dictionaries(st.text(), st.none() | st.booleans() | st.integers() | st.text(), max_size=3))
    values = {
        "name": draw(st.text()),
        "data": {
            "image_size": draw(SIDES | st.tuples(SIDES, SIDES)),
            "resize": draw(st.none() | SIDES | st.tuples(SIDES, SIDES)),
        },
        "model": {"weights": draw(st.text()), "backbone_args": backbone_args, "voting": voting},
        "loss": {"triplet_margin": draw(POSITIVE | st.just("soft"))},
        "optim": {"lr": draw(POSITIVE), "clip_norm": draw(st.none() | POSITIVE)},
        "training": {
            "batch_size": images_per_class * draw(st.integers(2, 99)),
            "images_per_class": images_per_class,
            "seed": draw(st.integers(0, 2**32 - 1)),
        },
    }
    return config_from_values(values, source="test")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return tmp_path_factory.mktemp("recipe") / "copy.yaml"


@settings(max_examples=50)
@given(config=configs())
def test_settings_written_and_read_are_equal(path, config):
    path.write_text(dump_config(config), encoding="utf-8")
    assert load_config(path) == config


def test_a_bare_off_is_off_though_yaml_reads_it_as_false():
    assert load_config("demo", ["model.voting.dynamic_selection=off"]).model.voting.dynamic_selection == "off"
