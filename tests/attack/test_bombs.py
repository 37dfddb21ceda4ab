"""Small inputs that would take all time or memory: one line, soon."""

import os
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from adapterprobe.adapters.adapter_folder import loaded
from adapterprobe.adapters.attach import attach
from adapterprobe.adapters.untrusted import check_patterns
from adapterprobe.cli import main
from adapterprobe.config import AdapterConfig
from adapterprobe.config_files import read_config
from adapterprobe.data import load_data
from adapterprobe.errors import ConfigError, DataError, ModelError
from adapterprobe.prompts.formats import render

SOON = 30
"""Seconds; all of these took minutes, or never came to an end."""


@pytest.fixture(autouse=True)
def soon():
    began = time.monotonic()
    yield
    assert time.monotonic() - began < SOON


def laughs(levels: int = 9, each: int = 9) -> str:
    lines = [f"a0: &a0 [{', '.join(['lol'] * each)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * each)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        laughs(),
        f"seeds: {laughs().splitlines()[0][4:]}\n{laughs()}",
        "a: &a [*a]",
        "[" * 20_000,
        "{a: " * 3000,
        "a: " + "9" * 5000,
        "- " * 5000,
    ],
    ids=["aliases", "aliases below a key", "itself", "brackets", "braces", "digits", "dashes"],
)
def test_yaml(tmp_path, text):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        read_config(tmp_path / "c.yaml")
    assert len(str(error.value)) < 2000


@pytest.mark.parametrize("kind", ["config", "system", "format", "neutral"])
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "large"])
def test_files_that_do_not_end(tmp_path, kind, what, capsys, tiny_folder, cache):
    suffix = {"config": ".yaml", "system": ".yaml", "format": ".jinja", "neutral": ".txt"}[kind]
    path = tmp_path / f"x{suffix}"
    if what == "pipe":
        os.mkfifo(path)
    elif what == "device":
        path.symlink_to("/dev/zero")
    elif what == "folder":
        path.mkdir()
    else:
        path.write_bytes(b"x" * (2 << 20) if kind != "neutral" else b"x" * (65 << 20))
    argv = {
        "config": ["run", str(path), "--out", str(tmp_path / "o")],
        "system": [
            "extract",
            "--data",
            "capitals",
            "--system",
            str(path),
            "--model",
            str(tiny_folder),
            "--out",
            str(tmp_path / "o"),
        ],
        "format": [
            "extract",
            "--data",
            "capitals",
            "--format",
            str(path),
            "--model",
            str(tiny_folder),
            "--out",
            str(tmp_path / "o"),
        ],
        "neutral": [
            "train",
            "--set",
            f"adapter.neutral_text={path}",
            "--model",
            str(tiny_folder),
            "--out",
            str(tmp_path / "o"),
        ],
    }[kind]
    assert main(argv) == 2
    error = capsys.readouterr().err.strip()
    assert len(error.splitlines()) == 1 and "cannot read" in error


@pytest.mark.parametrize(
    "source",
    [
        "{{ messages[0].content }}{{ 'a' * 10**11 }}",
        "{{ messages[0].content }}{% for i in range(99999) %}{% for j in range(99999) %}{% for k in range(99999) %}{% endfor %}{% endfor %}{% endfor %}",
        "{% macro m(x) %}{{ m(x) }}{% endmacro %}{{ messages[0].content }}{{ m(1) }}",
        "{{ messages[0].content }}{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
        "{{ messages[0].content }}{{ ('a'|list * 10**8)|join('b') }}",
        "{{ messages[0].content }}{% for i in range(90000) %}{{ messages[0].content * 100 }}{% endfor %}",
    ],
    ids=["repeated text", "loops", "macro", "brackets", "list", "long text"],
)
def test_jinja(tmp_path, source):
    (tmp_path / "f.jinja").write_text(source)
    with pytest.raises(ConfigError, match=r"takes more than|too much memory|too deeply|characters"):
        render(str(tmp_path / "f.jinja"), [], "Is it so?")


