"""Repositories of the hub as local folders in the hub's own layout. Columns and label values are those of the real ones."""

from pathlib import Path

import pandas as pd
import yaml

from adapterprobe.data import hub_table

NOUNS = [
    "otter",
    "violin",
    "glacier",
    "tram",
    "walnut",
    "comet",
    "harbour",
    "pepper",
    "lantern",
    "meadow",
    "copper",
    "kite",
]


def entailment(i, noun):
    return f"The {noun} crossed the {NOUNS[i - 1]}.", f"The {noun} moved." if i % 2 else f"The {noun} slept."


def choices(i, noun, letters):
    texts = [f"{noun} wood", f"{noun} iron", f"{noun} clay"]
    return {"text": texts, "label": letters}, letters[i % 3], texts[i % 3]


# Per data set: its files in the repository, a row, and what its right answer is. Columns and label values are those of the
# real repositories; the texts are ours.
LAYOUT = {
    "boolq": ("data/train-00000-of-00001.parquet", lambda i, n: (
        {"question": f"can a {n} be red", "answer": bool(i % 2), "passage": f"All about the {n}."}, "Yes" if i % 2 else "No")),
    "sciq": ("data/train-00000-of-00001.parquet", lambda i, n: (
        {"question": f"What holds a {n}?", "distractor3": "c", "distractor1": "a", "distractor2": "b",
         "correct_answer": f"{n} glue", "support": ""}, f"{n} glue")),
    "rte": ("rte/train-00000-of-00001.parquet", lambda i, n: (
        dict(zip(("sentence1", "sentence2"), entailment(i, n), strict=True)) | {"label": 1 - i % 2, "idx": i}, "Yes" if i % 2 else "No")),
    "axg": ("axg/test-00000-of-00001.parquet", lambda i, n: (
        dict(zip(("premise", "hypothesis"), entailment(i, n), strict=True)) | {"idx": i, "label": 1 - i % 2}, "Yes" if i % 2 else "No")),
    "hans": ("plain_text/validation/0000.parquet", lambda i, n: (
        dict(zip(("premise", "hypothesis"), entailment(i, n), strict=True)) | {
            "label": 1 - i % 2, "parse_premise": "(", "parse_hypothesis": "(", "binary_parse_premise": "(",
            "binary_parse_hypothesis": "(", "heuristic": "lexical_overlap", "subcase": "x", "template": "t"},
        "Yes" if i % 2 else "No")),
    "qnli": ("qnli/train-00000-of-00001.parquet", lambda i, n: (
        {"question": f"Who saw the {n}?", "sentence": f"Ann saw the {n}." if i % 2 else f"The {n} was old.",
         "label": 1 - i % 2, "idx": i}, "Yes" if i % 2 else "No")),
    "sst2": ("data/train-00000-of-00001.parquet", lambda i, n: (
        {"idx": i, "sentence": f"a {n} of a film", "label": i % 2}, "Positive" if i % 2 else "Negative")),
    "imdb": ("plain_text/train-00000-of-00001.parquet", lambda i, n: (
        {"text": f"A {n} of a film.<br />Really.", "label": i % 2}, "Positive" if i % 2 else "Negative")),
    "amazon_polarity": ("amazon_polarity/train-00000-of-00004.parquet", lambda i, n: (
        {"label": i % 2, "title": f"My {n}", "content": f"This {n} works."}, "Positive" if i % 2 else "Negative")),
    "truthful_qa": ("multiple_choice/validation-00000-of-00001.parquet", lambda i, n: (
        {"question": f"What happens to a {n} at night?",
         "mc1_targets": {"choices": ["Nothing", f"The {n} sings"], "labels": [1, 0]},
         "mc2_targets": {"choices": ["Nothing", "Not much", f"The {n} sings"], "labels": [1, 1, 0]}}, "Nothing")),
    "commonsense_qa": ("data/train-00000-of-00001.parquet", lambda i, n: (
        {"id": str(i), "question": f"Where is a {n}?", "question_concept": n,
         "choices": dict(reversed(choices(i, n, ["A", "B", "C"])[0].items())),
         "answerKey": choices(i, n, ["A", "B", "C"])[1]}, choices(i, n, ["A", "B", "C"])[2])),
    "arc": ("ARC-Challenge/train-00000-of-00001.parquet", lambda i, n: (
        {"id": str(i), "question": f"What is a {n} made of?", "choices": choices(i, n, ["1", "2", "3"])[0],
         "answerKey": choices(i, n, ["1", "2", "3"])[1]}, choices(i, n, ["1", "2", "3"])[2])),
}  # fmt: skip


def repository(root: Path, name: str, rows: list[dict]) -> Path:
    """A folder as `huggingface_hub` downloads it: data files and a card that says which belong to what."""
    entry, (file, _) = hub_table()[name], LAYOUT[name]
    folder = root / entry.hub
    (folder / file).parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_parquet(folder / file)
    split = Path(file).name.split("-")[0] if "-0" in file else Path(file).parent.name
    if name != "hans":  # the branch of converted files has no card
        pattern = file.replace("-00000-of-00001", "-*").replace("-00000-of-00004", "-*")
        config = {"config_name": entry.config or "default", "data_files": [{"split": split, "path": pattern}]}
        other = {"config_name": "another", "data_files": [{"split": split, "path": pattern}]}
        card = {"configs": [other, config] if entry.config else [config]}
        (folder / "README.md").write_text(f"---\n{yaml.safe_dump(card)}---\n# {name}\n")
    return root


def rows_of(name: str) -> list[tuple[dict, str]]:
    return [LAYOUT[name][1](i, noun) for i, noun in enumerate(NOUNS)]
