"""What is on the page of a run, against the report and the predictions that it is made of."""

import html
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from finevote.errors import StorageError
from finevote.evaluation.metrics import confusion_matrix
from finevote.report.blocks import Page, Section, Table
from finevote.report.others import KNOWN, others
from finevote.report.photographs import describe_votes, discs_of
from finevote.report.render import LEVELS, render
from finevote.report.run import make_page
from tests.report.made_up import HOSTILE, NAMES, make_material, make_predictions, make_shelf


class Reader(HTMLParser):
    """Keeps the text of every cell by table, and every tag with its attributes."""

    def __init__(self):
        super().__init__()
        self.tables, self.tags, self.texts, self._cell = {}, [], [], None

    def handle_starttag(self, tag, attrs):
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "table":
            self.rows = self.tables.setdefault(values["id"], [])
        if tag == "tr":
            self.rows.append([])
        if tag in {"td", "th"}:
            self._cell = []

    def handle_endtag(self, tag):
        if tag in {"td", "th"} and self._cell is not None:
            self.rows[-1].append(" ".join("".join(self._cell).split()))
            self._cell = None

    def handle_data(self, data):
        self.texts.append(data)
        if self._cell is not None:
            self._cell.append(f"{data} ")


def read(text):
    reader = Reader()
    reader.feed(text)
    return reader


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def page(material):
    return make_page(material)


@pytest.fixture(scope="module")
def text(page):
    return render(page).html


@pytest.fixture(scope="module")
def reader(text):
    return read(text)


def test_the_headline_is_the_reports(material, page):
    top_1 = material.report["top_1"]
    num_right = (material.predictions.logits.argmax(1) == material.predictions.labels).sum()
    head = page.headline
    assert head.value == f"{top_1['value']:.1%}"
    assert head.interval == f"{top_1['low'] * 100:.1f} to {top_1['high'] * 100:.1f}%"
    assert f"{num_right} of 120 test images are named right" in head.meaning
    assert "Guessing among 6 classes would name 16.7% right" in head.meaning
    assert tuple(head.bar) == pytest.approx((top_1["low"], top_1["value"], top_1["high"]))


def test_copies_and_several_looks_at_test_are_warned_of_at_the_top(page):
    first, second = page.headline.warnings
    assert first.startswith("1 test image has its very file among those")
    assert "over the others top-1 is" in first
    assert "measured on twice" in second


def test_every_class_stands_in_the_table_as_in_the_report(material, reader):
    rows = reader.tables["classes-1"][1:]
    confusion = confusion_matrix(material.predictions.logits, material.predictions.labels)
    for label, (row, wanted) in enumerate(zip(rows, material.report["per_class"], strict=True)):
        wrong = confusion[label] * (np.arange(len(NAMES)) != label)
        assert row[0] == wanted["class_name"]
        assert row[1:4] == [str(wanted["num_images"]), str(wanted["num_correct"]), f"{wanted['accuracy']:.1%}"]
        assert row[4] == f"{wanted['low'] * 100:.1f} to {wanted['high'] * 100:.1f}%"
        assert row[5] == f"{NAMES[int(wrong.argmax())]} ({wrong.max()})"


def test_confused_pairs_stand_in_the_table_as_in_the_report(material, reader):
    rows = next(rows for rows in reader.tables.values() if "taken for" in rows[0])
    wanted = [
        [row["true_class"], row["predicted_class"], str(row["num_images"])] for row in material.report["confused"]
    ]
    assert rows[1:] == wanted


def test_every_section_of_the_report_has_its_part(material, page):
    anchors = {section.anchor for section in page.sections}
    assert {"probes", "trust", "selective", "taxonomy", "unknown", "pointing"} <= material.report.keys()
    assert {"controls", "calibration", "selective", "taxonomy", "unknown", "votes"} <= anchors


