import csv
import io
import json

import numpy as np
import pytest
from rich.console import Console
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from finevote.evaluation.measurement import Measurement
from finevote.evaluation.pointing import PointingFigure, PointingGame
from finevote.evaluation.report import make_report
from finevote.types import Predictions

NAMES = tuple(f"class {number}" for number in range(7))


def predictions(num_classes=7, num_images=300):
    rng = np.random.default_rng(1)
    labels = rng.integers(0, num_classes - 1, num_images)  # none of the last class
    logits = rng.normal(size=(num_images, num_classes)).astype(np.float32)
    logits[np.arange(num_images), labels] += 2 - labels / 4
    return Predictions(tuple(map(str, range(num_images))), labels, logits)


def report(rows=None, *, names=NAMES, split="val", **options):
    rows = rows or predictions()
    sections = options.pop("sections", {})
    measurement = Measurement(run="runs/one", data="photos", split=split, bundle_sha256="ab", **options)
    return make_report(rows, measurement, class_names=names, sections=sections)


def printed(made):
    console = Console(width=100, file=io.StringIO(), color_system=None)
    console.print(made.table())
    return console.file.getvalue()


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
def test_figures_agree_with_scikit_learn_and_scipy():
    rows = predictions()
    made = report(rows)
    top_1 = (rows.logits.argmax(1) == rows.labels).sum()
    interval = binomtest(int(top_1), 300).proportion_ci(method="wilson")
    assert made.top_1[:3] == pytest.approx((top_1 / 300, interval.low, interval.high))
    assert made.top_5.value == top_k_accuracy_score(rows.labels, rows.logits, k=5, labels=range(7))
    assert made.macro.value == pytest.approx(balanced_accuracy_score(rows.labels, rows.logits.argmax(1)))
    assert made.macro.low < made.macro.value < made.macro.high


def test_every_figure_names_its_interval():
    made = report()
    assert (made.top_1.method, made.top_5.method) == ("Wilson", "Wilson")
    assert "effective sample size" in made.macro.method


