import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from finevote.data.transforms import eval_transform, resize_image
from finevote.errors import ArgumentError
from finevote.explanation.vote_map import (
    area_of_votes,
    on_photograph,
    strongest_heads,
    view_in_photograph,
    vote_maps,
)
from finevote.types import Preprocessing
from tests.models import FAMILIES, tiny_model
from tests.seeing import light_seeker, patch_box, spot
from tests.test_keep_rate import CASES, deep_model


def preprocessing(image_size, resize):
    return Preprocessing(image_size, resize, (0.5, 0.5, 0.5), (0.2, 0.2, 0.2))


def seen(model, photograph, ways):
    resized = resize_image(photograph, ways.resize, "bilinear")
    with torch.inference_mode():
        return model(eval_transform(ways)(resized)[None], with_head_votes=True).votes


@pytest.mark.parametrize("rate", [1.0, 0.5])
@pytest.mark.parametrize("case", CASES)
def test_the_maps_are_the_tensors_of_the_forward_pass(case, rate):
    model = deep_model(model__voting__keep_rate=rate, **CASES[case])
    votes = model(torch.randn(2, 3, *model.backbone.image_size), with_head_votes=True).votes
    for image, maps in enumerate(vote_maps(votes)):
        assert maps.final.ravel().tolist() == votes.per_patch()[image].tolist()
        assert maps.ballots.reshape(4, -1).tolist() == votes.ballots[image].tolist()
        assert maps.enhanced.reshape(4, -1).tolist() == votes.enhanced[image].tolist()
        assert maps.head_votes.sum(1).tolist() == maps.ballots.tolist()
        assert maps.selected.tolist() == votes.selected[image].tolist()
        assert maps.has_second_vote


def test_layers_are_told_apart_by_the_budget():
    model = tiny_model()
    votes = model(torch.randn(3, 3, 32, 32), with_head_votes=True).votes
    all_maps = vote_maps(votes)
    assert sum(maps.key_picks for maps in all_maps).tolist() == votes.layer_picks.tolist()
    maps, start = all_maps[0], 0
    for layer, count in enumerate(votes.budget):
        expected = set(votes.selected[0, start : start + count].tolist())
        assert set(np.flatnonzero(maps.is_selected(layer)).tolist()) == expected
        start += count
    assert set(np.flatnonzero(maps.is_selected()).tolist()) == set(votes.selected[0].tolist())


def test_without_a_second_vote_selections_are_counted():
    votes = tiny_model(model__voting__refine=False)(torch.randn(1, 3, 32, 32), with_head_votes=True).votes
    (maps,) = vote_maps(votes)
    assert not maps.has_second_vote
    assert maps.final.ravel().tolist() == np.bincount(votes.selected[0].numpy(), minlength=16).tolist()
    assert maps.key_picks.tolist() == list(votes.budget)


def test_votes_that_nobody_asked_the_heads_for_are_refused():
    with pytest.raises(ArgumentError, match="call the model with with_head_votes=True"):
        vote_maps(tiny_model()(torch.randn(1, 3, 32, 32)).votes)


@pytest.mark.parametrize("size", [(300, 110), (90, 260), (64, 64)])
@pytest.mark.parametrize(
    ("image_size", "resize"), [((32, 32), (36, 36)), ((32, 64), (40, 64)), ((64, 32), (65, 47)), ((48, 48), (48, 48))]
)
@pytest.mark.parametrize("num_registers", [0, 4])
def test_a_bright_spot_is_voted_for_where_it_lies_in_the_photograph(size, image_size, resize, num_registers):
    model = light_seeker(num_registers=num_registers, data__image_size=list(image_size), data__resize=list(resize))
    assert model.backbone.num_prefix == 1 + num_registers
    ways = preprocessing(image_size, resize)
    view = view_in_photograph(ways)
    width, height = size
    rows, columns = model.backbone.grid
    for x, y in [(0.2, 0.3), (0.5, 0.5), (0.81, 0.7), (0.3, 0.85)]:
        (maps,) = vote_maps(seen(model, spot(width, height, x=x, y=y, radius_px=6), ways))
        drawn = on_photograph(maps.final, view=view, size=(height, width))
        top, left = np.unravel_index(np.nanargmax(np.nan_to_num(drawn, nan=-1.0)), drawn.shape)
        patch = patch_box(int(maps.final.argmax()), grid=maps.grid, view=view)
        assert patch.top <= (top + 0.5) / height <= patch.bottom
        assert patch.left <= (left + 0.5) / width <= patch.right
        assert abs((patch.top + patch.bottom) / 2 - y) <= (view.bottom - view.top) / rows
        assert abs((patch.left + patch.right) / 2 - x) <= (view.right - view.left) / columns
        assert (maps.ballots.reshape(maps.num_layers, -1).argmax(1) == maps.final.argmax()).all()


