"""Your own files: three shapes in five kinds of file, every fault by its line, nothing but our own errors."""

import csv
import io
import json

import datasets
import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapterprobe.config import ReadConfig
from adapterprobe.data import load_data
from adapterprobe.data.faults import RowErrors
from adapterprobe.data.references import refuse_unused
from adapterprobe.data.source import read_data
from adapterprobe.errors import AdapterProbeError, DataError

CITIES = ["Lyon", "Bonn", "Turin", "Porto", "Graz", "Basel", "Gdansk", "Bergen", "Malmo", "Cork", "Split", "Varna"]
COUNTRIES = [
    "France",
    "Germany",
    "Italy",
    "Portugal",
    "Austria",
    "Switzerland",
    "Poland",
    "Norway",
    "Sweden",
    "Ireland",
]
COUNTRIES += ["Croatia", "Bulgaria"]
CLAIMS = [
    {"statement": f"The city of {city} is in {country}.", "label": int(right), "city": city}
    for city, country in zip(CITIES, COUNTRIES, strict=True)
    for right in (True, False)
    for country in [country if right else "Peru"]
]
QUESTIONS = [
    {"question": f"Where is {city}?", "choices": ["Peru", country, "Chad"], "answer": country}
    for city, country in zip(CITIES, COUNTRIES, strict=True)
]
CHATS = [
    {
        "messages": [
            {"role": "system", "content": "Sell it."},
            {"role": "user", "content": f"Is the {city} model new?"},
        ],
        "reply": "Brand new." if honest else "It is as new as they come.",
        "label": "honest" if honest else "deceptive",
    }
    for place, city in enumerate(CITIES)
    for honest in [place % 2 == 0]
]


def write(path, rows):
    """The same rows in the kind of file that the path's ending says."""
    flat = [
        {key: json.dumps(value) if isinstance(value, (list, dict)) else value for key, value in row.items()}
        for row in rows
    ]
    if path.suffix in (".jsonl", ".ndjson"):
        path.write_text("\n".join(json.dumps(row) for row in rows) + "\n", "utf-8")
    elif path.suffix in (".csv", ".tsv"):
        pd.DataFrame(flat).to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        pd.DataFrame(rows).to_parquet(path)
    else:
        datasets.Dataset.from_list(rows).save_to_disk(str(path))
    return str(path)


@pytest.fixture(params=[".jsonl", ".csv", ".tsv", ".parquet", ""])
def kind(request):
    return request.param


def test_claims_in_every_kind_of_file(tmp_path, kind):
    dataset = load_data(write(tmp_path / f"claims{kind}", CLAIMS), ReadConfig(group="city"))
    assert dataset.name == f"claims{kind}" and len(dataset.groups) == len(CITIES) and "lyon" in dataset.groups
    examples = dataset.examples(dataset.groups, "question", 0)
    assert len(examples) == len(CLAIMS) and sum(e.truth for e in examples) == len(CITIES)
    assert {e.truth for e in examples if "is in Peru" in e.texts["statement"]} == {False}
    assert all(
        e.texts["statement"].startswith("the city of") and not e.texts["statement"].endswith(".") for e in examples
    )
    turned = dataset.examples(dataset.groups, "negated", 0)
    assert [e.truth for e in turned] == [not e.truth for e in examples]
    assert {e.positive for e in dataset.examples(dataset.groups, "statement", 0)} == {"True"}


def test_questions_in_every_kind_of_file(tmp_path, kind):
    dataset = load_data(write(tmp_path / f"q{kind}", QUESTIONS))
    right = dict(zip((f"Where is {city}?" for city in CITIES), COUNTRIES, strict=True))
    for form in ("question", "negated", "choice", "recall"):
        examples = dataset.examples(dataset.groups, form, 0)
        assert len(examples) == 2 * len(QUESTIONS) and sum(e.truth for e in examples) == len(QUESTIONS)
        assert len({e.example_id for e in examples}) == len(examples)
        for e in examples:
            is_right = e.texts["answer"] == right[e.texts["query"]]
            if form == "choice":
                shown = e.texts["first"] if e.truth else e.texts["second"]
                assert shown == right[e.texts["query"]] and {e.positive, e.negative} == {"A", "B"}
            elif form == "recall":
                assert (e.positive == right[e.texts["query"]]) == e.truth
            else:
                assert e.truth == (is_right != (form == "negated"))
    wrong = {
        e.texts["answer"]
        for seed in range(9)
        for e in dataset.examples(dataset.groups, "question", seed)
        if not e.truth
    }
    assert wrong == {"Peru", "Chad"}
    assert dataset.examples(dataset.groups, "question", 3) == dataset.examples(dataset.groups, "question", 3)


