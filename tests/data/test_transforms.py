import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as F

from finevote.data.images import read_image
from finevote.data.transforms import eval_transform, mix_batch, read_resized, resize_image, train_transform
from finevote.errors import ArgumentError
from finevote.types import Batch, Preprocessing

PLAIN = {
    "crop": "center",
    "crop_scale": (0.35, 1.0),
    "flip": 0.0,
    "color_jitter": 0.0,
    "randaugment": 0,
    "randaugment_magnitude": 9,
    "random_erasing": 0.0,
}
EVERYTHING = {
    **PLAIN,
    "crop": "random_resized",
    "flip": 0.5,
    "color_jitter": 0.4,
    "randaugment": 2,
    "random_erasing": 0.9,
}


@pytest.fixture
def preprocessing():
    return Preprocessing(image_size=(20, 24), resize=(30, 28), mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.5))


@pytest.fixture
def image():
    return torch.randint(0, 256, (3, 30, 28), dtype=torch.uint8)


def test_the_resize_is_rows_by_columns_and_keeps_channels():
    colours = Image.new("RGB", (50, 40), (10, 20, 30))
    resized = resize_image(colours, (30, 28), "bicubic")
    assert resized.shape == (3, 30, 28)
    assert resized.dtype == torch.uint8
    assert resized.is_contiguous()
    assert [int(channel.unique()) for channel in resized] == [10, 20, 30]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_the_resize_antialiases(interpolation):
    stripes = Image.fromarray(np.tile(np.array([[[0], [255]]], np.uint8), (64, 32, 3)))
    resized = resize_image(stripes, (8, 8), interpolation).float()
    assert (resized[:, :, 2:-2] - 127.5).abs().max() < 8


def test_an_unknown_interpolation_is_refused():
    with pytest.raises(ArgumentError, match="unknown interpolation 'cubic'; did you mean 'bicubic'"):
        resize_image(Image.new("RGB", (9, 9)), (8, 8), "cubic")


def test_evaluation_cuts_the_centre_and_normalises(preprocessing, image):
    made = eval_transform(preprocessing)(image)
    cut = image[:, 5:25, 2:26].double() / 255
    expected = F.normalize(cut, preprocessing.mean, preprocessing.std)
    assert made.dtype == torch.float32
    assert torch.allclose(made.double(), expected, atol=1e-6)


def test_training_with_everything_off_is_evaluation(preprocessing, image):
    assert torch.equal(train_transform(preprocessing, **PLAIN)(image), eval_transform(preprocessing)(image))


@pytest.mark.parametrize("crop", ["random", "random_resized", "center"])
def test_every_crop_gives_the_image_size(preprocessing, image, crop):
    made = train_transform(preprocessing, **{**PLAIN, "crop": crop})(image)
    assert made.shape == (3, 20, 24)
    assert made.dtype == torch.float32


def test_a_random_crop_is_a_window_of_the_image(preprocessing, image):
    transform = train_transform(preprocessing, **{**PLAIN, "crop": "random"})
    whole = eval_transform(Preprocessing((30, 28), (30, 28), preprocessing.mean, preprocessing.std))(image)
    windows = whole.unfold(1, 20, 1).unfold(2, 24, 1)  # (3, 11, 5, 20, 24)
    found = [(windows == transform(image)[:, None, None]).all(dim=(0, 3, 4)).nonzero().tolist() for _ in range(20)]
    assert all(len(place) == 1 for place in found)
    assert len({tuple(place[0]) for place in found}) > 5


def test_a_certain_flip_mirrors_columns(preprocessing, image):
    flipped = train_transform(preprocessing, **{**PLAIN, "flip": 1.0})(image)
    assert torch.equal(flipped, eval_transform(preprocessing)(image).flip(2))


@pytest.mark.parametrize("change", [{"color_jitter": 0.4}, {"randaugment": 2}, {"random_erasing": 1.0}])
def test_every_augmentation_changes_the_image_and_follows_the_generator(preprocessing, image, change):
    transform = train_transform(preprocessing, **{**PLAIN, **change})
    made = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        made.append(transform(image))
    assert torch.equal(made[0], made[1])
    assert not torch.equal(made[0], made[2])
    assert not torch.equal(made[0], eval_transform(preprocessing)(image))


def test_augmentation_does_not_write_to_its_input(preprocessing, image):
    before = image.clone()
    for _ in range(20):
        train_transform(preprocessing, **EVERYTHING)(image)
    eval_transform(preprocessing)(image)
    assert torch.equal(image, before)


def test_erased_pixels_have_the_mean_colour(preprocessing, image):
    made = train_transform(preprocessing, **{**PLAIN, "random_erasing": 1.0})(image)
    assert ((made == 0).all(dim=0)).sum() >= 0.02 * 20 * 24 * 0.5


