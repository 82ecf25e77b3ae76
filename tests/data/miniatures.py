"""Miniatures of the published data sets: the official layout and naming, file by file, with a few tiny photographs.

`make_miniature` writes the unpacked set and its archives, and describes them as the catalogue describes the real ones:
the numbers, sizes and hashes are the miniature's own, so that every check runs as it does on the real set.
"""

import hashlib
import json
import shutil
import tarfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from finevote.data.catalogue import DATASETS
from finevote.data.published import DatasetInfo

BANNER_PX = 20
_EXTRAS = {"CUB_200_2011.tgz": ["attributes.txt"], "lists.tar": ["file_list.mat"]}


@dataclass(frozen=True)
class Miniature:
    """`tree` holds the unpacked set as its archives would leave it, `archives` the files to be served."""

    info: DatasetInfo
    tree: Path
    archives: Path


def make_miniature(name: str, folder: Path, *, url: str = "http://localhost:9") -> Miniature:
    """Write the miniature of a set below `folder`; `url` is where its archives will be served."""
    real = DATASETS[name]
    tree, archives = folder / "tree", folder / "archives"
    archives.mkdir(parents=True)
    num_classes, num_images = _BUILDERS[name](tree)
    for file in real.files:
        path = archives / file.name
        if file.unpack:
            mode = "w" if path.suffix == ".tar" else "w:gz"
            with tarfile.open(path, mode) as archive:
                for member in (*file.gives, *_EXTRAS.get(file.name, ())):
                    archive.add(tree / member, member)
        else:
            shutil.copy(tree / file.name, path)
    files = tuple(
        replace(
            file,
            urls=tuple(f"{url}/{file.name}" for _ in file.urls),
            num_bytes=(archives / file.name).stat().st_size,
            md5=hashlib.md5((archives / file.name).read_bytes()).hexdigest(),
            sha256=hashlib.sha256((archives / file.name).read_bytes()).hexdigest(),
        )
        for file in real.files
    )
    info = replace(real, num_classes=num_classes, num_images=num_images, files=files)
    return Miniature(info, tree, archives)


def paint(path: Path, label: int, number: int, *, size: tuple[int, int] = (40, 30), mode: str = "RGB") -> None:
    """Write a noisy image of the class's colour as JPEG, whatever its name says."""
    path.parent.mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng([label, number])
    color = np.random.default_rng(label).integers(40, 216, 3)
    pixels = np.clip(color + generator.normal(0, 20, (size[1], size[0], 3)), 0, 255).astype(np.uint8)
    Image.fromarray(pixels).convert(mode).save(path, format="PNG" if mode == "RGBA" else "JPEG")