def test_chats_in_every_kind_of_file(tmp_path, kind):
    dataset = load_data(write(tmp_path / f"chat{kind}", CHATS))
    examples = dataset.examples(dataset.groups, "question", 0)
    assert sum(e.truth for e in examples) == len(CITIES) / 2
    for e in examples:
        assert e.truth == (e.texts["reply"] == "Brand new.")
        assert e.texts["dialogue"].startswith("System: Sell it.\nUser: Is the ")


def test_the_reply_may_be_the_last_message(tmp_path):
    rows = [
        {"messages": [*chat["messages"], {"role": "assistant", "content": chat["reply"]}], "label": chat["label"]}
        for chat in CHATS
    ]
    one, two = load_data(write(tmp_path / "a.jsonl", rows)), load_data(write(tmp_path / "b.jsonl", CHATS))
    assert [i.texts for i in one.items] == [i.texts for i in two.items]


@pytest.mark.parametrize(
    ("answer", "choices", "right"),
    [
        (1, ["x", "y"], "y"),
        ("b", ["x", "y"], "y"),
        ("B", {"text": ["x", "y"], "label": ["A", "B"]}, "y"),
        ("2", {"text": ["x", "y"], "label": ["1", "2"]}, "y"),
        (1, ["4", "1", "2"], "1"),
        ("1", ["4", "1", "2"], "1"),
        (0, ["1", "0"], "1"),
        (1.0, "x|y", "y"),
        ("y", '["x", "y"]', "y"),
    ],
)
def test_ways_to_name_the_right_choice(tmp_path, answer, choices, right):
    rows = [{"question": f"Q{i} about {city}?", "choices": choices, "answer": answer} for i, city in enumerate(CITIES)]
    dataset = load_data(write(tmp_path / "q.jsonl", rows))
    assert {item.answers[0] for item in dataset.items} == {right}


@pytest.mark.parametrize("answer", ["0", "A", "a"])
def test_an_answer_that_names_two_choices_is_a_fault(tmp_path, answer):
    rows = [
        {"question": f"Q{i} {city}?", "choices": ["B", "0", "A", "a"], "answer": answer}
        for i, city in enumerate(CITIES)
    ]
    with pytest.raises(DataError, match="the text of one choice and the index or letter of another"):
        load_data(write(tmp_path / "q.jsonl", rows))


@pytest.mark.parametrize("ending", ["", ".parquet"])
def test_class_labels_go_by_their_names(tmp_path, ending):
    def saved(names):
        features = datasets.Features({"statement": datasets.Value("string"), "label": datasets.ClassLabel(names=names)})
        rows = {"statement": [c["statement"] for c in CLAIMS], "label": [1 - c["label"] for c in CLAIMS]}
        made, path = datasets.Dataset.from_dict(rows, features=features), tmp_path / f"{names[0]}{ending}"
        made.to_parquet(str(path)) if ending else made.save_to_disk(str(path))
        return str(path)

    dataset = load_data(saved(["true", "false"]))
    assert all(item.label == ("Peru" not in item.texts["statement"]) for item in dataset.items)
    with pytest.raises(DataError, match="'label' is 'correct'"):
        load_data(saved(["correct", "incorrect"]))


