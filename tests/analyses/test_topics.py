"""One topic left out: nothing of it is looked at, both polarities are judged, and negations make contrast pairs."""

import numpy as np
import pandas as pd
import pytest

from adapterprobe.cli import main
from adapterprobe.config import RunConfig
from adapterprobe.config_files import read_config
from adapterprobe.data.source import load_data
from adapterprobe.prompts.contrast_pairs import pair_numbers, polarities
from adapterprobe.prompts.questions import prepare_questions
from adapterprobe.prompts.run_prompts import prepare_prompts


def geometry(**data):
    return RunConfig.model_validate(
        {
            "read": {"what": "statement"},
            "data": {
                "train": ["capitals", "elements", "animals"],
                "ood": [],
                "negations": True,
                "max_groups": 60,
                "min_groups": 4,
                **data,
            },
        }
    )


@pytest.fixture(scope="module")
def prompts(tokenizer):
    config = geometry()
    return prepare_prompts(config, prepare_questions(config), tokenizer)[0]


def test_both_polarities_of_a_fact_stand_in_one_split(prompts):
    by_fact = {}
    for prompt in prompts:
        by_fact.setdefault((prompt.example.dataset, prompt.example.group), []).append(prompt)
    for mine in by_fact.values():
        assert len({p.split for p in mine}) == 1
        kinds = [(p.example.form, p.example.truth) for p in mine]
        assert all(kinds.count((form, truth)) >= 1 for form in ("bare", "bare_negated") for truth in (True, False))
    sample = {
        (p.example.form, p.example.truth): p.turn
        for p in prompts
        if p.example.group == "france" and p.example.dataset == "capitals"
    }
    if sample:
        assert sample["bare", True] == "Paris is the capital of France."
        assert sample["bare_negated", False] == "Paris is not the capital of France."


def test_what_says_and_what_denies_the_same_is_a_pair(prompts):
    numbers, signs = pair_numbers(prompts), polarities(prompts)
    assert (numbers >= 0).all()
    for number in np.unique(numbers):
        one, two = np.flatnonzero(numbers == number)
        assert signs[one] == -signs[two] and prompts[one].example.truth != prompts[two].example.truth
        assert prompts[one].example.texts["answer"] == prompts[two].example.texts["answer"]


def test_a_column_of_polarity(tmp_path):
    rows = [
        {"statement": f"The town of {name} is {'' if up else 'not '}in {land}.", "label": int((land == "France") == up), "polarity": 1 if up else -1, "town": name}
        for name in ("Lyon", "Nice", "Metz", "Brest") for up in (True, False) for land in ("France", "Peru")
    ]  # fmt: skip
    pd.DataFrame(rows).to_csv(tmp_path / "towns.csv", index=False)
    dataset = load_data(
        str(tmp_path / "towns.csv"), geometry().reading("towns.csv").model_copy(update={"group": "town"})
    )
    examples = dataset.examples(dataset.groups, "bare", 0)
    assert len(examples) == 16 and sum(e.form == "bare_negated" for e in examples) == 8
    assert all(("not" in e.texts["statement"]) == (e.form == "bare_negated") for e in examples)
    assert all(e.truth == (("France" in e.texts["statement"]) != ("not" in e.texts["statement"])) for e in examples)


def test_a_file_and_the_file_of_its_negations_are_one_topic(tmp_path, tokenizer):
    towns = [
        "Lyon",
        "Nice",
        "Metz",
        "Brest",
        "Dijon",
        "Lille",
        "Nancy",
        "Reims",
        "Tours",
        "Rouen",
        "Caen",
        "Pau",
        "Albi",
        "Gap",
        "Sens",
        "Laon",
        "Agen",
        "Auch",
        "Foix",
        "Mende",
    ]
    for name, word in (("towns.csv", "is in"), ("neg_towns.csv", "is not in")):
        pd.DataFrame(
            [
                {"statement": f"The town of {town} {word} {land}.", "label": int((land == "France") == ("not" not in word))}
                for town in towns for land in ("France", "Peru")
            ]
        ).to_csv(tmp_path / name, index=False)  # fmt: skip
    config = geometry(
        train=[str(tmp_path / "towns.csv"), str(tmp_path / "neg_towns.csv")], negations=False, min_groups=2
    )
    made = prepare_prompts(config, prepare_questions(config), tokenizer)[0]
    signs, numbers = polarities(made), pair_numbers(made)
    assert len(made) == 80 and (signs == -1).sum() == 40, "nothing is dropped as said twice"
    assert all((sign < 0) == ("not" in prompt.turn) for sign, prompt in zip(signs, made, strict=True))
    by_town = {}
    for prompt in made:
        by_town.setdefault(prompt.turn.split()[3], set()).add((prompt.split, prompt.example.group))
    assert all(len(places) == 1 for places in by_town.values()), "a town and its denial stand in one split"
    assert (numbers >= 0).all()
    for number in np.unique(numbers):
        one, two = np.flatnonzero(numbers == number)
        assert signs[one] == -signs[two] and made[one].example.truth != made[two].example.truth


def test_the_preset_on_a_tiny_model(tiny_folder, tmp_path, cache):
    argv = ["run", "geometry", "--model", str(tiny_folder), "--dtype", "fp32", "--out", str(tmp_path / "g")]
    for setting in (
        "data.train=[capitals,elements,animals]", "data.ood=[]", "data.max_groups=70", "data.min_groups=4", "adapter.layers=1-3",
        "adapter.epochs=1", "select.layers=1-2", "probes=[logistic,mass_mean,ttpd]", "evaluate.resamples=1000",
    ):  # fmt: skip
        argv += ["--set", setting]
    assert main(argv) == 0
    frame = pd.read_parquet(tmp_path / "g" / "predictions.parquet")
    assert (
        set(frame["axis"]) == {"truth", "claim"}
        and set(frame["read"]) == {"statement"}
        and set(frame["pool"]) == {"last"}
    )
    text = (tmp_path / "g" / "report.md").read_text()
    table = text.partition("## A topic left out: AUROC")[2].partition("##")[0]
    for topic in ("capitals", "elements", "animals", "average"):
        assert table.count(f"| {topic} ") == 3
    assert "ttpd" in table and "AUROC for truth" in text.split("\n\n")[1]


def test_the_preset_reads_statements():
    config = read_config("geometry")
    assert config.read.what == "statement" and config.data.negations and len(config.data.train) == 6
    with pytest.raises(ValueError, match="asks each question both ways, or denies each statement"):
        RunConfig.model_validate({"data": {"negations": True}, "read": {"what": "reply"}})
