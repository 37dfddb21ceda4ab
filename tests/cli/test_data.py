"""Your own data through every command, and the linter: each fault planted and found, and nothing found where nothing is."""

import json

import numpy as np
import pandas as pd
import pytest

from adapterprobe.checks import check
from adapterprobe.cli import main
from adapterprobe.config import ReadConfig
from adapterprobe.data import load_data, relation_names
from adapterprobe.data.duplicates import near_duplicates_of
from adapterprobe.data.examples import said
from adapterprobe.models.load import load_reader
from adapterprobe.prompts.dataset_prompts import DatasetSpec, prompts_and_belief
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts
from conftest import small_config

# Words that the tiny tokenizer can spell; every group has a true and a false claim, and nothing else tells them apart.
THINGS = [f"{one}{two}" for one in ("bar", "lom", "tev", "nu", "pid", "gor", "sal", "wex") for two in ("tan", "rel", "mok", "vis", "dun")] + [
    f"{one}{two}{three}" for one in ("ka", "mi", "ro", "zu") for two in ("la", "ne", "po", "si") for three in ("dra", "fel", "gum", "hob", "jix")
]  # fmt: skip
PLACES = ["in Oslo", "in Rome", "in Lima", "in Kyiv", "in Doha"]


def claims(n=120, seed=0):
    """Both versions of each claim, the place drawn without regard to which is true."""
    rng = np.random.default_rng(seed)
    rows = []
    for thing in THINGS[:n]:
        one, two = rng.choice(5, 2, replace=False)
        right = int(rng.integers(2))
        for k, where in enumerate((one, two)):
            rows.append({"statement": f"The {thing} is {PLACES[where]}.", "label": int(k == right), "thing": thing})
    return rows


def save(path, rows):
    pd.DataFrame(rows).to_csv(path, index=False)
    return str(path)


def found(path, read=None, against=(), reader=None, **spec):
    checked = check(DatasetSpec(path, read=read or ReadConfig(group="thing"), **spec), against, reader)
    return {finding.check: finding for finding in checked.findings}


def test_nothing_is_found_where_nothing_is(tmp_path, tiny_folder):
    assert found(save(tmp_path / "c.csv", claims()), reader=load_reader(str(tiny_folder)), shots=2) == {}


def test_contradictions_and_duplicates(tmp_path):
    rows = claims()
    rows += [rows[0] | {"label": 1 - rows[0]["label"]}, rows[6] | {"statement": rows[6]["statement"].upper()}]
    findings = found(save(tmp_path / "c.csv", rows))
    assert findings["contradictions"].severity == "blocks" and findings["contradictions"].rows == (
        f"line 2 = line {len(rows)}",
    )
    assert findings["duplicates"].severity == "warns" and findings["duplicates"].rows == (
        f"line 8 = line {len(rows) + 1}",
    )


def test_the_same_fact_in_two_groups_and_in_demonstrations(tmp_path):
    rows = [r | {"thing": f"{r['thing']}{i % 2}"} for i, r in enumerate(claims())]
    rows = [r | {"statement": r["statement"].replace(PLACES[0][3:], "Oslo")} for r in rows]
    twins = [r | {"thing": r["thing"] + "x", "statement": r["statement"].replace("The ", "That ")} for r in rows]
    findings = found(save(tmp_path / "c.csv", rows + twins))
    assert findings["same fact in two groups"].severity == "blocks"
    assert findings["demonstrations overlap tests"].severity in ("warns", "blocks")
    # Left to themselves near-duplicates form groups, and both are gone.
    findings = found(str(tmp_path / "c.csv"), ReadConfig())
    assert "same fact in two groups" not in findings and "demonstrations overlap tests" not in findings
    assert findings["near-duplicates"].severity == "notes"


