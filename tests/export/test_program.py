"""Programs answer as the model does, for any number of images, whatever the backbone and the head."""

import numpy as np
import onnxruntime
import pytest
import torch

from finevote.errors import ArgumentError
from finevote.export.onnx_graph import check_opset, to_onnx
from finevote.export.program import Forward, export_program
from tests.models import tiny_model
from tests.test_model import VARIANTS

QUICK = ("full", "plain")
SLOW = (
    "merged",
    "learnable",
    "no refinement",
    "no key block",
    "registers",
    "rectangle",
    "fewer patches",
    "dinov3, fewer patches, merged",
    "siglip2",
    "learnt rotations",
)


def outputs_of(model, images):
    with torch.inference_mode():
        return [output.numpy() for output in Forward(model)(images)]


@pytest.mark.parametrize("variant", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)])
def test_a_program_gives_what_the_model_gives(variant):
    model = tiny_model(**VARIANTS[variant])
    module = export_program(model, image_size=model.backbone.image_size).module()
    for num_images in (1, 7):
        images = torch.randn(num_images, 3, *model.backbone.image_size)
        for ours, exported in zip(outputs_of(model, images), module(images), strict=True):
            torch.testing.assert_close(exported, torch.from_numpy(ours), rtol=0, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
    "variant", ["merged", "plain", *(pytest.param(name, marks=pytest.mark.long) for name in ("dinov3", *SLOW[1:]))]
)
def test_an_onnx_graph_gives_what_the_model_gives(variant):
    model = tiny_model(**VARIANTS[variant])
    program = export_program(model, image_size=model.backbone.image_size)
    graph = to_onnx(program, votes=model.head.votes)
    session = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    assert [value.name for value in session.get_outputs()] == ["logits", "embedding", "votes"][: 2 + model.head.votes]
    assert session.get_inputs()[0].shape == ["batch", 3, *model.backbone.image_size]
    for num_images in (1, 3):
        images = torch.randn(num_images, 3, *model.backbone.image_size)
        for ours, exported in zip(
            outputs_of(model, images), session.run(None, {"images": images.numpy()}), strict=True
        ):
            np.testing.assert_allclose(exported, ours, atol=1e-5)


def test_the_votes_of_a_program_are_those_of_the_forward_pass():
    model = tiny_model()
    images = torch.randn(2, 3, 32, 32)
    votes = export_program(model, image_size=(32, 32)).module()(images)[2]
    with torch.inference_mode():
        assert torch.equal(votes, model(images).votes.per_patch())
    assert votes.sum() > 0


def test_a_model_is_left_as_it_was():
    model = tiny_model().train()
    export_program(model, image_size=(32, 32))
    assert model.training


def test_an_opset_that_cannot_be_written_is_refused():
    with pytest.raises(ArgumentError, match="opset 11 cannot be written: allowed are 18 to 23"):
        check_opset(11)