def test_a_chat_template_that_never_ends(tokenizer):
    import copy

    hostile = copy.deepcopy(tokenizer)
    hostile.chat_template = "{{ messages[0].content }}" + "{% for a in range(99999) %}" * 4 + "{% endfor %}" * 4
    with pytest.raises(ConfigError, match="takes more than"):
        render("chat", [], "Is it so?", hostile)
    # Another one goes on in a process of its own.
    fine = copy.deepcopy(tokenizer)
    fine.chat_template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}"
    assert render("chat", [], "Is it so?", fine) == "[user] Is it so?"


def test_patterns_that_backtrack(tiny_lm, tmp_path):
    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="2-3", rank=4), 0)
    wrapped.save_pretrained(tmp_path / "a")
    wrapped.unload()
    names = [name for name, _ in lm.model.named_modules()]
    bad = r"^(([a-z.0-9_])+)+$!"
    for settings in (
        {"target_modules": bad},
        {"exclude_modules": bad},
        {"rank_pattern": {bad: 4}},
        {"layers_pattern": [r"((a|[a-z.0-9_])+)+!"]},
    ):
        with pytest.raises(ModelError, match="takes more than"):
            check_patterns("it", settings, names)
    check_patterns("it", {"target_modules": r".*\.(q|v)_proj"}, names)
    with pytest.raises(ModelError, match="no regular expression"):
        check_patterns("it", {"target_modules": "(("}, names)


@pytest.mark.parametrize("settings", [{"r": 10**9}, {"rank_pattern": {"q_proj": 10**9}}])
def test_ranks_that_take_all_memory(tiny_lm, tmp_path, settings):
    import json

    lm = tiny_lm()
    wrapped = attach(lm.model, lm.structure, AdapterConfig(layers="2-3", rank=4), 0)
    wrapped.save_pretrained(tmp_path / "a")
    wrapped.unload()
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    with pytest.raises(ModelError, match="rank"), loaded(lm, tmp_path / "a"):
        pass
    assert not any("lora" in name for name, _ in lm.model.named_modules())
    assert isinstance(lm.model, torch.nn.Module)


def test_a_cell_of_400_megabytes(tmp_path):
    table = pa.table(
        {"statement": ["x" * 400_000_000, *[f"The {i} is blue" for i in range(40)]], "label": [1, *[0, 1] * 20]}
    )
    pq.write_table(table, tmp_path / "large.parquet")
    with pytest.raises(DataError, match="bytes a row"):
        load_data(str(tmp_path / "large.parquet"))


def test_one_large_cell_that_many_rows_share(tmp_path):
    """In the file it stands once; written out it would be gigabytes."""
    texts = ["x" * 5_000_000] * 600 + [f"The thing {i} is blue" for i in range(600)]
    pq.write_table(pa.table({"statement": texts, "label": [0, 1] * 600}), tmp_path / "d.parquet")
    with pytest.raises(DataError, match="600 of its rows cannot be used.*longer than 1,000,000 characters"):
        load_data(str(tmp_path / "d.parquet"))


def test_a_header_of_100000_columns(tmp_path):
    (tmp_path / "wide.csv").write_text(",".join(f"c{i}" for i in range(100_000)) + "\n")
    with pytest.raises(DataError, match="100000 columns"):
        load_data(str(tmp_path / "wide.csv"))
    (tmp_path / "wide.jsonl").write_text("{" + ",".join(f'"c{i}": 1' for i in range(100_000)) + "}\n")
    with pytest.raises(DataError, match="100000 columns"):
        load_data(str(tmp_path / "wide.jsonl"))
    (tmp_path / "names.csv").write_text(",".join(f"{'n' * 3000}{i}" for i in range(5000)) + "\n")
    with pytest.raises(DataError) as error:
        load_data(str(tmp_path / "names.csv"))
    assert len(str(error.value)) < 200_000


def test_the_whole_disk_as_data():
    with pytest.raises(DataError, match="more than 100,000 files"):
        load_data("/")
