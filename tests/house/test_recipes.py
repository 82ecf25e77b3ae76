from dataclasses import replace

import pytest
import torch

from finevote.build import build_loss, build_model, build_preprocessing, build_train_loader
from finevote.cli import DEFAULT_RECIPE
from finevote.config import dump_config, list_recipes, load_config
from finevote.data.synthetic import synthetic_source
from finevote.training.optim import build_optimizer, group_parameters

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


def shrink(name):
    """Return a recipe with a narrow random backbone, small images and few votes, and all else as it is."""
    config = load_config(name)
    sizes = {"image_size": 64, "resize": 72, "num_workers": 0}
    narrow = {"embed_dim": 24, "num_heads": 3}
    votes = {"num_votes_per_head": 4, "num_selected": 22, "num_key_tokens": 4}
    voting = config.model.voting.model_copy(update=votes)
    backbone_args = config.model.backbone_args | narrow
    return config.model_copy(
        update={
            "data": config.data.model_copy(update=sizes),
            "model": config.model.model_copy(
                update={"weights": "none", "backbone_args": backbone_args, "voting": voting}
            ),
        }
    )


@pytest.fixture(scope="module")
def birds():
    """Drawn images under sixteen made-up names, six of each: enough classes for every recipe's batches."""
    source = synthetic_source(splits=("train",), image_size=48, images_per_class={"train": 8})
    records = [replace(record, label=number // 6) for number, record in enumerate(source.splits["train"])]
    return replace(source, class_names=tuple("abcdefghijklmnop"), splits={"train": tuple(records)})


@pytest.mark.parametrize("name", list_recipes())
def test_a_recipe_makes_a_step_with_a_small_model(name, birds):
    config = shrink(name)
    model = build_model(config, num_classes=len(birds.class_names)).train()
    batch = next(iter(build_train_loader(config, birds, build_preprocessing(config.data, model.backbone))))
    assert len(batch.labels) == config.training.batch_size

    optim = config.optim
    groups = group_parameters(
        model, lr=optim.lr, new_lr=optim.new_lr, layer_decay=optim.layer_decay, weight_decay=optim.weight_decay
    )
    optimizer = build_optimizer(groups, name=optim.name, momentum=optim.momentum, betas=optim.betas)
    trained = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert len(trained) == len(list(model.parameters()))

    output, loss = model(batch.images), build_loss(config)
    objective = loss.combine(loss.classification(output, batch.labels)) / len(batch.labels)
    objective = objective + config.loss.triplet_weight * loss.triplet(output.embedding, batch.labels)
    objective.backward()
    optimizer.step()
    assert objective.isfinite()
    assert all(parameter.isfinite().all() for parameter in model.parameters())
    assert sum(model.budget) == 22
    model.update_budget(output.votes.layer_picks)
    with torch.no_grad():
        assert model.eval()(batch.images[:2]).logits.shape == (2, len(birds.class_names))