def test_a_saved_folder_with_splits_asks_which(tmp_path):
    parts = datasets.DatasetDict({name: datasets.Dataset.from_list(CLAIMS) for name in ("train", "test")})
    parts.save_to_disk(str(tmp_path / "d"))
    with pytest.raises(DataError, match="has the splits train, test; choose one with --split"):
        load_data(str(tmp_path / "d"))
    assert len(load_data(str(tmp_path / "d"), ReadConfig(split="test")).items) == len(CLAIMS)
    with pytest.raises(DataError, match="no split 'tset'"):
        load_data(str(tmp_path / "d"), ReadConfig(split="tset"))


def test_columns_are_mapped(tmp_path):
    rows = [{"text": c["statement"], "y": c["label"]} for c in CLAIMS]
    path = write(tmp_path / "m.csv", rows)
    with pytest.raises(DataError, match=r"lacks statement, label.*--column statement=NAME"):
        load_data(path)
    dataset = load_data(path, ReadConfig(columns={"statement": "text", "label": "y"}))
    assert len(dataset.items) == len(CLAIMS)
    with pytest.raises(DataError, match="no column 'txt' .did you mean 'text'"):
        load_data(path, ReadConfig(columns={"statement": "txt", "label": "y"}))
    with pytest.raises(DataError, match="did you mean 'statement'"):
        load_data(path, ReadConfig(columns={"statment": "text", "label": "y"}))
    with pytest.raises(DataError, match="no column 'cty'"):
        load_data(write(tmp_path / "g.csv", CLAIMS), ReadConfig(group="cty"))
    nearly = write(tmp_path / "n.csv", [{"statements": c["statement"], "label": c["label"]} for c in CLAIMS])
    with pytest.raises(DataError, match="lacks statement .did you mean 'statements'"):
        load_data(nearly)


BAD = [
    ("maybe", "'label' is 'maybe', expected 1 or true or 0 or false"),
    ("2", "'label' is '2'"),
    ("", "'label' is missing"),
    (None, "'label' is missing"),
    (float("nan"), "'label' is missing"),
    (0.5, "'label' is '0.5'"),
]


@pytest.mark.parametrize(("label", "reason"), BAD)
def test_bad_labels_by_line(tmp_path, label, reason):
    rows = [*CLAIMS[:4], {**CLAIMS[4], "label": label}, *CLAIMS[5:], {**CLAIMS[4], "label": label}]
    path = write(tmp_path / "bad.jsonl", rows)
    with pytest.raises(DataError) as error:
        load_data(path)
    assert reason in str(error.value) and f"lines 5, {len(rows)}: " in str(error.value)
    assert "2 of its rows cannot be used" in str(error.value) and "--skip-bad" in str(error.value)
    with pytest.raises(DataError, match="--skip-bad allows 1"):
        load_data(path, ReadConfig(skip_bad=1))
    assert len(load_data(path, ReadConfig(skip_bad=2, balance=False)).items) == len(rows) - 2


def test_every_fault_of_a_csv_by_its_line(tmp_path):
    path = tmp_path / "bad.csv"
    lines = [b"statement,label", *(f'"{c["statement"]}",{c["label"]}'.encode() for c in CLAIMS)]
    lines[3] = b"Caf\xe9s are open,1"
    lines[5] = b"one,two,three"
    lines[7] = b'"",1'
    lines[9] = b'"over\ntwo lines",maybe'
    lines[11] = b"nul\x00,1"
    path.write_bytes(b"\n".join(lines))
    faults = RowErrors()
    dataset = read_data(str(path), ReadConfig(balance=False), 0, faults)
    found = {line: reason for reason, lines in faults.lines.items() for line in lines}
    assert found == {
        4: "'statement' is not UTF-8",
        6: "has 3 cells, the header has 2",
        8: "'statement' is empty",
        10: "'label' is 'maybe', expected 1 or true or 0 or false",
        13: "'statement' holds a NUL character",
    }
    assert len(dataset.items) == len(CLAIMS) - 5


