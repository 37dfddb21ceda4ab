"""What `import adapterprobe as ap` gives, used as a script or notebook would."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

import adapterprobe as ap
from adapterprobe.config import RunConfig
from adapterprobe.config_files import with_changes
from adapterprobe.data import load_relation
from conftest import small_config, tiny


@pytest.fixture(scope="module")
def claims() -> pd.DataFrame:
    """Capitals as a table of a user's own, one claim a row."""
    relation = load_relation("capitals")
    rows = [
        {"claim": e.texts["statement"], "gold": int(e.truth), "country": e.group}
        for e in relation.examples(relation.groups[:60], "question", 0)
    ]
    return pd.DataFrame(rows)


def settings_of_a_small_run(**changes) -> RunConfig:
    return with_changes(small_config("unused"), {"model": {"name": None}, "seeds": [0], "data": {"ood": []}} | changes)


def test_every_public_name_is_there_and_documented():
    for name in ap.__all__:
        value = getattr(ap, name)
        assert name == "__version__" or (value.__doc__ or "").strip(), name
    assert set(ap.__all__) <= set(dir(ap))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has AdapterProbeError"):
        ap.nothing  # noqa: B018


def test_a_run_of_a_loaded_model_on_a_frame(tiny_folder, claims, cache, tmp_path):
    """Data in memory and a model that the user holds give what the same file and folder give, to the bit."""
    model = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    data = ap.Dataset.from_pandas(claims, text="claim", label="gold", group="country", name="mine")
    settings = settings_of_a_small_run(evaluate={"hypotheses": ["adapter+probe > base+probe on test"]})
    out = tmp_path / "memory"
    done = ap.run(settings, out, model=model, tokenizer=tokenizer, train=data, adapter={"rank": 2})
    assert RunConfig.model_validate(json.loads((out / "run.json").read_text())["config"]).adapter.rank == 2
    assert not model.training and not any(p.requires_grad for p in model.parameters())

    table = done.auroc(split="test")
    assert {"base", "adapter", "adapter+probe"} <= set(table["arm"]) and table["estimate"].between(0, 1).all()
    assert (table["low"] <= table["estimate"]).all() and set(table["dataset"]) == {"mine.parquet"}
    (verdict,) = done.verdicts
    assert verdict.supported == (verdict.verdict == "supported") and verdict.hypothesis.startswith("adapter+probe")
    assert verdict.hypothesis in str(verdict)
    assert done.report.path.is_file() and str(done.report).endswith("report.html")
    with pytest.raises(ap.AdapterProbeError, match="the run has no split 'ood'"):
        done.auroc(split="ood")

    # The same rows as a file, the same model by its folder.
    path = tmp_path / "mine.parquet"
    claims.rename(columns={"claim": "statement", "gold": "label"}).to_parquet(path)
    again = ap.run(
        settings,
        tmp_path / "file",
        model={"name": str(tiny_folder), "dtype": "fp32", "device": "cpu"},
        train=path,
        data={"read": {"group": "country"}},
        adapter={"rank": 2},
    )
    pd.testing.assert_frame_equal(done.predictions, again.predictions)

    # A second call returns at once; another model of the same name is refused.
    assert ap.run(settings, out, model=model, tokenizer=tokenizer, train=data, adapter={"rank": 2}).folder == out
    other = AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    with pytest.raises(ap.AdapterProbeError, match="of another model called"):
        ap.run(settings, out, model=other, tokenizer=tokenizer, train=data, adapter={"rank": 2})
    changed = ap.Dataset("mine", data.frame.assign(label=1 - data.frame["label"]))
    with pytest.raises(ap.AdapterProbeError, match="holds other rows than the data set 'mine'"):
        ap.run(settings, out, model=model, tokenizer=tokenizer, train=changed, adapter={"rank": 2})