def test_the_same_fact_in_another_data_set(tmp_path):
    rows = claims()
    one = save(tmp_path / "one.csv", rows[:160])
    two = save(tmp_path / "two.csv", [r | {"thing": "x" + r["thing"]} for r in rows[100:]])
    same = found(one, against=[two])["same fact in another data set"]
    assert same.severity == "warns" and len(same.rows) == 60 and "~ line 2 of two.csv" in same.rows[0]
    three = save(tmp_path / "three.csv", rows[100:])
    shared = found(one, against=[three])
    assert (
        shared["groups shared with another data set"].severity == "notes"
        and "same fact in another data set" not in shared
    )


@pytest.mark.parametrize(("keep", "severity"), [(1, "blocks"), (30, "warns")])
def test_imbalance(tmp_path, keep, severity):
    rows = claims()
    rare = [r for r in rows if r["label"] == 0][:keep]
    findings = found(save(tmp_path / "c.csv", [r for r in rows if r["label"] == 1] + rare))
    assert findings["class imbalance"].severity == severity
    assert findings["answer-token imbalance"].severity == severity


def test_shortcuts(tmp_path):
    rows = claims()
    long = [r | {"statement": r["statement"][:-1] + (", and so it stays." if r["label"] else ".")} for r in rows]
    findings = found(save(tmp_path / "long.csv", long))
    assert findings["truth told by length"].severity == findings["truth told by words"].severity == "blocks"
    assert "truth told by negation" not in findings
    negated = [r | {"statement": r["statement"].replace(" is ", " isn't " if r["label"] else " is ")} for r in rows]
    assert found(save(tmp_path / "neg.csv", negated))["truth told by negation"].severity == "blocks"
    always = [{"question": f"What is a {t}?", "choices": ["a fish", f"a {t}er"], "answer": 0} for t in THINGS[:60]]
    path = tmp_path / "q.jsonl"
    path.write_text("\n".join(map(json.dumps, always)))
    findings = found(str(path), ReadConfig())
    assert findings["truth told by the answer's words"].severity == "blocks" and "AUROC 1.00" in str(
        findings["truth told by the answer's words"]
    )


def test_tokens(tmp_path, tiny_folder):
    reader = load_reader(str(tiny_folder))
    rows = claims()
    long = [rows[0] | {"statement": "The " + "very " * 600 + rows[0]["statement"][4:]}, *rows[1:]]
    findings = found(save(tmp_path / "c.csv", long), reader=reader, shots=1, seed=1)
    finding = next(f for name, f in findings.items() if name.startswith("prompts beyond the context"))
    assert finding.severity == "blocks" and "takes 512" in finding.size
    quiz = [{"question": f"Which {t}?", "choices": [f"{t} xx", f"{t[:-1]}q"], "answer": 0} for t in THINGS[:80]]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, quiz)))
    findings = found(str(tmp_path / "q.jsonl"), ReadConfig(), reader=reader, shots=0)
    assert findings["choices begin alike (recall)"].severity == "notes"
    findings = found(str(tmp_path / "q.jsonl"), ReadConfig(), reader=reader, shots=0, form="recall")
    assert findings["choices begin alike (recall)"].severity == "blocks"


def test_unreadable_rows_are_findings(tmp_path):
    rows = [
        *claims(),
        {"statement": "", "label": 1, "thing": "x"},
        {"statement": "A is b.", "label": "perhaps", "thing": "y"},
    ]
    checked = check(DatasetSpec(save(tmp_path / "c.csv", rows), read=ReadConfig(group="thing")))
    unreadable = [f for f in checked.findings if f.check == "unreadable rows"]
    assert checked.blocked and {f.rows for f in unreadable} == {(f"line {len(rows)}",), (f"line {len(rows) + 1}",)}


def test_imbalance_is_told_of_what_was_read_not_of_what_was_kept(tmp_path):
    rows = [{"statement": f"word{i} thing{i} is so", "label": int(i % 20 > 0)} for i in range(2000)]
    findings = found(save(tmp_path / "c.csv", rows), ReadConfig(max_rows=150))
    assert findings["class imbalance"].severity == "blocks" and "95% of 2000" in findings["class imbalance"].size