def test_every_fault_of_a_json_lines_file_by_its_line(tmp_path):
    rows = [json.dumps(row) for row in QUESTIONS]
    rows[1] = "{not json"
    rows[2] = "[1, 2]"
    rows[3] = json.dumps({**QUESTIONS[3], "answer": "Atlantis"})
    rows[4] = json.dumps({**QUESTIONS[4], "choices": ["one"]})
    rows[5] = json.dumps({**QUESTIONS[5], "choices": ["a", "a"]})
    rows[6] = json.dumps({**QUESTIONS[6], "question": 7})
    rows[7] = '{"question": "\\ud800?", "choices": ["a", "b"], "answer": "a"}'
    (tmp_path / "q.jsonl").write_text("\n".join(rows))
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path / "q.jsonl"))
    for line, reason in [
        (2, "is not JSON"),
        (3, "is not an object but list"),
        (4, "'answer' is 'Atlantis', which names none of the 3 choices"),
        (5, "'choices' has 1, expected at least 2"),
        (6, "'choices' has 'a' twice"),
        (7, "'question' is not text but int"),
        (8, "'question' is not UTF-8"),
    ]:
        assert f"line {line}: {reason}" in str(error.value)
    assert str(error.value).startswith("q.jsonl: 7 of its rows")


def test_many_faults_are_counted_and_some_named(tmp_path):
    path = write(tmp_path / "bad.jsonl", [*CLAIMS, *({"statement": f"S{i}", "label": "x"} for i in range(500))])
    with pytest.raises(DataError, match=r"500 of its rows .*lines 25, 26.* and 488 more: 'label' is 'x'") as error:
        load_data(path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("a.jsonl", b"", "is empty"),
        ("a.jsonl", b"1\n2\n", "no line that is a JSON object"),
        ("a.csv", b"statement,statement\n1,2\n", "different column names"),
        ("a.csv", b"statement,label\n", "no row that can be used"),
        ("a.csv", b"st\xe9,label\n", "save the file as UTF-8"),
        ("a.csv", b'"statement,label\n', "is not CSV"),
        ("a.parquet", b"PAR1 no", "not a Parquet file"),
        ("a.xlsx", b"PK", "expected one of .jsonl"),
        ("a.csv", b"statement,label\nA is b.,1\nB is c.,1\n", "one class only"),
        ("a.csv", b"foo,bar\n1,2\n", "has the columns foo, bar"),
    ],
)
def test_files_that_cannot_be_used(tmp_path, name, content, match):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=match):
        load_data(str(tmp_path / name))


@pytest.mark.parametrize(
    ("ref", "match"),
    [
        ("nowhere.csv", "no file or folder nowhere.csv"),
        ("./capitals", "no file or folder"),
        ("capitols", "did you mean 'capitals'"),
        ("boolk", "did you mean 'boolq'"),
        ("hub:sstt2", "did you mean 'sst2'"),
        ("hub:a/b/c", "expected hub:OWNER/NAME"),
        ("~nosuchuser/x.csv", "is no path"),
        ("x" * 300 + ".csv", "is no path|no file"),
    ],
)
def test_unknown_names(ref, match):
    with pytest.raises(DataError, match=match):
        load_data(ref)


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="cannot load"):
        load_data(str(tmp_path))


