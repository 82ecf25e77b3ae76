import torch

from finevote.noise import Noise, RowDropout


def test_rows_meet_the_same_mask_however_the_batch_is_cut():
    dropout = RowDropout(0.5, stream=3).train()
    features = torch.ones(6, 4)
    whole = dropout(features, Noise(1, 0, 6))
    parts = [dropout(features[i : i + 2], Noise(1, i, 6)) for i in (0, 2, 4)]
    assert torch.equal(torch.cat(parts), whole)


def test_streams_seeds_and_rows_differ():
    noise = Noise(1, 0, 4)
    assert not torch.equal(noise.uniform(0, 4, 8), noise.uniform(1, 4, 8))
    assert not torch.equal(noise.uniform(0, 4, 8), Noise(2, 0, 4).uniform(0, 4, 8))
    assert not torch.equal(noise.uniform(0, 4, 8)[0], noise.uniform(0, 4, 8)[1])


def test_dropout_keeps_the_mean_and_is_off_in_evaluation():
    dropout = RowDropout(0.25, stream=0)
    features = torch.ones(500, 200)
    assert abs(dropout.train()(features, Noise(0, 0, 500)).mean() - 1) < 0.01
    assert torch.equal(dropout.eval()(features, Noise(0, 0, 500)), features)


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Noise(1, 0, 4).uniform(0, 4, 4)
    assert torch.equal(before, torch.get_rng_state())