@pytest.mark.parametrize(
    ("words", "path"),
    [
        ("Calibration error", ("trust", "after", "calibration_error")),
        ("wrong of the surest 80%", ("selective", "risk_of_surest", 1)),
        ("species, one of 6", ("taxonomy", "levels", 0, "accuracy")),
        ("energy", ("unknown", "scores", 0, "false_alarms")),
        ("votes on the telling parts", ("pointing",)),
    ],
)
def test_figures_are_those_of_the_report(material, reader, words, path):
    value = material.report
    for step in path:
        value = value[step]
    cells = [cell for rows in reader.tables.values() for row in rows if row and row[0] == words for cell in row[1:]]
    if path == ("pointing",):
        assert cells[:3] == ["30.0%", "6.0%", "5.0"]
    else:
        assert f"{value['value']:.1%} {value['low'] * 100:.1f} to {value['high'] * 100:.1f}%" in cells


def test_what_was_measured_besides_stands_on_the_page(tmp_path):
    report = make_material(tmp_path).report
    interval = {"value": 0.25, "low": 0.125, "high": 0.375}
    curve = {"area": interval, "scores": [0.9, 0.3, 0.1], "low": [0, 0, 0], "high": [1, 1, 1]}
    more = {
        "pointing_game": {
            "hit_share": 0.371, "low": 0.312, "high": 0.434, "area_share": 0.063, "lift": 5.9, "lift_low": 5.0,
            "lift_high": 6.8, "num_images": 240,
        },
        "faithfulness": {
            "num_images": 200, "num_steps": 2, "num_draws": 3, "shares": [0.0, 0.5, 1.0],
            "curves": [
                {"kind": kind, "order": order, **curve}
                for kind in ("deletion", "insertion")
                for order in ("votes", "random")
            ],
            "differences": [
                {"kind": kind, "order": "votes", "versus": "random", "difference": interval, "shown": "better"}
                for kind in ("deletion", "insertion")
            ],
        },
        "retrieval": {
            "num_queries": 120, "num_gallery": 60, "metric": "cosine", "num_themselves": 0, "num_left_out": 2,
            **dict.fromkeys(("recall_at_1", "recall_at_5", "mean_average_precision"), interval),
        },
    }  # fmt: skip
    page = make_page(make_material(tmp_path, report={**report, **more}))
    reader = read(render(page).html)
    cells = {row[0]: row[1:] for rows in reader.tables.values() for row in rows if row}
    assert cells["most-voted patch on the telling parts"] == ["37.1% 31.2 to 43.4%", "6.3%", "5.9 5.0 to 6.8", "240"]
    assert cells["votes"] == ["0.250 0.125 to 0.375"] * 2
    assert cells["deletion: votes \N{MINUS SIGN} random"] == ["+0.250 +0.125 to +0.375", "better"]
    assert cells["the nearest is of its class"] == ["25.0% 12.5 to 37.5%"]
    assert not [section for section in page.sections if section.anchor.startswith("more-")]


def test_what_was_not_measured_is_told_with_the_command_that_does(page, text):
    assert {"faithfulness", "layers", "retrieval"} <= {section.anchor for section in page.sections}
    for command in ("--split test --faithfulness", "finevote similarity ", "finevote gallery ", "finevote data audit"):
        assert command in text


def test_likeness_of_layers_is_shown_where_it_is_of_these_weights(tmp_path):
    material = make_material(tmp_path)
    found = {
        "num_images": 240, "split": "val", "weights_sha256": "c" * 64, "keep_rate": 1.0,
        "layers": ["layer 1", "layer 2"],
        "cka": {"cls": {"minibatch": [[1.0, 0.75], [0.75, None]]}}, "notes": [],
        "votes": {
            "offered": [0.6, 0.4],
            "key": [{"value": 0.8, "low": 0.7, "high": 0.9}, {"value": 0.2, "low": 0.1, "high": 0.3}],
            "heads": [[0.1, 0.4], [0.3, 0.2]], "area": 0.16,
        },
    }  # fmt: skip
    path = material.folder.similarity / "similarity.json"
    path.parent.mkdir()
    path.write_text(json.dumps(found))
    text = render(make_page(material)).html
    assert "CLS changes most from layer 1 to layer 2: CKA 0.75" in text
    assert read(text).tables["layers-1-2"][1][1:] == ["60.0%", "80.0% 70.0 to 90.0%", "head 2 40% of votes"]
    path.write_text(json.dumps({**found, "weights_sha256": "d" * 64}))
    assert "CLS changes most" not in render(make_page(material)).html