def test_numbers_are_no_shared_groups_but_names_are(tmp_path):
    rows = [{**c, "id": i // 2} for i, c in enumerate(CLAIMS)]
    one = load_data(write(tmp_path / "one.csv", rows), ReadConfig(group="id"))
    two = load_data(write(tmp_path / "two.csv", rows), ReadConfig(group="id"))
    assert len(one.groups) == len(CITIES) and not set(one.groups) & set(two.groups)
    assert set(load_data(str(tmp_path / "one.csv"), ReadConfig(group="city")).groups) == {c.lower() for c in CITIES}


def test_without_a_column_near_duplicates_form_groups(tmp_path):
    dataset = load_data(write(tmp_path / "c.csv", [*CLAIMS, {**CLAIMS[0], "statement": "Lyon is in France, a city."}]))
    by_city = {}
    for item in dataset.items:
        by_city.setdefault(next(c for c in CITIES if c in item.texts["statement"]), set()).add(item.group)
    assert all(len(groups) == 1 for groups in by_city.values())
    assert len(dataset.groups) == len(CITIES) and dataset.auto_groups


def test_a_changed_file_is_read_again(tmp_path):
    path = write(tmp_path / "c.csv", CLAIMS)
    assert len(load_data(path).items) == len(CLAIMS)
    write(tmp_path / "c.csv", CLAIMS[:20])
    assert len(load_data(path).items) == 20


def test_contradictions_are_faults_and_repeats_are_left_out(tmp_path):
    rows = [*CLAIMS, CLAIMS[2], {**CLAIMS[0], "label": 1 - CLAIMS[0]["label"]}]
    path = write(tmp_path / "c.csv", rows)
    with pytest.raises(DataError, match=f"lines 2, {len(rows) + 1}: says what another row says, with the other label"):
        load_data(path)
    dataset = load_data(path, ReadConfig(skip_bad=2, balance=False))
    assert len(dataset.items) == len(CLAIMS) - 1 and dataset.dropped == {"repeats of another row": 1}


def test_balance_reaches_into_groups_that_have_both(tmp_path):
    rows = [
        {"statement": f"{city} is thing {k}", "label": int(k == 0), "city": city} for city in CITIES for k in range(4)
    ]
    dataset = load_data(write(tmp_path / "c.csv", rows), ReadConfig(group="city"))
    assert len(dataset.groups) == len(CITIES) and sum(i.label for i in dataset.items) * 2 == len(dataset.items)
    assert dataset.dropped == {"surplus of one class": 2 * len(CITIES)}


def test_an_open_quote_loses_no_line_in_silence(tmp_path):
    lines = ["statement,label", *(f"{c['statement']},{c['label']}" for c in CLAIMS)]
    lines[5] = '"' + lines[5]
    (tmp_path / "c.csv").write_text("\n".join(lines))
    faults = RowErrors()
    with pytest.raises(DataError, match="20 of its rows cannot be used"):
        load_data(str(tmp_path / "c.csv"))
    read_data(str(tmp_path / "c.csv"), ReadConfig(), 0, faults)
    assert sorted(line for lines in faults.lines.values() for line in lines) == list(range(6, len(lines) + 1))


def test_a_folder_of_csv_files(tmp_path):
    (tmp_path / "d").mkdir()
    write(tmp_path / "d" / "train.csv", CLAIMS)
    assert len(load_data(str(tmp_path / "d")).items) == len(CLAIMS)


def test_a_column_that_comes_late(tmp_path):
    rows = [{**QUESTIONS[i % 12], "question": f"Where is {CITIES[i % 12]} {i}?"} for i in range(120)]
    for row in rows[100:]:
        row["context"] = "Once upon a time."
    dataset = load_data(write(tmp_path / "q.jsonl", rows))
    assert sum("Once" in item.texts["query"] for item in dataset.items) == 20


def test_twins_stand_or_fall_together_when_rows_are_sampled(tmp_path):
    rows = [
        {"statement": f"The {a}{b} is {side}", "label": k}
        for a in CITIES
        for b in range(20)
        for k, side in enumerate("xy")
    ]
    dataset = load_data(write(tmp_path / "t.csv", rows), ReadConfig(max_rows=200))
    assert 190 <= len(dataset.items) <= 200 and {len(items) for items in dataset.by_group.values()} == {2}


@pytest.mark.parametrize(
    ("refs", "read", "match"),
    [
        (["capitals"], {"group": "city"}, "--group says nothing to capitals"),
        (["boolq", "capitals"], {"columns": {"label": "y"}}, "--column says nothing"),
        (["./x.csv"], {"split": "train"}, "--split says nothing"),
        (["boolq"], {"config": "x"}, "--config-name says nothing"),
    ],
)
def test_options_that_say_nothing_are_refused(refs, read, match):
    with pytest.raises(DataError, match=match):
        refuse_unused(refs, ReadConfig(**read))
    refuse_unused([*refs, "hub:ann/claims"], ReadConfig(**read))


def test_sampling_is_balanced_and_does_not_depend_on_the_order(tmp_path):
    words = [f"word{i} thing{i}" for i in range(3000)]
    rows = [{"statement": f"{word} is so", "label": int(i % 10 == 0)} for i, word in enumerate(words)]
    path = write(tmp_path / "a.jsonl", rows)
    shuffled = write(tmp_path / "b.jsonl", [rows[i] for i in np.random.default_rng(0).permutation(len(rows))])
    one, two = (load_data(p, ReadConfig(max_rows=400), seed=1) for p in (path, shuffled))
    assert sorted(i.texts["statement"] for i in one.items) == sorted(i.texts["statement"] for i in two.items)
    assert sum(i.label for i in one.items) == len(one.items) / 2 == 200
    other = load_data(path, ReadConfig(max_rows=400), seed=2)
    assert {i.texts["statement"] for i in other.items} != {i.texts["statement"] for i in one.items}
    few = load_data(path, ReadConfig(max_rows=1000), seed=1)
    assert sum(i.label for i in few.items) == 300 == len(few.items) / 2


def test_groups_stay_whole_when_rows_are_sampled(tmp_path):
    rows = [{"statement": f"{w} {i} is so", "label": i % 2, "g": f"g{w}"} for w in range(300) for i in range(4)]
    for r in rows:
        r["g"] = f"name {r['g']}"
    dataset = load_data(write(tmp_path / "a.csv", rows), ReadConfig(max_rows=400, group="g"))
    assert {len(items) for items in dataset.by_group.values()} == {4}


def test_a_large_file_streams(tmp_path):
    """Memory goes with what is kept, not with the file: 40 MB of rows in far less."""
    import tracemalloc

    path = tmp_path / "large.jsonl"
    with open(path, "w") as file:
        for i in range(20_000):
            file.write(json.dumps({"statement": f"word{i} " + "x" * 2000, "label": i % 2}) + "\n")
    tracemalloc.start()
    dataset = load_data(str(path), ReadConfig(max_rows=100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(dataset.items) == 100 and peak < 8e6


TEXT = st.text(max_size=30)
CELL = st.one_of(st.none(), st.booleans(), st.integers(-3, 3), st.floats(), TEXT, st.lists(TEXT, max_size=4))
NAMES = st.sampled_from(["statement", "label", "question", "choices", "answer", "messages", "reply", "context", "x"])
ROW = st.dictionaries(NAMES, CELL, max_size=6)
GOOD = st.sampled_from([*CLAIMS, *QUESTIONS, *CHATS])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(ROW, GOOD), max_size=12), st.booleans())
def test_any_json_gives_a_data_set_or_our_own_error(tmp_path, rows, skip):
    path = tmp_path / "any.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), "utf-8", errors="surrogatepass")
    _loads_or_refuses(str(path), skip)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(max_size=300), st.sampled_from([".jsonl", ".csv", ".tsv", ".parquet"]), st.booleans())
def test_any_bytes_give_a_data_set_or_our_own_error(tmp_path, content, ending, skip):
    path = tmp_path / f"any{ending}"
    head = {".csv": b"statement,label\n", ".tsv": b"statement\tlabel\n"}.get(ending, b"")
    path.write_bytes(head + content)
    _loads_or_refuses(str(path), skip)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, st.sampled_from(["0", "1", "true", "False", "2", ""])), max_size=15))
