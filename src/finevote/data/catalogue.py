"""The published data sets by name: what is in them, where they come from, and what to know before quoting a number.

What could not be confirmed at the source (a size, a hash, the terms of use) is left out or said to be unconfirmed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from finevote.data.birds import CUB200, NABIRDS
from finevote.data.dogs import DOGS
from finevote.data.flowers102 import FLOWERS102
from finevote.data.published import DatasetInfo, Protocol
from finevote.data.torchvision_sets import CARS, FOOD101, PETS, aircraft, inat2021
from finevote.remote.download import RemoteFile

_OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
_STANFORD = "http://vision.stanford.edu/aditya86/ImageNetDogs"
_INAT = "https://ml-inat-competition-datasets.s3.amazonaws.com/2021"


def _official(*splits: str, about: str = "the published split") -> Protocol:
    return Protocol("official", about, {split: (split,) for split in splits})


_TRAIN_TEST = (
    _official("train", "test", about="trained on the published training images, measured on the test images"),
)
_TRAIN_VAL_TEST = (
    _official("train", "val", "test", about="trained on train, the epoch chosen on val, measured on test"),
    Protocol(
        "trainval",
        "trained on train and val together, measured on test",
        {"train": ("train", "val"), "test": ("test",)},
    ),
)


def _archive(name: str, *urls: str, gives: tuple[str, ...], **known: str | int) -> RemoteFile:
    return RemoteFile(name, urls, unpack=True, gives=gives, **known)  # type: ignore[arg-type]


_FLOWERS102 = DatasetInfo(
    name="flowers102",
    title="Oxford Flowers-102",
    layout=FLOWERS102,
    folder="flowers102",
    num_classes=102,
    num_images={"train": 1020, "val": 1020, "test": 6149},
    protocols=_TRAIN_VAL_TEST,
    licence="not stated",
    terms="do not redistribute",
    source_url=f"{_OXFORD}/flowers/102/",
    files=(
        _archive(
            "102flowers.tgz",
            f"{_OXFORD}/flowers/102/102flowers.tgz",
            gives=("jpg",),
            num_bytes=344_862_509,
            md5="52808999861908f626f3c1f4e79d11fa",
            sha256="2d01ecc807db462958cfe3d92f57a8c252b4abd240eb955770201e45f783b246",
        ),
        RemoteFile(
            "imagelabels.mat",
            (f"{_OXFORD}/flowers/102/imagelabels.mat",),
            num_bytes=502,
            md5="e0620be6f572b9609742df49c70aed4d",
        ),
        RemoteFile(
            "setid.mat",
            (f"{_OXFORD}/flowers/102/setid.mat",),
            num_bytes=14_989,
            md5="a5357ecc9cb78c4bef273ce3793fc85c",
        ),
    ),
    caveat="photographs 7309 and 8067 of test are the same as 7307 of train and 8077 of val",
    pitfalls=(
        "papers differ in training on 1,020 images (official) or on 2,040 (trainval)",
        "the test split is six times the training split",
    ),
)

_CUB200 = DatasetInfo(
    name="cub200",
    title="Caltech-UCSD Birds-200-2011",
    layout=CUB200,
    folder="cub200",
    num_classes=200,
    num_images={"train": 5994, "test": 5794},
    protocols=_TRAIN_TEST,
    licence="research only",
    terms="non-commercial research and education (unconfirmed)",
    source_url="https://data.caltech.edu/records/65de6-vp158",
    files=(
        _archive(
            "CUB_200_2011.tgz",
            "https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz",
            gives=("CUB_200_2011",),
            num_bytes=1_150_585_339,
            md5="97eceeb196236b17998738112f37df78",
            sha256="0c685df5597a8b24909f6a7c9db6d11e008733779a671760afef78feb49bf081",
        ),
    ),
    caveat="about 22 test images are also in ImageNet, which most pretrained backbones have seen",
    pitfalls=(
        "papers choose the best epoch on the test split; here validation is held out of the training images",
        "a few images are grey",
    ),
    subject="bird",
    parts="15 points",
)

_DOGS = DatasetInfo(
    name="dogs",
    title="Stanford Dogs",
    layout=DOGS,
    folder="dogs",
    num_classes=120,
    num_images={"train": 12_000, "test": 8_580},
    protocols=_TRAIN_TEST,
    licence="research only",
    terms="ImageNet's terms: non-commercial research and education (unconfirmed)",
    source_url=f"{_STANFORD}/",
    files=(
        _archive(
            "images.tar",
            f"{_STANFORD}/images.tar",
            gives=("Images",),
            num_bytes=793_579_520,
            sha256="a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
        ),
        _archive(
            "annotation.tar",
            f"{_STANFORD}/annotation.tar",
            gives=("Annotation",),
            num_bytes=21_852_160,
            sha256="662ed36f707be6b195c2fda392d8e153e83af28cedc8e2134a649f198def30fd",
        ),
        _archive(
            "lists.tar",
            f"{_STANFORD}/lists.tar",
            gives=("train_list.mat", "test_list.mat"),
            num_bytes=481_280,
            sha256="34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
        ),
    ),
    caveat="all images, those of test too, are training images of ImageNet, which most pretrained backbones have seen",
    subject="dog",
)

_NABIRDS = DatasetInfo(
    name="nabirds",
    title="NABirds",
    layout=NABIRDS,
    folder="nabirds",
    num_classes=555,
    num_images={"train": 23_929, "test": 24_633},
    protocols=_TRAIN_TEST,
    licence="own terms",
    terms="those of Cornell's form, to be accepted before downloading",
    source_url="https://dl.allaboutbirds.org/nabirds",
    files=(_archive("nabirds.tar.gz", gives=("nabirds",), md5="df21a9e4db349a14e2b08adfd45873bd"),),
    pitfalls=(
        "the classes are the leaves of a tree; their numbers have gaps and are counted anew here",
        "sexes, ages and morphs of one species are classes of their own",
    ),
    subject="bird",
    parts="11 points",
    instructions="Fill in the form at https://dl.allaboutbirds.org/nabirds; it leads to nabirds.tar.gz (about 9.8 GB).",
)

_PETS = DatasetInfo(
    name="pets",
    title="Oxford-IIIT Pet",
    layout=PETS,
    folder="pets",
    num_classes=37,
    num_images={"train": 3_680, "test": 3_669},
    protocols=_TRAIN_TEST,
    licence="CC BY-SA 4.0",
    source_url=f"{_OXFORD}/pets/",
    files=(
        _archive(
            "images.tar.gz",
            f"{_OXFORD}/pets/data/images.tar.gz",
            gives=("images",),
            num_bytes=791_918_971,
            md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
        ),
        _archive(
            "annotations.tar.gz",
            f"{_OXFORD}/pets/data/annotations.tar.gz",
            gives=("annotations",),
            num_bytes=19_173_078,
            md5="95a8c909bbe2e81eed6a22bccdf3f68f",
        ),
    ),
    pitfalls=("heads are boxed in training images only", "some files named .jpg are PNG, GIF or grey"),
    parts="head",
)

_CARS = DatasetInfo(
    name="cars",
    title="Stanford Cars",
    layout=CARS,
    folder="cars",
    num_classes=196,
    num_images={"train": 8_144, "test": 8_041},
    protocols=_TRAIN_TEST,
    licence="not stated",
    terms="no terms known (unconfirmed)",
    source_url="gone: https://ai.stanford.edu/~jkrause/cars/car_dataset.html",
    files=(
        _archive("cars_train.tgz", gives=("cars_train",), md5="065e5b463ae28d29e77c1b4b166cfe61"),
        _archive("cars_test.tgz", gives=("cars_test",), md5="4ce7ebf6a94d07f1952d94dd34c4d501"),
        _archive("car_devkit.tgz", gives=("devkit",)),
        RemoteFile("cars_test_annos_withlabels.mat"),
    ),
    pitfalls=(
        "the original site is gone; copies differ, so mind the hashes",
        "the labels of the test images are in a file of their own, which the devkit does not have",
    ),
    subject="car",
    instructions="The original site is gone; ask a colleague who has the files, or look for a copy with these hashes.",
)

_AIRCRAFT = DatasetInfo(
    name="aircraft",
    title="FGVC-Aircraft, 100 variants",
    layout=aircraft("variant"),
    folder="aircraft",
    num_classes=100,
    num_images={"train": 3_334, "val": 3_333, "test": 3_333},
    protocols=_TRAIN_VAL_TEST,
    licence="research only",
    terms="non-commercial research; the photographers keep their rights",
    source_url=f"{_OXFORD}/fgvc-aircraft/",
    files=(
        _archive(
            "fgvc-aircraft-2013b.tar.gz",
            f"{_OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
            gives=("fgvc-aircraft-2013b",),
            md5="d4acdd33327262359767eeaa97a4f732",
        ),
    ),
    pitfalls=(
        "the lowest 20 rows of every image name its photographer: they are cut off when reading",
        "papers differ in training on train (official) or on train and val (trainval)",
    ),
    subject="aircraft",
)

_FOOD101 = DatasetInfo(
    name="food101",
    title="Food-101",
    layout=FOOD101,
    folder="food101",
    num_classes=101,
    num_images={"train": 75_750, "test": 25_250},
    protocols=_TRAIN_TEST,
    licence="fair use only",
    terms="scientific fair use; the images are not ETH's (unconfirmed)",
    source_url="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
    files=(
        _archive(
            "food-101.tar.gz",
            "http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
            gives=("food-101",),
            num_bytes=4_996_278_331,
            md5="85eeb15f3717b99a5da872d97d918f87",
        ),
    ),
    pitfalls=("the training images were left uncleaned on purpose: some labels are wrong",),
)


def _inat_file(name: str, md5: str) -> RemoteFile:
    return _archive(f"{name}.tar.gz", f"{_INAT}/{name}.tar.gz", gives=(name,), md5=md5)


def _inat_protocols(train: str) -> tuple[Protocol, ...]:
    lists = {"train": (train,), "val": ("2021_valid",)}
    return (
        Protocol("official", "trained on train, the epoch chosen on val; the test labels are not public", lists),
        Protocol(
            "val_as_test",
            "trained on train, measured on val as papers do; validation is held out of the training images",
            {"train": (train,), "test": ("2021_valid",)},
        ),
    )


_INAT2021 = DatasetInfo(
    name="inat2021",
    title="iNaturalist 2021",
    layout=inat2021("2021_train"),
    folder="inat2021",
    num_classes=10_000,
    num_images={"2021_train": 2_686_843, "2021_valid": 100_000},
    protocols=_inat_protocols("2021_train"),
    licence="research only",
    terms="non-commercial research and education; each image has a licence of its own (unconfirmed)",
    source_url="https://github.com/visipedia/inat_comp/tree/master/2021",
    files=(
        _inat_file("train", "e0526d53c7f7b2e3167b2b43bb2690ed"),
        _inat_file("val", "f6f6e0e242e3d4c9569ba56400938afc"),
    ),
    pitfalls=(
        "the labels of the test images are not public: papers measure on val, so choose no epoch there",
        "classes are far from equal in size, except in inat2021_mini",
        "224 GB to download and as much again to unpack: start with inat2021_mini (42 GB)",
    ),
)

_INAT2021_MINI = replace(
    _INAT2021,
    name="inat2021_mini",
    title="iNaturalist 2021, 50 training images a class",
    layout=inat2021("2021_train_mini"),
    num_images={"2021_train_mini": 500_000, "2021_valid": 100_000},
    protocols=_inat_protocols("2021_train_mini"),
    files=(_inat_file("train_mini", "db6ed8330e634445efc8fec83ae81442"), _INAT2021.files[1]),
    pitfalls=(_INAT2021.pitfalls[0],),
)

DATASETS: Mapping[str, DatasetInfo] = {
    info.name: info
    for info in (
        _FLOWERS102,
        _CUB200,
        _DOGS,
        _NABIRDS,
        _PETS,
        _CARS,
        _AIRCRAFT,
        replace(
            _AIRCRAFT,
            name="aircraft_family",
            title="FGVC-Aircraft, 70 families",
            layout=aircraft("family"),
            num_classes=70,
        ),
        replace(
            _AIRCRAFT,
            name="aircraft_manufacturer",
            title="FGVC-Aircraft, 30 manufacturers",
            layout=aircraft("manufacturer"),
            num_classes=30,
        ),
        _FOOD101,
        _INAT2021,
        _INAT2021_MINI,
    )
}