def write_lines(path: Path, lines: list[str]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


def cells(values: list[str], *, shape: tuple[int, int]) -> np.ndarray:
    """Return strings as a MATLAB cell array."""
    return np.array(values, dtype=object).reshape(shape)


def voc(name: str, boxes: list[tuple[int, int, int, int]], *, size: tuple[int, int] = (40, 30)) -> str:
    """Return a Pascal VOC annotation with tabs and line ends as they are published."""
    objects = "".join(
        f"\t<object>\n\t\t<name>{name}</name>\n\t\t<pose>Unspecified</pose>\n\t\t<truncated>0</truncated>\n"
        f"\t\t<difficult>0</difficult>\n\t\t<bndbox>\n\t\t\t<xmin>{left}</xmin>\n\t\t\t<ymin>{top}</ymin>\n"
        f"\t\t\t<xmax>{right}</xmax>\n\t\t\t<ymax>{bottom}</ymax>\n\t\t</bndbox>\n\t</object>\n"
        for left, top, right, bottom in boxes
    )
    return (
        "<annotation>\n\t<folder>02085620</folder>\n\t<filename>%s</filename>\n\t<source>\n"
        "\t\t<database>ImageNet database</database>\n\t</source>\n"
        f"\t<size>\n\t\t<width>{size[0]}</width>\n\t\t<height>{size[1]}</height>\n\t\t<depth>3</depth>\n\t</size>\n"
        f"\t<segment>0</segment>\n{objects}</annotation>"
    )


def _flowers102(root: Path) -> tuple[int, dict[str, int]]:
    """All 102 classes, for their names are not in the archive: two training, one validation and one test image each."""
    labels = [label for label in range(1, 103) for _ in range(4)]
    for number, label in enumerate(labels, start=1):
        paint(root / "jpg" / f"image_{number:05d}.jpg", label, number, size=(16, 12))
    savemat(root / "imagelabels.mat", {"labels": np.array([labels], np.uint8)})
    numbers = np.arange(1, len(labels) + 1, dtype=np.uint16).reshape(102, 4)
    lists = {"trnid": numbers[:, :2], "valid": numbers[:, 2], "tstid": numbers[:, 3]}
    savemat(root / "setid.mat", {name: np.atleast_2d(values.ravel()) for name, values in lists.items()})
    return 102, {"train": 204, "val": 102, "test": 102}


def _bird_tables(root: Path, rows: list[tuple[str, str, int, int]], parts: list[str], *, first_part: int) -> None:
    """Write the tables that CUB and NABirds share, of rows (id, path, class, 1 for training)."""
    write_lines(root / "images.txt", [f"{image} {path}" for image, path, _, _ in rows])
    write_lines(root / "image_class_labels.txt", [f"{image} {label}" for image, _, label, _ in rows])
    write_lines(root / "train_test_split.txt", [f"{image} {side}" for image, _, _, side in rows])
    write_lines(root / "parts" / "parts.txt", [f"{n} {part}" for n, part in enumerate(parts, start=first_part)])
    points = [
        f"{image} {part} {10.0 + 5 * (part - first_part)} 12.0 1" if part == first_part else f"{image} {part} 0.0 0.0 0"
        for image, *_ in rows
        for part in range(first_part, first_part + len(parts))
    ]
    write_lines(root / "parts" / "part_locs.txt", points)


def _cub200(tree: Path) -> tuple[int, dict[str, int]]:
    root = tree / "CUB_200_2011"
    names = ["001.Black_footed_Albatross", "002.Laysan_Albatross", "003.Sooty_Albatross"]
    rows = []
    for label, name in enumerate(names, start=1):
        for number in range(6):
            path = f"{name}/{name[4:]}_{number:04d}_{796111 + number}.jpg"
            rows.append((str(len(rows) + 1), path, label, int(number < 4)))
            paint(root / "images" / path, label, number, mode="L" if number == 0 else "RGB")
    parts = ["back", "beak", "belly", "left eye"]
    _bird_tables(root, rows, parts, first_part=1)
    write_lines(root / "classes.txt", [f"{label} {name}" for label, name in enumerate(names, start=1)])
    write_lines(root / "bounding_boxes.txt", [f"{image} 8.0 6.0 20.0 15.0" for image, *_ in rows])
    write_lines(root / "README", ["The Caltech-UCSD Birds-200-2011 Dataset"])
    write_lines(root / "attributes" / "certainties.txt", ["1 not visible"])
    write_lines(tree / "attributes.txt", ["1 has_bill_shape::curved_(up_or_down)"])
    return 3, {"train": 12, "test": 6}


def _nabirds(tree: Path) -> tuple[int, dict[str, int]]:
    root = tree / "nabirds"
    leaves = {295: "Common Eider (Adult male)", 817: "House Sparrow", 1010: "House Sparrow"}
    rows = []
    for label in leaves:
        for number in range(6):
            image = f"0000139e-21dc-4d0c-bfe1-{label:04d}{number:08d}"
            path = f"{label:04d}/{image.replace('-', '')}.jpg"
            rows.append((image, path, label, int(number < 4)))
            paint(root / "images" / path, label, number)
    _bird_tables(root, rows, ["bill", "crown", "left eye"], first_part=0)
    inner = {0: "Birds", 1: "Ducks, Geese, and Swans", 2: "Perching Birds"}
    write_lines(root / "classes.txt", [f"{number} {name}" for number, name in (inner | leaves).items()])
    write_lines(root / "hierarchy.txt", ["1 0", "2 0", "295 1", "817 2", "1010 2"])
    write_lines(root / "bounding_boxes.txt", [f"{image} 8 6 20 15" for image, *_ in rows])
    write_lines(root / "sizes.txt", [f"{image} 40 30" for image, *_ in rows])
    write_lines(root / "photographers.txt", [f"{image} Somebody" for image, *_ in rows])
    write_lines(root / "README", ["NABirds"])
    return 3, {"train": 12, "test": 6}


def _dogs(root: Path) -> tuple[int, dict[str, int]]:
    folders = ["n02085620-Chihuahua", "n02086240-Shih-Tzu", "n02113624-toy_poodle"]
    lists: dict[str, list[tuple[str, int]]] = {"train": [], "test": []}
    for label, folder in enumerate(folders, start=1):
        for number in range(6):
            stem = f"{folder.partition('-')[0]}_{100 + number}"
            lists["train" if number < 4 else "test"].append((f"{folder}/{stem}", label))
            paint(root / "Images" / folder / f"{stem}.jpg", label, number)
            boxes = [(8, 6, 28, 21)] if number else [(0, 0, 4, 3), (8, 6, 28, 21)]
            write_lines(root / "Annotation" / folder / stem, [voc("dog", boxes) % stem])
    lists["file"] = [*lists["train"], *lists["test"]]
    for name, rows in lists.items():
        shape = (len(rows), 1)
        content = {
            "file_list": cells([f"{stem}.jpg" for stem, _ in rows], shape=shape),
            "annotation_list": cells([stem for stem, _ in rows], shape=shape),
            "labels": np.array([label for _, label in rows], np.uint8).reshape(shape),
        }
        savemat(root / f"{name}_list.mat", content)
    return 3, {"train": 12, "test": 6}


def _pets(root: Path) -> tuple[int, dict[str, int]]:
    breeds = ["Abyssinian", "american_bulldog", "beagle"]
    lists: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, breed in enumerate(breeds, start=1):
        species = 1 if breed[0].isupper() else 2
        for number in range(6):
            image, name = f"{breed}_{100 + number}", "trainval" if number < 4 else "test"
            lists[name].append(f"{image} {label} {species} {max(1, label - 1)}")
            paint(root / "images" / f"{image}.jpg", label, number, mode="RGBA" if number == 0 else "RGB")
            trimap = root / "annotations" / "trimaps" / f"{image}.png"
            trimap.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (40, 30), 2).save(trimap)
            if name == "trainval":
                head = voc("cat" if species == 1 else "dog", [(8, 6, 28, 21)])
                write_lines(root / "annotations" / "xmls" / f"{image}.xml", [head % f"{image}.jpg"])
    (root / "images" / "Abyssinian_100.mat").write_bytes(b"left over")
    (root / "annotations" / "trimaps" / "._Abyssinian_100.png").write_bytes(b"left by a Mac")
    for name, rows in lists.items():
        write_lines(root / "annotations" / f"{name}.txt", rows)
    header = ["#Image CLASS-ID SPECIES BREED ID", "#ID: 1:37 Class ids"]
    write_lines(root / "annotations" / "list.txt", [*header, *lists["trainval"], *lists["test"]])
    write_lines(root / "annotations" / "README", ["OXFORD-IIIT PET Dataset"])
    return 3, {"train": 12, "test": 6}


