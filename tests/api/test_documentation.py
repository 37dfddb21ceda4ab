"""The snippets of README and docs/python.md, run as they stand on a tiny model."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapterprobe as ap
from adapterprobe.adapters.kinds import KINDS
from adapterprobe.data import load_relation, registered
from adapterprobe.probes import registry

ROOT = Path(__file__).parents[2]


@pytest.fixture
def names(tiny_folder, cache, tmp_path, monkeypatch):
    """What the snippets take for granted: a model, its tokenizer, and a frame of claims."""
    monkeypatch.chdir(tmp_path)
    relation = load_relation("languages")
    rows = [
        {"claim": e.texts["statement"], "is_true": e.truth, "city": e.group}
        for e in relation.examples(relation.groups[:150], "question", 0)
    ]
    yield {
        "model": AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32),
        "tokenizer": AutoTokenizer.from_pretrained(tiny_folder),
        "frame": pd.DataFrame(rows),
        "np": np,
    }
    registry._REGISTRY.pop("median", None)
    KINDS.pop("bottleneck", None)
    registered._makers.pop("cities_of_mine", None)


def snippets(page: str) -> str:
    return "\n".join(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text("utf-8"), re.S))


def test_the_page_on_python(names):
    exec(compile(snippets("docs/python.md"), "docs/python.md", "exec"), names)
    assert names["X"].shape == (len(names["labels"]), 32) and names["best"]["estimate"] > 0
    assert {"median"} <= set(ap.probes.available()) and "bottleneck" in KINDS
    assert "cities_of_mine" in registered.registered_names() and len(names["cells"]) == 2
    assert len(names["scores"]) == 2 and names["detector"].golden.level == "equal"


def test_the_readme(names, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    exec(compile(snippets("README.md"), "README.md", "exec"), names)
    assert opened and opened[0].startswith("file://") and opened[0].endswith("report.html")
