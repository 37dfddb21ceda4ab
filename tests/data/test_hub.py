"""Data sets of the hub, from local folders in the hub's own layout: columns, label meanings, splits."""

import pandas as pd
import pytest

from adapterprobe.config import ReadConfig
from adapterprobe.data import hub_table, load_data
from adapterprobe.errors import DataError
from adapterprobe.prompts import templates_for
from hub_layout import LAYOUT, NOUNS, repository, rows_of


@pytest.mark.parametrize("name", sorted(LAYOUT))
def test_columns_and_labels_mean_what_they_should(tmp_path, name):
    rows = rows_of(name)
    read = ReadConfig(hub_folder=str(repository(tmp_path, name, [row for row, _ in rows])))
    for ref in (name, f"hub:{name}"):
        dataset = load_data(ref, read)
        assert dataset.name == name and len(dataset.items) == len(NOUNS) and not dataset.dropped
        for noun, (_, right) in zip(NOUNS, rows, strict=True):
            item = next(
                i for i in dataset.items if f" {noun}" in " ".join(i.texts.values()) and i.line == NOUNS.index(noun) + 1
            )
            assert item.answers[0] == right and right not in item.answers[1:]
    for form in dataset.forms:
        examples = dataset.examples(dataset.groups, form, 0)
        assert len(examples) == 2 * len(NOUNS) and sum(e.truth for e in examples) == len(NOUNS)
        for template in templates_for(dataset, form):
            turns = {template.turn(e) for e in examples}
            assert len(turns) == len(examples) / (2 if form == "recall" else 1)
            assert not any("{" in turn for turn in turns)


def test_the_table_is_whole():
    table = hub_table()
    assert set(table) == set(LAYOUT) == {
        "boolq", "sciq", "rte", "qnli", "axg", "hans", "sst2", "imdb", "amazon_polarity", "truthful_qa", "commonsense_qa", "arc",
    }  # fmt: skip
    for name, entry in table.items():
        asked = [t for t in entry.templates if t.form == "question"]
        assert sum(t.role == "train" for t in asked) >= 3, name
        assert sum(t.role == "judge" for t in asked) >= 1 and sum(t.role == "belief" for t in asked) >= 2, name
        assert len({t.name for t in entry.templates}) == len(entry.templates)
        assert all("answer" in t.fields for t in asked), name


@pytest.mark.parametrize("name", ["sst2", "imdb", "rte", "commonsense_qa"])
def test_rows_without_a_label_are_left_out(tmp_path, name):
    rows = [row for row, _ in rows_of(name)]
    key = "answerKey" if "answerKey" in rows[0] else "label"
    for row in rows[:3]:
        row[key] = "" if key == "answerKey" else -1
    dataset = load_data(name, ReadConfig(hub_folder=str(repository(tmp_path, name, rows))))
    assert len(dataset.items) == len(NOUNS) - 3 and dataset.dropped == {"unlabelled": 3}


def test_an_unknown_label_value_is_a_fault(tmp_path):
    rows = [row for row, _ in rows_of("sst2")]
    rows[4]["label"] = 2
    with pytest.raises(DataError, match=r"line 5: 'label' is 2, expected one of \[0, 1\]"):
        load_data("sst2", ReadConfig(hub_folder=str(repository(tmp_path, "sst2", rows))))


def test_no_wrong_answer(tmp_path):
    rows = [row for row, _ in rows_of("sciq")]
    rows[0] |= dict.fromkeys(("distractor1", "distractor2", "distractor3"), rows[0]["correct_answer"])
    with pytest.raises(DataError, match="line 1: no wrong answer differs"):
        load_data("sciq", ReadConfig(hub_folder=str(repository(tmp_path, "sciq", rows))))


def test_answers_that_equal_the_right_one_are_not_wrong(tmp_path):
    rows = [row for row, _ in rows_of("commonsense_qa")]
    rows[0]["choices"] = {"label": ["A", "B", "C"], "text": ["bank", "bank", "shop"]}
    rows[1]["choices"] = {"label": ["A", "B", "C"], "text": ["one", "two"]}
    rows[2]["choices"] = None
    read = ReadConfig(hub_folder=str(repository(tmp_path, "commonsense_qa", rows)), skip_bad=2)
    dataset = load_data("commonsense_qa", read)
    assert dataset.items[0].answers == ("bank", "shop") and len(dataset.items) == len(NOUNS) - 2
    with pytest.raises(DataError, match="line 2: 'choices' has 2 of 'text' and 3 of 'label'"):
        load_data("commonsense_qa", read.model_copy(update={"skip_bad": 0}))


def test_reading_options_of_ones_own_files_leave_the_table_alone(tmp_path):
    read = ReadConfig(hub_folder=str(repository(tmp_path, "boolq", [row for row, _ in rows_of("boolq")])), group="city")
    assert len(load_data("boolq", read).items) == len(NOUNS)


def test_what_goes_wrong_with_a_repository(tmp_path):
    read = ReadConfig(hub_folder=str(tmp_path))
    with pytest.raises(DataError, match="google/boolq on the hub, and .* is no folder"):
        load_data("boolq", read)
    repository(tmp_path, "sst2", [{"idx": 0, "sentence": "x", "gold": 1}])
    with pytest.raises(DataError, match=r"lacks the columns \['label'\].*it has changed"):
        load_data("sst2", read)
    repository(tmp_path, "rte", [row for row, _ in rows_of("rte")])
    with pytest.raises(DataError, match="rte has no split 'validation'; it has train"):
        load_data("rte", read.model_copy(update={"split": "validation"}))


def test_any_repository_whose_columns_make_a_shape(tmp_path):
    folder = tmp_path / "ann" / "claims"
    folder.mkdir(parents=True)
    rows = [{"claim": f"The {noun} is real.", "gold": i % 2} for i, noun in enumerate(NOUNS)]
    pd.DataFrame(rows).to_parquet(folder / "train.parquet")
    read = ReadConfig(hub_folder=str(tmp_path), columns={"statement": "claim", "label": "gold"}, split="train")
    dataset = load_data("hub:ann/claims", read)
    assert len(dataset.items) == len(NOUNS) and dataset.forms == ("question", "negated", "statement")


def test_the_hub_itself_is_asked_when_no_folder_is_named(monkeypatch):
    asked = {}

    def refuse(where, **options):
        asked.update(options, where=where)
        raise ConnectionError("Couldn't reach it")

    monkeypatch.setattr("datasets.load_dataset", refuse)
    with pytest.raises(
        DataError, match=r"cannot load 'hans': tried jhu-cogsci/hans as a data set of the hub, got ConnectionError"
    ):
        load_data("hans")
    assert asked == {
        "where": "jhu-cogsci/hans", "name": None, "split": "validation", "revision": "refs/convert/parquet", "streaming": False,
    }  # fmt: skip