def _cars(root: Path) -> tuple[int, dict[str, int]]:
    names = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Ram C/V Cargo Van Minivan 2012"]
    (root / "devkit").mkdir(parents=True)
    savemat(root / "devkit" / "cars_meta.mat", {"class_names": cells(names, shape=(1, 3))})
    fields = ["bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname"]
    for name, number_each, files in (
        ("train", 4, ["devkit/cars_train_annos.mat"]),
        ("test", 2, ["devkit/cars_test_annos.mat", "cars_test_annos_withlabels.mat"]),
    ):
        rows = []
        for label in (1, 2, 3):
            for number in range(number_each):
                file = f"{len(rows) + 1:05d}.jpg"
                paint(root / f"cars_{name}" / file, label, number + 10 * (name == "test"))
                box = [np.array([[side]], np.uint8) for side in (8, 6, 28, 21)]
                rows.append((*box, np.array([[label]], np.uint8), file))
        for file in files:
            kept = [field for field in fields if field != "class" or "cars_test_annos.mat" not in file]
            table = np.empty((1, len(rows)), dtype=[(field, object) for field in kept])
            for number, row in enumerate(rows):
                table[0, number] = tuple(value for field, value in zip(fields, row, strict=True) if field in kept)
            savemat(root / file, {"annotations": table})
    write_lines(root / "devkit" / "README.txt", ["This file gives documentation for the cars 196 dataset."])
    return 3, {"train": 12, "test": 6}