def test_a_damaged_likeness_of_layers_is_left_out_with_the_command_that_makes_it(tmp_path, caplog):
    material = make_material(tmp_path)
    path = material.folder.similarity / "similarity.json"
    path.parent.mkdir()
    same = {"weights_sha256": "c" * 64, "keep_rate": 1.0, "split": "val", "num_images": 240, "layers": ["layer 1"]}
    for damage in ({}, {"cka": {"cls": {"minibatch": 5}}}, {"cka": {"cls": {"minibatch": [["x"]]}}, "votes": [1]}):
        path.write_text(json.dumps({**same, **damage}))
        assert "finevote similarity " in " ".join(read(render(make_page(material)).html).texts)
        assert "similarity.json is not as it was written" in caplog.messages[-1]


def test_no_probability_below_one_is_told_as_certain_and_none_above_zero_as_impossible(tmp_path):
    material = make_material(tmp_path, is_calibrated=False)
    logits = np.zeros_like(material.predictions.logits)
    logits[:, 0] = 9.0  # of six classes: 99.9% and 0.01%
    material = replace(material, predictions=replace(material.predictions, logits=logits))
    told = re.findall('class="what">([^<]*)<', render(make_page(material)).html)
    assert set(told) == {"&gt;99%", "&lt;1%"}


def test_probes_stand_beside_the_model(material, reader):
    rows = reader.tables["controls-1"]
    row = material.report["probes"]["rows"][0]
    assert rows[1][:2] == ["kNN, CLS, k=5", f"{row['top_1']:.1%}"]
    assert rows[1][3] == f"{row['only_probe']} : {row['only_model']}"
    assert rows[2][:2] == ["this model", f"{material.report['top_1']['value']:.1%}"]


def test_kinds_of_figures_that_nothing_is_made_for_are_shown_as_they_are(tmp_path):
    found = {
        "depth": {"mean_m": 3.25, "error": {"value": 0.5, "low": 0.25, "high": 0.75}, "rows": [{"k": 1, "hit": 0.5}]}
    }
    material = make_material(tmp_path)
    material = make_material(tmp_path, report={**material.report, **found})
    text = " ".join(read(render(make_page(material)).html).texts)
    assert "Depth" in text
    assert "3.25" in text
    assert "0.5 (0.25 to 0.75)" in text
    assert others(material.report, known=KNOWN)[0].anchor == "more-depth"


def test_a_name_cannot_become_markup(text, reader):
    assert HOSTILE not in text
    assert html.escape(HOSTILE, quote=False)[:8] in text
    assert [tag for tag, _ in reader.tags].count("script") == 1
    alts = [values["alt"] for tag, values in reader.tags if tag == "img"]
    assert any(HOSTILE in alt for alt in alts)


def test_every_picture_is_described_and_no_photograph_comes_twice(reader):
    images = [values for tag, values in reader.tags if tag == "img"]
    assert len(images) > 20
    assert all(values["alt"] for values in images)
    assert all(values["src"].startswith("data:image/jpeg;base64,") for values in images)
    assert len({values["src"] for values in images}) == len(images)
    drawings = [values for tag, values in reader.tags if tag == "svg"]
    assert all(values.get("aria-label") or values.get("aria-hidden") == "true" for values in drawings)