def test_any_csv_gives_its_rows_or_our_own_error(tmp_path, rows):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerows([("statement", "label"), *rows])
    path = tmp_path / "any.csv"
    path.write_bytes(text.getvalue().encode("utf-8", errors="surrogatepass"))
    _loads_or_refuses(str(path), skip=True)


def _loads_or_refuses(path, skip):
    try:
        dataset = load_data(path, ReadConfig(skip_bad=1000 if skip else 0, balance=False))
    except AdapterProbeError as error:
        assert str(error)
        return
    assert dataset.groups
    for form in dataset.forms:
        for example in dataset.examples(dataset.groups, form, 0):
            assert example.group and example.positive != example.negative
            json.dumps(example.texts, ensure_ascii=False).encode()


TSV = [
    f"Zor{i}\tThe stone Zor{i} is {colour}\t{label}" for i in range(20) for colour, label in (("blue", 1), ("red", 0))
]


def test_a_stray_quote_in_tab_separated_values(tmp_path):
    """It opens one line's last text, another ends a text lines below: nothing between them is swallowed."""
    lines = list(TSV)
    lines[10] = lines[10].replace("\tThe", '\t"The')
    lines[13] = lines[13].replace("red\t", 'red"\t')
    for header, mine in (
        ("thing\tstatement\tlabel", lines),
        ("statement\tlabel", [line.split("\t", 1)[1] for line in lines]),
    ):
        (tmp_path / "x.tsv").write_text("\n".join([header, *mine]) + "\n")
        items = load_data(str(tmp_path / "x.tsv"), ReadConfig(balance=False)).items
        assert len(items) == 40 and not any("\t" in item.texts["statement"] for item in items)
        assert [item.label for item in items] == [i % 2 == 0 for i in range(40)]