def test_extract_and_train_adapter(tiny_folder, claims, cache, tmp_path):
    lm = ap.load_model(tiny_folder, dtype="fp32", device="cpu")
    data = ap.Dataset.from_list(list(claims["claim"]), list(claims["gold"]), list(claims["country"]), name="cities")
    off = ap.extract(data, tmp_path / "off", model=lm, layers="2-4", shots=0)
    table = pd.read_parquet(tmp_path / "off" / "prompts.parquet")
    assert off.layer(2).shape == (len(claims), lm.structure.width) and len(table) == len(claims)
    assert set(table["truth"]) == {True, False}

    settings = {
        "data": "capitals",
        "adapter": {"kind": "ia3", "objective": "lie", "layers": "last:2", "max_steps": 4, "early_stopping": False},
        "seed": 3,
        "evaluate": {"adapter_controls": False},
    }
    trained = ap.train_adapter(tmp_path / "adapter", model=lm, **settings)
    assert trained.about["kind"] == "ia3" and trained.about["objective"] == "lie"
    assert (trained.adapter / "adapter_config.json").is_file()
    on = ap.extract(data, tmp_path / "on", model=lm, adapter=trained.adapter, layers="2-4", shots=0)
    assert np.abs(on.layer(4) - off.layer(4)).max() > 0
    again = ap.extract(data, tmp_path / "off", model=lm, layers="2-4", shots=0)
    assert (again.layer(3) == off.layer(3)).all()
    other = ap.load_model(tiny_folder, dtype="fp32", device="cpu")
    with torch.no_grad():
        next(other.model.parameters()).add_(0.01)
    with pytest.raises(ap.AdapterProbeError, match="holds an adapter of another model"):
        ap.train_adapter(tmp_path / "adapter", model=other, **settings)
    with pytest.raises(ap.AdapterProbeError, match="dtype is for a model that is named"):
        ap.extract(data, tmp_path / "other", model=lm, dtype="bf16")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("of the user's own")
    with pytest.raises(ap.AdapterProbeError, match="is not empty and holds nothing that was made of data in memory"):
        ap.extract(data, tmp_path / "mine", model=lm, shots=0)
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["notes.txt"]


def test_screen_and_compare(tiny_folder, finished_run, cache, tmp_path):
    lm = ap.load_model(tiny_folder, dtype="fp32", device="cpu")
    done = ap.screen(tmp_path / "screen", models=lm, formats="plain", shots=[1, 2], facts=8)
    assert len(done.cells) == 2 and done.advice and (done.folder / "screen.html").is_file()
    copy = shutil.copytree(finished_run / "out", tmp_path / "copy")
    page = ap.compare([ap.Run(finished_run / "out"), copy], tmp_path / "both")
    assert page.path.is_file()
    with pytest.raises(ap.AdapterProbeError, match="at least two different runs"):
        ap.compare([finished_run / "out"], tmp_path / "one")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda f: ap.Dataset.from_pandas(f, text="clam", label="gold"), "has no column 'clam' .did you mean 'claim'"),
        (lambda f: ap.Dataset.from_pandas(f, text="claim"), "as statement rows it lacks label"),
        (lambda f: ap.Dataset.from_pandas(f.head(0), text="claim", label="gold"), "has no rows"),
        (lambda f: ap.Dataset.from_pandas(f, text="claim", label="gold", name="a b"), "letters, digits"),
        (lambda f: ap.Dataset.from_pandas([1, 2]), "expected a pandas data frame, got list"),
        (lambda f: ap.Dataset.from_pandas(f, columns={"querry": "claim"}), "no column is called 'querry' here"),
        (lambda f: ap.Dataset.from_list(["a", "b"], [True]), "expected lists of one length, got 2 texts, 1 labels"),
        (lambda f: ap.run(train=f, out="never"), "Dataset.from_pandas"),
        (
            lambda f: ap.run(train=[ap.Dataset.from_list(["a", "b"], [1, 0])] * 2, out="never"),
            "two data sets are called 'list'",
        ),
        (lambda f: ap.run(model=tiny("llama"), out="never"), "needs its tokenizer"),
        (lambda f: ap.run(model=17, out="never"), "expected a name, a folder, or a transformers model"),
        (lambda f: ap.run(tokenizer=print, out="never"), "belongs to a model that is loaded"),
        (lambda f: ap.load_model("x/y", tokenizer=print), "belongs to a model that is loaded"),
    ],
)
def test_bad_arguments_are_told_at_once(make, said, claims, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ap.AdapterProbeError, match=said):
        make(claims)
    assert not (tmp_path / "never").exists()


def test_rows_in_memory_meet_the_checks_of_files(tiny_folder, claims, cache, tmp_path):
    twisted = claims.assign(gold=[2, *claims["gold"][1:]])
    data = ap.Dataset.from_pandas(twisted, text="claim", label="gold", group="country", name="twisted")
    with pytest.raises(ap.AdapterProbeError, match="1 of its rows cannot be used.*'label' is '2', expected 1 or true"):
        ap.run(settings_of_a_small_run(), tmp_path / "out", model=str(tiny_folder), train=data)