def test_photographs_of_one_subject_widen_every_interval_and_are_told():
    alone = predictions()
    groups = np.array([f"bird {number // 6}" for number in range(300)])
    labels = alone.labels[np.arange(300) // 6 * 6]  # a subject is of one class
    logits = alone.logits[np.arange(300) // 6 * 6]  # and all its photographs are told alike
    made = [report(Predictions(alone.image_ids, labels, logits, groups=kept)) for kept in (None, groups)]
    for one, grouped in [(m.top_1, g.top_1) for m, g in [made]] + list(
        zip(*(m.per_class[:5] for m in made), strict=True)
    ):
        assert grouped.high - grouped.low > 1.8 * (one.high - one.low)
        assert "groups" in grouped.method
    assert made[1].macro.high - made[1].macro.low > 1.8 * (made[0].macro.high - made[0].macro.low)
    assert "stratified by class" in made[1].macro.method
    assert [m.to_dict()["num_groups"] for m in made] == [None, 50]
    assert "intervals take whole groups: 50 of them in 300 images" in printed(made[1])
    assert "groups" not in printed(made[0])


def test_class_rows_add_up():
    made = report()
    assert sum(row.num_images for row in made.per_class) == made.num_images
    assert sum(row.num_correct for row in made.per_class) == round(made.top_1.value * 300)
    assert made.per_class[-1] == ("class 6", 0, 0, None, None, None, None)


def test_there_is_no_top_5_of_five_classes():
    made = report(predictions(num_classes=5), names=NAMES[:5])
    assert made.top_5 is None
    assert "top-5" not in printed(made)


def test_json_keeps_every_figure():
    made = report(pointing=PointingFigure(0.4, 0.1, 4.0, 12), skipped={"a.jpg": "broken"}, num_test_openings=2)
    values = json.loads(json.dumps(made.to_dict()))
    assert values["confidence"] == 0.95
    assert values["top_1"] == made.top_1._asdict()
    assert values["per_class"][0]["class_name"] == "class 0"
    assert values["confused"][0].keys() == {"true_class", "predicted_class", "num_images"}
    assert values["pointing"] == {"vote_share": 0.4, "area_share": 0.1, "lift": 4.0, "num_images": 12}
    assert values["skipped"] == {"a.jpg": "broken"}
    assert values["num_test_openings"] == 2


def test_the_table_of_classes_is_csv_with_blanks_where_there_are_no_images():
    rows = list(csv.DictReader(io.StringIO(report().class_table())))
    assert [row["class_name"] for row in rows] == list(NAMES)
    assert rows[-1]["num_images"] == "0"
    assert rows[-1]["accuracy"] == ""


def test_the_printed_table_shows_the_five_worst_classes_worst_first():
    made = report()
    text = printed(made)
    shown = [line for line in text.split("most confused")[0].splitlines() if line.startswith("class ")]
    present = sorted((row for row in made.per_class if row.num_images), key=lambda row: row.accuracy)
    assert [line[:7] for line in shown] == [row.class_name for row in present[:5]]


def test_names_that_look_like_markup_are_printed_as_they_are():
    names = [f"[/red]rose {number}" for number in range(7)]
    assert "[/red]rose 4 " in printed(report(names=names))


def test_a_flawless_model_has_no_confused_pairs_to_print():
    rows = predictions()
    flawless = Predictions(rows.image_ids, rows.labels, np.eye(7, dtype=np.float32)[rows.labels])
    text = printed(report(flawless))
    assert "100.00%" in text
    assert "most confused" not in text


@pytest.mark.parametrize(("count", "words"), [(1, "test split opened once"), (3, "test split opened 3 times")])
def test_openings_of_the_test_split_are_counted_aloud(count, words):
    assert words in printed(report(split="test", num_test_openings=count))


def test_votes_are_set_beside_the_area():
    text = " ".join(printed(report(pointing=PointingFigure(0.41, 0.05, 8.2, 240))).split())
    assert "41.0% of the final votes fall in the telling parts, which cover 5.0% of the view: 8.2 times as many" in text


def test_hits_of_the_most_voted_patch_are_told_with_their_interval():
    game = PointingGame(0.36, 0.32, 0.41, 0.06, 6.0, 5.3, 6.8, 1480)
    text = " ".join(printed(report(pointing_game=game, subject_game=game._replace(hit_share=0.9))).split())
    assert (
        "the most-voted patch lies in the telling parts in 36.0% of 1,480 images (32.0 to 41.0%): 6.0 times as "
        "often as by area (5.3 to 6.8)"
    ) in text
    assert "the most-voted patch lies on the subject in 90.0% of 1,480 images" in text


def test_the_setting_and_what_is_known_of_the_data_stand_beside_the_figures():
    made = report(
        protocol="trainval",
        setting="protocol trainval: trained on 2,040 images",
        notes=("5 test images, 6 as published",),
        on_subject=PointingFigure(0.8, 0.4, 2.0, 12),
    )
    text = printed(made)
    assert text.splitlines()[1] == "protocol trainval: trained on 2,040 images"
    assert "photos: 5 test images, 6 as published" in text
    assert "80.0% of the final votes fall on the subject, which covers 40.0% of the view: 2.0 times as many" in text
    values = json.loads(json.dumps(made.to_dict()))
    assert (values["protocol"], values["notes"]) == ("trainval", ["5 test images, 6 as published"])
    assert values["on_subject"]["lift"] == 2.0


def test_images_that_the_model_has_seen_are_warned_of_with_the_accuracy_over_the_others():
    rows = predictions()
    seen = {str(number): "train/1" for number in range(0, 300, 3)}
    made = report(rows, split="test", seen=seen)
    is_right = (rows.logits.argmax(1) == rows.labels)[np.arange(300) % 3 != 0]
    assert made.top_1_unseen.value == is_right.mean()
    text = " ".join(printed(made).split())
    assert (
        "WARNING: 100 test images have their very files among those that the model was fitted to or chosen on" in text
    )
    assert f"top-1 over the others: {is_right.mean():.2%}" in text
    assert json.loads(json.dumps(made.to_dict()))["top_1_unseen"]["value"] == is_right.mean()


def test_where_nothing_or_everything_was_seen_there_is_no_second_accuracy():
    assert report(seen={}).top_1_unseen is None
    assert "WARNING" not in printed(report(seen={}))
    everything = report(seen=dict.fromkeys(map(str, range(300)), "train/1"))
    assert everything.top_1_unseen is None
    assert "WARNING: 300 val images" in printed(everything)
