import numpy as np
import pytest
import torch
from torch import nn

from finevote.errors import ArgumentError
from finevote.evaluation.predict import predict
from finevote.evaluation.rows import merge
from finevote.types import Batch, ModelOutput, Record, Votes

RECORDS = [Record(image_id=f"image-{i}", label=i % 3) for i in range(7)]


class MeanColour(nn.Module):
    """A linear classifier on the mean colour, with dropout; casts votes for patch 1 of 6 where asked to."""

    def __init__(self, *, votes: bool):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.dropout = nn.Dropout(0.5)
        self.votes = votes

    def forward(self, images):
        embedding = images.mean((2, 3))  # (B, 3)
        logits = self.linear(self.dropout(embedding))
        return ModelOutput(logits, None, embedding, self.cast(len(images)) if self.votes else None)

    def cast(self, num_images):
        ballots = torch.zeros(num_images, 1, 6)
        selected = torch.tensor([[1, 4]]).expand(num_images, -1)
        picked = torch.tensor([[3.0, 0.0]]).expand(num_images, -1)
        return Votes((2, 3), (2,), ballots, ballots, selected, picked, selected[:, :1], torch.tensor([num_images]))


def batches(indices, size=3):
    images = torch.rand(7, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([record.label for record in RECORDS])
    for chunk in torch.tensor(indices).split(size):
        yield Batch(images[chunk], labels[chunk], chunk)


def run(model, indices, **options):
    return predict(model, batches(indices), records=RECORDS, device="cpu", **options)


def test_rows_follow_the_loaders_indices():
    got = run(MeanColour(votes=True), [5, 0, 6, 2])
    assert got.image_ids == ("image-5", "image-0", "image-6", "image-2")
    np.testing.assert_array_equal(got.labels, [2, 0, 0, 2])
    assert got.logits.shape == (4, 4)
    assert got.logits.dtype == np.float32
    assert got.embeddings.shape == (4, 3)


def test_final_votes_are_laid_on_the_patches():
    got = run(MeanColour(votes=True), [0, 1])
    assert got.grid == (2, 3)
    np.testing.assert_array_equal(got.final_votes, [[0, 3, 0, 0, 0, 0]] * 2)


def test_the_patch_with_the_most_final_votes_is_kept():
    got = run(MeanColour(votes=True), [0, 1])
    np.testing.assert_array_equal(got.most_voted, [1, 1])
    assert got.most_voted.dtype == np.int64
    assert run(MeanColour(votes=False), [0, 1]).most_voted is None


def test_a_model_without_votes_gives_none():
    got = run(MeanColour(votes=False), [0, 1])
    assert got.final_votes is None
    assert got.grid is None


def test_the_model_is_evaluated_without_dropout_and_put_back():
    model = MeanColour(votes=False).train()
    model.linear.eval()
    first, second = run(model, [0, 1]), run(model, [0, 1])
    np.testing.assert_array_equal(first.logits, second.logits)
    assert (model.training, model.dropout.training, model.linear.training) == (True, True, False)


def test_two_processes_merged_give_what_one_gives():
    model = MeanColour(votes=True)
    even, odd = [0, 2, 4, 6], [1, 3, 5]
    merged = merge([(odd, run(model, odd)), (even, run(model, even))])
    whole = run(model, list(range(7)))
    assert merged.image_ids == whole.image_ids
    np.testing.assert_array_equal(merged.labels, whole.labels)
    np.testing.assert_allclose(merged.logits, whole.logits, atol=1e-6)
    np.testing.assert_array_equal(merged.final_votes, whole.final_votes)


def test_a_process_without_rows_adds_nothing_to_the_merge():
    model = MeanColour(votes=True)
    merged = merge([([0, 1], run(model, [0, 1])), ([], predict(model, [], records=RECORDS, device="cpu"))])
    assert merged.image_ids == ("image-0", "image-1")
    assert merged.grid == (2, 3)


@pytest.mark.parametrize(("first", "second"), [([0, 1], [1, 2]), ([0, 1], [3])])
def test_merge_refuses_images_counted_twice_or_not_at_all(first, second):
    model = MeanColour(votes=False)
    with pytest.raises(ArgumentError, match="each image of the split must come exactly once"):
        merge([(first, run(model, first)), (second, run(model, second))])


def test_progress_and_outputs_are_handed_on_batch_by_batch():
    done, outputs = [], []
    run(MeanColour(votes=True), range(7), advance=done.append, on_output=lambda *pair: outputs.append(pair))
    assert done == [3, 3, 1]
    assert [len(output.logits) for _, output in outputs] == [3, 3, 1]


def test_low_precision_under_autocast_is_saved_as_float32():
    got = run(MeanColour(votes=True), [0, 1], autocast=torch.autocast("cpu", torch.bfloat16))
    assert got.logits.dtype == np.float32
    assert got.embeddings.dtype == np.float32