def _aircraft(level: str) -> Callable[[Path], tuple[int, dict[str, int]]]:
    classes = {
        "variant": ["707-320", "737-700", "DC-3", "F/A-18"],
        "family": ["Boeing 707", "Boeing 737", "DC-3", "F/A-18"],
        "manufacturer": ["Boeing", "Boeing", "Douglas Aircraft Company", "McDonnell Douglas"],
    }
    files = {"variant": "variants", "family": "families", "manufacturer": "manufacturers"}

    def write(tree: Path) -> tuple[int, dict[str, int]]:
        data = tree / "fgvc-aircraft-2013b" / "data"
        lists: dict[str, list[tuple[str, int]]] = {"train": [], "val": [], "test": []}
        for label in range(4):
            for number in range(5):
                image = f"{34309 + 100 * label + number:07d}"
                path = data / "images" / f"{image}.jpg"
                paint(path, label, number, size=(40, 30 + BANNER_PX))
                with Image.open(path) as opened:
                    opened.paste((255, 255, 255), (0, 30, 40, 30 + BANNER_PX))
                    opened.save(path)
                lists[["train", "train", "val", "val", "test"][number]].append((image, label))
        images = sorted(image for rows in lists.values() for image, _ in rows)
        lists["trainval"] = sorted([*lists["train"], *lists["val"]])
        for name, rows in lists.items():
            write_lines(data / f"images_{name}.txt", [image for image, _ in rows])
            for kind, labels in classes.items():
                write_lines(data / f"images_{kind}_{name}.txt", [f"{image} {labels[label]}" for image, label in rows])
        for kind, labels in classes.items():
            write_lines(data / f"{files[kind]}.txt", sorted(set(labels)))
        write_lines(data / "images_box.txt", [f"{image} 9 7 28 21" for image in images])
        write_lines(data.parent / "README.md", ["# FGVC-Aircraft Benchmark"])
        return len(set(classes[level])), {"train": 8, "val": 8, "test": 4}

    return write


def _food101(tree: Path) -> tuple[int, dict[str, int]]:
    root = tree / "food-101"
    names = ["apple_pie", "baby_back_ribs", "baklava"]
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for label, name in enumerate(names):
        for number in range(6):
            image = f"{name}/{1005649 + number}"
            lists["train" if number < 4 else "test"].setdefault(name, []).append(image)
            paint(root / "images" / f"{image}.jpg", label, number)
    for name, images in lists.items():
        write_lines(root / "meta" / f"{name}.txt", [image for group in images.values() for image in group])
        (root / "meta" / f"{name}.json").write_text(json.dumps(images), encoding="utf-8")
    write_lines(root / "meta" / "classes.txt", names)
    write_lines(root / "meta" / "labels.txt", [name.replace("_", " ").capitalize() for name in names])
    write_lines(root / "README.txt", ["Food-101"])
    write_lines(root / "license_agreement.txt", ["The Food-101 data set consists of images from Foodspotting"])
    return 3, {"train": 12, "test": 6}


def _inat2021(train: str) -> Callable[[Path], tuple[int, dict[str, int]]]:
    classes = [
        "00000_Animalia_Annelida_Clitellata_Haplotaxida_Lumbricidae_Lumbricus_terrestris",
        "00001_Animalia_Annelida_Polychaeta_Sabellida_Sabellidae_Sabella_spallanzanii",
        "00002_Animalia_Arthropoda_Arachnida_Araneae_Agelenidae_Eratigena_duellica",
    ]

    def write(tree: Path) -> tuple[int, dict[str, int]]:
        for folder, number_each in ((train, 4), ("val", 2)):
            for label, name in enumerate(classes):
                for number in range(number_each):
                    image = f"{label:08d}-{number:04d}-4c3a-b5a6-{len(folder):012d}.jpg"
                    paint(tree / folder / name / image, label, number + 10 * (folder == "val"))
        return 3, {f"2021_{train}": 12, "2021_valid": 6}

    return write


_BUILDERS: dict[str, Callable[[Path], tuple[int, dict[str, int]]]] = {
    "flowers102": _flowers102,
    "cub200": _cub200,
    "dogs": _dogs,
    "nabirds": _nabirds,
    "pets": _pets,
    "cars": _cars,
    "aircraft": _aircraft("variant"),
    "aircraft_family": _aircraft("family"),
    "aircraft_manufacturer": _aircraft("manufacturer"),
    "food101": _food101,
    "inat2021": _inat2021("train"),
    "inat2021_mini": _inat2021("train_mini"),
}