def test_a_template_that_cannot_serve_is_refused(tmp_path, capsys):
    path = save(tmp_path / "c.csv", claims())
    assert main(["data", "check", path, "--group", "thing", "--no-model", "--template", "Is {nothing}?"]) == 2
    assert main(["data", "check", path, "--group", "thing", "--no-model", "--form", "choice"]) == 2
    assert "cannot be asked in the form 'choice'" in capsys.readouterr().err
    assert (
        main(["data", "check", path, "nope.csv", "--group", "thing", "--no-model", "--json", str(tmp_path / "f.json")])
        == 2
    )
    assert len(json.loads((tmp_path / "f.json").read_text())) == 1


def test_few_groups(tmp_path):
    assert found(save(tmp_path / "c.csv", claims(10)))["few groups"].severity == "blocks"
    assert found(save(tmp_path / "d.csv", claims(60)), shots=1)["few groups"].severity == "warns"


@pytest.mark.parametrize("name", relation_names())
def test_nothing_blocks_in_our_own_facts(name):
    checked = check(DatasetSpec(name))
    assert not checked.blocked, str(checked)


def test_the_command(tmp_path, tiny_folder, capsys):
    path = save(tmp_path / "c.csv", claims())
    base = ["data", "check", path, "--group", "thing", "--model", str(tiny_folder), "--shots", "2"]
    assert main([*base, "--json", str(tmp_path / "f.json")]) == 0
    assert "nothing found" in capsys.readouterr().out
    assert json.loads((tmp_path / "f.json").read_text()) == [
        {
            "data": "c.csv",
            "rows": 240 if len(THINGS) >= 120 else 2 * len(THINGS),
            "groups": len(THINGS),
            "blocked": False,
            "findings": [],
        }
    ]
    few = save(tmp_path / "few.csv", claims(10))
    assert main(["data", "check", path, few, "--group", "thing", "--no-model", "--against", "capitals"]) == 1
    out = capsys.readouterr().out
    assert "blocks few groups" in out and "-> " in out
    assert main(["data", "check"]) == 2 and "at least one data set" in capsys.readouterr().err
    assert main(["data", "check", "nope.csv"]) == 2
    assert main(["data", "check", path, "--column", "oops"]) == 2
    assert main(["data", "check", path, "--max-rows", "1"]) == 2
    err = capsys.readouterr().err
    assert "--column expects" in err and "--max-rows: Input should be greater" in err


def test_ones_own_file_in_show_extract_and_screen(tmp_path, tiny_folder, cache, capsys):
    path = save(
        tmp_path / "c.csv", [{"text": r["statement"], "y": r["label"], "thing": r["thing"]} for r in claims(40)]
    )
    options = ["--data", path, "--column", "statement=text", "--column", "label=y", "--group", "thing", "--shots", "2"]
    assert main(["data", "show", *options, "--model", str(tiny_folder), "--limit", "1"]) == 0
    assert "--- truth" in capsys.readouterr().out
    argv = ["extract", *options, "--model", str(tiny_folder), "--template", "Sure? {Statement}."]
    assert main([*argv, "--out", str(tmp_path / "e")]) == 0
    prompts = pd.read_parquet(tmp_path / "e" / "prompts.parquet")
    assert prompts["text"].str.contains("Sure\\? The ").all() and set(prompts["dataset"]) == {"c.csv"}
    capsys.readouterr()
    # The file's content is part of what an extraction is.
    save(
        tmp_path / "c.csv", [{"text": r["statement"], "y": r["label"], "thing": r["thing"]} for r in claims(40, seed=1)]
    )
    assert main([*argv, "--out", str(tmp_path / "e")]) == 2
    assert "another extraction" in capsys.readouterr().err
    screen = [
        "screen",
        *options,
        "--model",
        str(tiny_folder),
        "--format",
        "plain",
        "--facts",
        "10",
        "--out",
        str(tmp_path / "s"),
    ]
    assert main(screen) == 0
    (cell,) = json.loads((tmp_path / "s" / "screen.json").read_text())
    assert cell["n_groups"] == 10 and cell["n_recall_known_lie_acc"] == 0 and cell["error"] is None