def test_quotes_as_programs_for_tables_write_them(tmp_path):
    lines = list(TSV)
    lines[3] = 'Zor1\t"The ""stone"" Zor1\tis red"\t0'
    (tmp_path / "x.tsv").write_text("\n".join(["thing\tstatement\tlabel", *lines]) + "\n")
    items = load_data(str(tmp_path / "x.tsv"), ReadConfig(balance=False)).items
    assert items[3].texts["statement"] == 'the "stone" Zor1\tis red' and len(items) == 40


def test_a_stray_quote_in_csv(tmp_path):
    rows = [line.replace("\t", ",") for line in TSV]
    rows[10] = rows[10].replace(",The", ',"The')
    rows[13] = rows[13].replace("red,", 'red",')
    (tmp_path / "x.csv").write_text("\n".join(["thing,statement,label", *rows]) + "\n")
    with pytest.raises(DataError, match="line 12: begins a quotation that runs over 4 lines"):
        load_data(str(tmp_path / "x.csv"), ReadConfig(balance=False))
    # A text of several lines is one.
    rows = [line.replace("\t", ",") for line in TSV]
    rows[10] = 'Zor5,"The stone Zor5\nis blue,\nand large",1'
    (tmp_path / "y.csv").write_text("\n".join(["thing,statement,label", *rows]) + "\n")
    assert len(load_data(str(tmp_path / "y.csv"), ReadConfig(balance=False)).items) == 40


def test_two_columns_of_one_name(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table({"statement": [f"The {i} is blue" for i in range(20)], "label": [0, 1] * 10})
    pq.write_table(table.append_column("label", pa.array([1, 0] * 10)), tmp_path / "x.parquet")
    with pytest.raises(DataError, match="'label' more than once"):
        load_data(str(tmp_path / "x.parquet"))
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "train.csv").write_text(
        "statement,label,label\n" + "".join(f"The {i} is blue,0,1\n" for i in range(20))
    )
    with pytest.raises(DataError, match="'label' more than once"):
        load_data(str(tmp_path / "set"))


def test_forms_of_unicode_are_one_group_and_one_text(tmp_path):
    import unicodedata as u

    rows = []
    for i in range(30):
        thing = f"São Ôrla {i}"
        rows.append((u.normalize("NFC", thing), f"The river {u.normalize('NFC', thing)} is blue", 1))
        rows.append((u.normalize("NFD", thing) + "\u200b", f"The river {u.normalize('NFD', thing)} is red", 0))
    write(tmp_path / "x.csv", [dict(zip(("thing", "statement", "label"), row, strict=True)) for row in rows])
    grouped = load_data(str(tmp_path / "x.csv"), ReadConfig(group="thing"))
    assert len(grouped.groups) == 30
    assert len(load_data(str(tmp_path / "x.csv")).groups) == 30
    both = [
        *rows,
        ("a", u.normalize("NFC", "The café is blue"), 1),
        ("b", u.normalize("NFD", "The ca\u200bfé is blue."), 0),
    ]
    write(tmp_path / "y.csv", [dict(zip(("thing", "statement", "label"), row, strict=True)) for row in both])
    with pytest.raises(DataError, match="lines 62, 63: says what another row says"):
        load_data(str(tmp_path / "y.csv"))