def test_the_view_is_what_the_centre_crop_leaves():
    for image_size, resize in [((32, 32), (37, 36)), ((32, 64), (33, 71)), ((48, 48), (48, 48))]:
        ways = preprocessing(image_size, resize)
        rows, columns = torch.meshgrid(torch.arange(resize[0]), torch.arange(resize[1]), indexing="ij")
        resized = torch.stack([rows, columns, rows]).to(torch.uint8)
        cut = eval_transform(ways)(resized) * 0.2 + 0.5
        top, left = round(float(cut[0, 0, 0] * 255)), round(float(cut[1, 0, 0] * 255))
        view = view_in_photograph(ways)
        assert (view.top * resize[0], view.left * resize[1]) == pytest.approx((top, left))
        assert (view.bottom * resize[0], view.right * resize[1]) == pytest.approx(
            (top + image_size[0], left + image_size[1])
        )


@given(
    grid=st.tuples(st.integers(1, 5), st.integers(1, 5)),
    size=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    margin=st.sampled_from([0.0, 0.1, 0.25]),
)
def test_each_pixel_has_the_value_of_the_patch_whose_box_holds_its_centre(grid, size, margin):
    view = view_in_photograph(preprocessing((80, 80), (round(80 * (1 + margin)), round(80 * (1 + 2 * margin)))))
    values = np.arange(grid[0] * grid[1], dtype=np.float64).reshape(grid)
    drawn = on_photograph(values, view=view, size=size)
    for row in range(size[0]):
        for column in range(size[1]):
            y, x = (row + 0.5) / size[0], (column + 0.5) / size[1]
            boxes = {patch: patch_box(patch, grid=grid, view=view) for patch in range(grid[0] * grid[1])}
            near = {patch for patch, box in boxes.items() if holds(box, x, y, slack=1e-9)}
            if any(holds(box, x, y, slack=-1e-9) for box in boxes.values()):
                assert {drawn[row, column]} == near
            else:  # outside, or on an edge, which belongs to either side
                assert np.isnan(drawn[row, column]) or drawn[row, column] in near


def holds(box, x, y, *, slack):
    return box.left - slack <= x <= box.right + slack and box.top - slack <= y <= box.bottom + slack


@pytest.mark.parametrize(
    ("votes", "share", "expected"),
    [
        ([[4, 0], [0, 0]], 0.5, 0.25),
        ([[1, 1], [1, 1]], 0.5, 0.5),
        ([[1, 1], [1, 1]], 0.51, 0.75),
        ([[3, 2], [1, 0]], 1, 0.75),
    ],
)
def test_the_area_of_votes_counts_the_fewest_patches_that_hold_them(votes, share, expected):
    assert area_of_votes(np.array(votes, np.float32), share=share) == expected


def test_no_votes_have_no_area():
    assert np.isnan(area_of_votes(np.zeros((2, 2), np.float32)))


def test_heads_are_ranked_by_the_final_votes_on_what_they_voted_for():
    votes = tiny_model()(torch.randn(1, 3, 32, 32), with_head_votes=True).votes
    (maps,) = vote_maps(votes)
    for layer in range(maps.num_layers):
        ranked = strongest_heads(maps, layer)
        assert sorted(head for head, _ in ranked) == [0, 1, 2]
        assert [share for _, share in ranked] == sorted((share for _, share in ranked), reverse=True)
        for head, share in ranked:
            held = sum(float(maps.final.ravel()[p]) for p in range(16) if maps.head_votes[layer, head].ravel()[p])
            assert share == pytest.approx(held / float(maps.final.sum()))


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_gives_maps_on_its_grid(family):
    model = tiny_model(**FAMILIES[family], data__image_size=[32, 48], data__resize=[36, 50])
    (maps,) = vote_maps(model(torch.randn(1, 3, 32, 48), with_head_votes=True).votes)
    assert maps.grid == model.backbone.grid == (4, 6)
    assert maps.final.sum() == 3 * 4