def test_a_run_on_ones_own_files(tmp_path, tiny_folder, cache, capsys):
    """Claims to train on; claims of which some repeat training ones, and questions with answers, to be judged on."""
    rows = claims()
    train = save(tmp_path / "train.csv", rows)
    other = [
        {"statement": f"The {t}y is {PLACES[i % 5]}.", "label": i % 2, "thing": f"{t}y"}
        for i, t in enumerate(THINGS[:40])
    ]
    repeats = [r | {"thing": "again" + r["thing"]} for r in rows[:200]]
    ood = save(tmp_path / "ood.csv", other + repeats)
    quiz = [
        {"question": f"Where was the {t}ing?", "choices": ["Oslo", "Rome", "Lima"], "answer": i % 3, "thing": f"{t}ing"}
        for i, t in enumerate(THINGS[:40])
    ]
    (tmp_path / "quiz.jsonl").write_text("\n".join(map(json.dumps, quiz)))
    argv = [
        "run",
        "--model",
        str(tiny_folder),
        "--data",
        train,
        "--ood",
        ood,
        "--ood",
        str(tmp_path / "quiz.jsonl"),
        "--group",
        "thing",
    ]
    settings = {
        "elicit.shots": 2, "elicit.demo_sets": 1, "adapter.epochs": 1, "adapter.layers": "1-3", "adapter.rank": 2, "seeds": [0],
        "select.strengths": [0.1], "evaluate.resamples": 1000, "data.min_groups": 4, "model.dtype": "fp32",
    }  # fmt: skip
    argv += [part for key, value in settings.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0
    frame = pd.read_parquet(tmp_path / "out" / "predictions.parquet")
    assert set(frame["dataset"]) == {"train.csv", "ood.csv", "quiz.jsonl"}
    assert frame.loc[frame["dataset"] != "quiz.jsonl", "recall_known"].isna().all()
    assert frame.loc[frame["dataset"] == "quiz.jsonl", "recall_known"].notna().any()
    judged = frame[frame["dataset"] == "ood.csv"]
    about = json.loads((tmp_path / "out" / "about.json").read_text())
    assert about["dropped"]["ood.csv"]["groups that repeat a training question"] > 20
    fitted = {t for t in frame.loc[frame["split"] == "calibrate", "group"]}
    assert not fitted & {g.removeprefix("again") for g in judged["group"]}
    capsys.readouterr()
    assert main([*argv, "--out", str(tmp_path / "out")]) == 0 and "is finished" in capsys.readouterr().err
    save(tmp_path / "train.csv", claims(seed=5))
    assert main([*argv, "--out", str(tmp_path / "out")]) == 2 and "has changed since" in capsys.readouterr().err


def test_two_files_of_one_name(tmp_path, capsys):
    (tmp_path / "a").mkdir()
    one, two = save(tmp_path / "a" / "c.csv", claims()), save(tmp_path / "c.csv", claims())
    assert main(["run", "--data", one, "--ood", two, "--group", "thing", "--out", str(tmp_path / "o")]) == 2
    assert "two data sets are called 'c.csv'" in capsys.readouterr().err


def test_belief_of_claims_is_asked_both_ways_round(tmp_path, tokenizer):
    """Groups with one kind of claim: who always says yes would be right on half of them, so they are asked negated too."""
    rows = [r for i, r in enumerate(claims()) if r["label"] == i % 4 // 2]
    dataset = load_data(save(tmp_path / "c.csv", rows), ReadConfig(group="thing"))
    assert set(dataset.label_sides().values()) == {"true", "false"}
    spec = DatasetSpec(str(tmp_path / "c.csv"), shots=2, facts=20, read=ReadConfig(group="thing"))
    prompts, belief = prompts_and_belief(spec, tokenizer, 3)
    assert len(belief.known) == 3 and belief.recalled == []
    for asked in belief.known:
        right = {}
        for prompt in asked:
            right.setdefault(prompt.example.group, []).append(prompt.example.truth)
        assert set(right) == {p.example.group for p in prompts} and all(
            sorted(t) == [False, True] for t in right.values()
        )


def test_recall_is_open_where_there_is_one_wrong_answer(tmp_path, tokenizer):
    """Yes or No: who always says Yes would recall half of the questions."""
    rows = [{"question": f"Is {t} so?", "choices": ["Yes", "No"], "answer": i % 2} for i, t in enumerate(THINGS[:60])]
    (tmp_path / "q.jsonl").write_text("\n".join(map(json.dumps, rows)))
    _, belief = prompts_and_belief(DatasetSpec(str(tmp_path / "q.jsonl"), shots=1, facts=20), tokenizer, 3)
    assert len(belief.known) == 3 and not any(belief.recalled)


@pytest.mark.parametrize("name", ["capitals", "continents"])
def test_recall_prompts_are_all_different(name, tokenizer):
    _, belief = prompts_and_belief(DatasetSpec(name, shots=2, facts=30), tokenizer, 3)
    asked = {}
    for here in belief.recalled:
        for p in here:
            asked.setdefault(p.example.group, []).append((p.text, p.negative))
    assert len(asked) > 15 and all(len(ways) == len(set(ways)) == 6 for ways in asked.values())


def test_two_training_sets_that_say_the_same_do_not_leak(tmp_path, tokenizer):
    rows = claims()
    one = save(tmp_path / "one.csv", rows)
    two = save(tmp_path / "two.csv", [r | {"thing": "x" + r["thing"], "statement": r["statement"].replace("The ", "That ")} for r in rows[:120]]
               + [{"statement": f"A {t}ish one is {PLACES[i % 5]}.", "label": i % 2, "thing": f"{t}ish"} for i, t in enumerate(THINGS[:40])])  # fmt: skip
    config = small_config(
        "x", data={"train": [one, two], "ood": [], "read": {"group": "thing"}, "min_groups": 3, "max_groups": None}
    )
    questions = prepare_questions(config)
    assert questions.dropped["two.csv"]["groups that repeat a training question"] >= 55
    trained = [
        said(e) for split, examples in questions.examples.items() if split not in ("test", "ood") for e in examples
    ]
    assert not near_duplicates_of([said(e) for e in questions.examples["test"]], trained)
    prepare_prompts(config, questions, tokenizer)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_several_training_relations_have_demonstrations_of_their_own(seed, tokenizer):
    config = small_config(
        "x",
        data={
            "train": ["capitals", "elements"],
            "ood": ["animals"],
            "data_seed": seed,
            "max_ood_groups": 10,
            "max_groups": None,
        },
    )
    questions = prepare_questions(config)
    prompts, _ = prepare_prompts(config, questions, tokenizer)
    assert {p.example.dataset for p in prompts if p.split == "test"} == {"capitals", "elements"}
    shown = {g for p in prompts for g in p.demo_groups}
    assert not shown & {p.example.group for p in prompts}


def test_recall_beats_another_wrong_answer_each_time(tokenizer):
    _, belief = prompts_and_belief(DatasetSpec("capitals", shots=2, facts=15), tokenizer, 3)
    assert len(belief.recalled) == 6
    wrong = {}
    for asked in belief.recalled:
        assert all(p.example.truth and p.example.form == "recall" for p in asked)
        for prompt in asked:
            assert prompt.positive in prompt.example.texts["answer"] and prompt.positive != prompt.negative
            wrong.setdefault(prompt.example.group, []).append(prompt.negative)
    assert np.mean([len(set(names)) for names in wrong.values()]) > 4


def test_words_that_both_choices_begin_with_stand_in_the_prompt(tokenizer):
    _, belief = prompts_and_belief(DatasetSpec("body", shots=1, facts=15), tokenizer, 3)
    shared = [p for asked in belief.recalled for p in asked if p.text.endswith(" the")]
    assert shared and all(not p.positive.startswith("the ") and not p.negative.startswith("the ") for p in shared)