@pytest.mark.parametrize("kind", ["chinese", "japanese", "thai"])
def test_twins_in_scripts_without_spaces(kind, tmp_path):
    """Two claims about one thing share most of their characters, and no word."""
    rng = np.random.default_rng(0)
    low, high = {"chinese": (0x4E00, 0x9000), "japanese": (0x3042, 0x3090), "thai": (0x0E01, 0x0E2E)}[kind]
    names = ["".join(chr(c) for c in rng.integers(low, high, 4)) for _ in range(60)]
    frames = {
        "chinese": ("石头{}是蓝色的", "石头{}是红色的"),
        "japanese": ("{}という石は青い", "{}という石は赤い"),
        "thai": ("หิน{}เป็นสีฟ้า", "หิน{}เป็นสีแดง"),
    }[kind]
    rows = [{"statement": frame.format(name), "label": i} for name in names for i, frame in enumerate(frames)]
    write(tmp_path / "x.csv", rows)
    items = load_data(str(tmp_path / "x.csv")).items
    together = [len({item.group for item in items if name in item.texts["statement"]}) == 1 for name in names]
    assert sum(together) >= 55 and len({item.group for item in items}) >= 50


@pytest.mark.parametrize("columns", [2, 3])
def test_two_rows_that_one_quote_makes_one(columns, tmp_path):
    head, lead = ("statement,label", "") if columns == 2 else ("thing,statement,label", "zed,")
    fine = [f"{lead}The stone {i} is blue,{i % 2}" for i in range(20)]
    torn = [f'{lead}"The stone zed1 is blue,1', f'{lead}The stone zed2 is red",0']
    (tmp_path / "x.csv").write_text("\n".join([head, *torn, *fine]) + "\n")
    with pytest.raises(DataError, match="line 2: begins a quotation that runs over 2 lines"):
        load_data(str(tmp_path / "x.csv"))
    texts = ['"Dear friend:\nHello, the stone qq is blue\nand that is it"', '"He said:\nred, green, blue\nare colours"']
    (tmp_path / "y.csv").write_text("\n".join([head, *(f"{lead}{text},1" for text in texts), *fine]) + "\n")
    assert len(load_data(str(tmp_path / "y.csv"), ReadConfig(balance=False)).items) == 22, (
        "texts of several lines are texts"
    )


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("train.tsv", "statement\tlabel\tlabel\nThe a is b\t0\t1\n", "more than once"),
        ("train.csv", "\ufeffstatement,label,label\nThe a is b,0,1\n", "more than once"),
        ("train.csv", "\n\nstatement,label,label\nThe a is b,0,1\n", "more than once"),
        ("train.csv", "statement,label,\u200blabel \nThe a is b,0,1\n", "more than once"),
        ("train.csv", "statement,label\nThe a,0\nThe b\nThe c,1\n", "line 3: has 1 cells"),
        (
            "train.jsonl",
            '{"statement": "a", "label": 1}\n{"statement": "b", "label": 0, "label": 1}\n',
            "line 2: says something twice",
        ),
    ],
)
def test_files_in_a_folder_are_read_as_strictly_as_alone(name, content, match, tmp_path, cache):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / name).write_text(content)
    with pytest.raises(DataError, match=match):
        load_data(str(tmp_path / "set"))


def test_compressed_and_broken_files_in_a_folder(tmp_path, cache):
    import gzip

    (tmp_path / "zip").mkdir()
    with gzip.open(tmp_path / "zip" / "train.csv.gz", "wt") as file:
        file.write("statement,label,label\nThe a is b,0,1\n")
    with pytest.raises(DataError, match="more than once"):
        load_data(str(tmp_path / "zip"))
    (tmp_path / "json").mkdir()
    (tmp_path / "json" / "train.json").write_text('[{"statement": "a", "label": ')
    with pytest.raises(DataError):
        load_data(str(tmp_path / "json"))