def test_nothing_on_the_page_leads_outside(text, reader):
    policy = next(v["content"] for t, v in reader.tags if v.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none'; img-src data:;")
    for name in ("src", "href", "data", "action", "srcset"):
        for _, values in reader.tags:
            assert values.get(name, "#").startswith(("#", "data:"))
    style = text.partition("<style>")[2].partition("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style


def test_every_entry_of_the_contents_leads_to_a_part(reader):
    ids = [values["id"] for _, values in reader.tags if "id" in values]
    links = [values["href"][1:] for tag, values in reader.tags if tag == "a"]
    assert set(links) <= set(ids)
    assert len(ids) == len(set(ids))


def test_a_plain_run_has_no_votes_and_no_switch_for_them(tmp_path):
    material = make_material(tmp_path, has_votes=False, epochs=())
    reader = read(render(make_page(material)).html)
    assert not [values for _, values in reader.tags if values.get("class") == "discs"]
    assert "votes-switch" not in [values.get("id") for _, values in reader.tags]
    assert not [values for _, values in reader.tags if values.get("id") == "votes"]


def test_a_run_without_calibration_says_so(tmp_path):
    texts = " ".join(read(render(make_page(make_material(tmp_path, is_calibrated=False))).html).texts)
    assert "Not calibrated: the model was fitted without validation images" in texts


def test_photographs_that_are_gone_are_left_out_and_said(tmp_path):
    reader = read(render(make_page(make_material(tmp_path, has_shelf=False))).html)
    assert not [tag for tag, _ in reader.tags if tag == "img"]
    assert "There are no photographs here: trees are gone" in " ".join(reader.texts)


def test_photographs_that_cannot_be_read_are_counted(tmp_path):
    material = make_material(tmp_path)
    broken = material.predictions.image_ids[:100]
    material = make_material(tmp_path, shelf=make_shelf(material.predictions, broken=broken))
    texts = " ".join(read(render(make_page(material)).html).texts)
    lost = re.search(r"(\d+) photographs could not be read: left out", texts)
    assert int(lost.group(1)) > 5


def test_a_page_that_is_too_large_has_smaller_photographs_then_fewer_then_none(page):
    sizes = {}
    for number, level in enumerate(LEVELS):
        limit = 10**9 if not number else sizes[number - 1] - 1
        rendered = render(page, max_bytes=limit)
        assert rendered.num_bytes == len(rendered.html.encode()) <= limit
        sizes[number] = rendered.num_bytes
        if rendered.level == LEVELS[-1]:
            break
        assert rendered.level == level
    assert rendered.level == LEVELS[-1]
    assert "<img" not in rendered.html


def test_a_page_that_is_too_large_without_photographs_is_refused(page):
    with pytest.raises(StorageError, match=r"has [\d,]+ bytes without any photograph, more than the 1,000"):
        render(page, max_bytes=1000)


def test_votes_lie_on_their_patches():
    votes = np.zeros((2, 4))
    votes[1, 3], votes[0, 0] = 4, 1
    first, second = discs_of(votes, (80, 20))
    assert first[:2] == (10.0, 5.0)
    assert second[:2] == (70.0, 15.0)
    assert second.radius == pytest.approx(2 * first.radius, abs=0.11)
    assert discs_of(np.zeros((2, 2)), (10, 10)) == []


@pytest.mark.parametrize(("row", "column", "words"), [(0, 0, "upper left"), (4, 4, "middle"), (8, 5, "bottom")])
def test_where_votes_are_is_told_in_words(row, column, words):
    votes = np.zeros((9, 9))
    votes[row, column] = 3
    assert describe_votes(votes) == f"; most votes at the {words}"
    assert describe_votes(votes * 0) == ""


def test_an_empty_page_can_be_made():
    page = Page("t", "k", "s", None, [Section("a", "A", "A", "", [Table("", (), ())])])
    assert "<h1>t</h1>" in render(page).html


def test_a_study_is_shown_with_the_runs_variant_marked(tmp_path):
    run = tmp_path / "full" / "seed-0"
    standing = {"seeds": [0, 1], "accuracy": 0.34, "sd": 0.026, "low": 0.29, "high": 0.39}
    study = {
        "stem": "ablation", "num_images": 1020, "split": "test",
        "standings": [
            {"name": "full", "runs": ["/elsewhere/full/seed-0", "/elsewhere/full/seed-1"], **standing},
            {"name": "no voting", "runs": ["/elsewhere/no-voting/seed-0"], **standing},
        ],
        "duels": [{"other": "no voting", "difference": 0.02, "low": -0.05, "high": 0.09, "p_adjusted": 0.83}],
    }  # fmt: skip
    text = render(make_page(make_material(run, study=study))).html
    rows = read(text).tables["controls-3"]
    assert rows[1][:3] == ["full", "2 sd 2.6", "34.0%"]
    assert rows[2][4:] == ["+2.0", "-5.0 to +9.0", "0.830"]
    assert re.search(r'<tr class="marked"><th scope="row">full<', text)


def test_predictions_of_one_image_make_a_page(tmp_path):
    predictions = make_predictions(num_images=6)
    assert len(make_page(make_material(tmp_path, num_images=6)).sections) > 8
    assert len(predictions.labels) == 6