def test_a_resize_smaller_than_the_crop_is_refused():
    with pytest.raises(ArgumentError, match=r"resize=\(10, 30\) is smaller than image_size=\(20, 24\): enlarge"):
        eval_transform(Preprocessing((20, 24), (10, 30), (0.5,) * 3, (0.5,) * 3))


def test_an_unknown_crop_is_refused(preprocessing):
    with pytest.raises(ArgumentError, match="unknown crop 'centre'; did you mean 'center'"):
        train_transform(preprocessing, **{**PLAIN, "crop": "centre"})


def test_transforms_can_be_sent_to_a_fresh_process(preprocessing, image):
    transform = train_transform(preprocessing, **EVERYTHING)
    copied = pickle.loads(pickle.dumps(transform))
    torch.manual_seed(1)
    made = transform(image)
    torch.manual_seed(1)
    assert torch.equal(made, copied(image))


@pytest.fixture
def batch():
    return Batch(torch.rand(6, 3, 8, 8), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6))


def test_mixup_blends_images_and_labels_alike(batch):
    mixed = mix_batch(batch, num_classes=4, mixup=0.8, cutmix=0.0, seed=1)
    share = mixed.targets[1, 1]
    assert torch.allclose(mixed.images[1], share * batch.images[1] + (1 - share) * batch.images[0], atol=1e-6)
    assert torch.equal(mixed.labels, batch.labels)
    assert torch.equal(mixed.indices, batch.indices)


def test_cutmix_pastes_a_box_as_large_as_the_label_says(batch):
    mixed = mix_batch(batch, num_classes=4, mixup=0.0, cutmix=1.0, seed=3)
    pasted = (mixed.images[2] == batch.images[1]).all(dim=0)
    kept = (mixed.images[2] == batch.images[2]).all(dim=0)
    assert (pasted ^ kept).all()
    assert mixed.targets[2, 1].item() == pytest.approx(pasted.float().mean().item())


@pytest.mark.parametrize("seed", range(5))
def test_soft_labels_sum_to_one_and_follow_the_seed_only(batch, seed):
    torch.manual_seed(0)
    first = mix_batch(batch, num_classes=4, mixup=0.4, cutmix=1.0, seed=seed)
    untouched = torch.rand(1)
    torch.manual_seed(0)
    assert torch.equal(untouched, torch.rand(1))
    second = mix_batch(batch, num_classes=4, mixup=0.4, cutmix=1.0, seed=seed)
    assert torch.allclose(first.targets.sum(1), torch.ones(6))
    assert torch.equal(first.images, second.images)


def test_without_mixing_the_batch_is_returned_as_it_came(batch):
    assert mix_batch(batch, num_classes=4, mixup=0.0, cutmix=0.0, seed=0) is batch


@pytest.fixture
def photograph(tmp_path):
    """A JPEG of 640 x 480 px: waves of many lengths."""
    rows, columns = np.mgrid[0:480, 0:640]
    waves = [np.sin(rows / 12 + columns / 25), np.sin(rows / 17 - columns / 20), np.sin(rows * columns / 40000)]
    path = tmp_path / "a.jpg"
    Image.fromarray((127.5 + 100 * np.stack(waves, axis=-1)).astype(np.uint8)).save(path, quality=92)
    return path


def levels_apart(one, other):
    return (one.int() - other.int()).abs().float()


def test_exact_decoding_is_pillows_own(photograph, preprocessing):
    found = read_resized(lambda: read_image(photograph), replace(preprocessing, decoding="exact"))
    assert torch.equal(found, resize_image(read_image(photograph), preprocessing.resize, "bicubic"))


@pytest.mark.parametrize(("size", "mean", "largest"), [((400, 400), 0.05, 2), ((60, 75), 0.5, 6)])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_fast_decoding_is_close_to_exact(photograph, preprocessing, size, mean, largest, interpolation):
    """The first size leaves the file whole; the second has it decoded at a quarter of its sides."""
    exact = replace(preprocessing, image_size=size, resize=size, interpolation=interpolation)
    slow, fast = (
        read_resized(lambda: read_image(photograph), replace(exact, decoding=decoding))
        for decoding in ("exact", "fast")
    )
    assert fast.shape == slow.shape == (3, *size)
    assert fast.dtype == torch.uint8
    assert fast.is_contiguous()
    assert levels_apart(slow, fast).mean() < mean
    assert levels_apart(slow, fast).max() <= largest


def test_an_unknown_decoding_is_refused(preprocessing):
    with pytest.raises(ArgumentError, match="unknown decoding 'quick'"):
        read_resized(lambda: Image.new("RGB", (40, 40)), replace(preprocessing, decoding="quick"))
