import pytest
import torch

from finevote.similarity.features import read_layers
from finevote.types import Batch
from tests.models import FAMILIES, tiny_model


def batches(num_images=5, size=2):
    images = torch.randn(num_images, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    numbers = torch.arange(num_images)
    return [Batch(images[rows], numbers[rows], numbers[rows]) for rows in numbers.split(size)]


def outputs(model, **options):
    with torch.inference_mode():
        return [model(batch.images, **options) for batch in batches()]


def read(model):
    return read_layers(model, batches(), device="cpu")


def test_the_last_trunk_layer_is_the_embedding_that_the_model_gives():
    model = tiny_model()
    found = read(model)
    assert found.names == ("layer 1", "layer 2", "refinement")
    embeddings = torch.cat([output.embedding for output in outputs(model)])
    torch.testing.assert_close(torch.from_numpy(found.cls[1]), embeddings, rtol=1e-4, atol=1e-5)


def test_the_refinement_stage_is_what_the_complement_logits_are_made_from():
    model = tiny_model()
    cls = torch.from_numpy(read(model).cls[-1])
    with torch.inference_mode():
        logits = model.head.classifier(model.head.refine.norm(cls))
    torch.testing.assert_close(
        logits, torch.cat([output.complement for output in outputs(model)]), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("family", ["dinov2 with registers", "dinov3", "clip"])
def test_patches_are_averaged_without_prefix_tokens(family):
    model = tiny_model(**FAMILIES[family])
    first = model.backbone.layers[0]
    with torch.inference_mode():
        tokens = torch.cat(
            [first(model.backbone.embed(b.images), num_prefix=model.backbone.num_prefix).tokens for b in batches()]
        )
    expected = tokens[:, -model.backbone.num_patches :].mean(1)
    torch.testing.assert_close(torch.from_numpy(read(model).patches[0]), expected, rtol=1e-4, atol=1e-5)


def test_a_plain_backbone_has_layers_and_no_votes():
    found = read(tiny_model(model__voting__enabled=False))
    assert found.names == ("layer 1", "layer 2", "layer 3")
    assert found.votes is None
    assert [features.shape for features in found.cls + found.patches] == [(5, 24)] * 6


def test_without_refinement_every_selected_token_is_a_key_token():
    model = tiny_model(model__voting__refine=False)
    found = read(model)
    assert found.names == ("layer 1", "layer 2")
    assert not found.votes.has_second_vote
    assert found.votes.key_shares.tolist() == [[count / 10 for count in found.votes.budget]] * 5


@pytest.mark.parametrize("keep_rate", [1.0, 0.5])
def test_votes_are_counted_as_a_loop_over_images_layers_and_heads_counts_them(keep_rate):
    model = tiny_model(model__voting__keep_layers=[1], model__voting__keep_rate=keep_rate)
    found = read(model).votes
    image = 0
    for output in outputs(model, with_head_votes=True):
        votes = output.votes
        for row in range(len(output.logits)):
            keys = {int(votes.selected[row, place]) for place in votes.key_positions[row]}
            assert found.key_areas[image] == pytest.approx(len(keys) / 16)
            for layer in range(2):
                from_here = sum(
                    sum(votes.budget[:layer]) <= place < sum(votes.budget[: layer + 1])
                    for place in votes.key_positions[row].tolist()
                )
                assert found.key_shares[image, layer] == pytest.approx(from_here / 4)
                for head in range(3):
                    voted = votes.head_votes[row, layer, head].nonzero().flatten().tolist()
                    assert len(voted) == 4
                    share = sum(patch in keys for patch in voted) / 4
                    assert found.head_shares[image, layer, head] == pytest.approx(share)
            image += 1


def test_the_model_is_left_as_it_was():
    model = tiny_model().train()
    read(model)
    assert model.training
    assert not model.head.refine.norm._forward_pre_hooks
