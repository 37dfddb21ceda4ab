"""Nothing that comes from a file runs code, and no folder given as data leads out of itself."""

import json
import os
import shutil

import pandas as pd
import pytest
import yaml

from adapterprobe.cli import main
from adapterprobe.config import ReadConfig
from adapterprobe.config_files import read_config, read_run_config
from adapterprobe.data import load_data
from adapterprobe.errors import ConfigError, DataError


def one_line(capsys) -> str:
    error = capsys.readouterr().err.strip()
    assert error.startswith("adapterprobe:") and "Traceback" not in error and len(error.splitlines()) == 1, error
    return error


@pytest.fixture
def model_with_code(tiny_folder, tmp_path):
    """A model folder whose Python leaves a trace where it is run."""
    folder, trace = tmp_path / "coded", tmp_path / "ran"
    shutil.copytree(tiny_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    config["auto_map"] = {
        "AutoConfig": "configuration_own.OwnConfig",
        "AutoModelForCausalLM": "modeling_own.OwnForCausalLM",
    }
    config["model_type"] = "own"
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "configuration_own.py").write_text(
        f"open({str(trace)!r}, 'w').write('ran')\n"
        "from transformers import LlamaConfig\nclass OwnConfig(LlamaConfig):\n    model_type = 'own'\n"
    )
    (folder / "modeling_own.py").write_text(
        "from transformers import LlamaForCausalLM\nfrom .configuration_own import OwnConfig\n"
        "class OwnForCausalLM(LlamaForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder, trace


def test_a_file_cannot_ask_for_code(model_with_code, tmp_path, cache, capsys, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, trace = model_with_code
    content = {"model": {"name": str(folder), "dtype": "fp32", "trust_remote_code": True}}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(content))
    for command in (["run"], ["train"], ["plan"]):
        argv = [*command, str(tmp_path / "c.yaml")] + (["--out", str(tmp_path / "o")] if command != ["plan"] else [])
        assert main(argv) == 2
        assert "--trust-remote-code" in one_line(capsys)
    assert main(["extract", "--model", str(folder), "--data", "capitals", "--out", str(tmp_path / "s")]) == 2
    one_line(capsys)
    assert not trace.exists()
    with pytest.raises(ConfigError, match="never taken from a file"):
        read_config(tmp_path / "c.yaml")
    config = read_config(tmp_path / "c.yaml", trust_remote_code=True)
    assert config.model.trust_remote_code and config.model.arguments()["trust_remote_code"]
    assert "trust_remote_code" not in config.model_dump()["model"], "no file that is written repeats the permission"


def test_a_foreign_run_folder_runs_nothing(finished_run, model_with_code, tmp_path, capsys, monkeypatch):
    """Its configuration asks for code, its record of hashes agrees with it: still nothing runs without the flag, and with the flag
    only code that is what the run was made with."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, trace = model_with_code
    out = tmp_path / "foreign"
    shutil.copytree(finished_run / "out", out)
    text = yaml.safe_load((out / "config.yaml").read_text())
    text["model"] |= {"name": str(folder), "trust_remote_code": True}
    (out / "config.yaml").write_text(yaml.safe_dump(text))
    mark = json.loads((out / "run.json").read_text())
    del mark["checksums"]
    (out / "run.json").write_text(json.dumps(mark))
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it?"}')
    assert main(["score", str(out), str(tmp_path / "p.jsonl")]) == 2
    one_line(capsys)
    assert not trace.exists()
    assert main(["score", str(out), str(tmp_path / "p.jsonl"), "--trust-remote-code"]) == 2
    assert "other code or settings" in one_line(capsys)
    assert not trace.exists(), "hashes are compared before anything is imported"
    config, _ = read_run_config(out)
    assert not config.model.trust_remote_code


def test_permission_runs_the_code(model_with_code, tmp_path, cache, capsys, monkeypatch):
    """The other side: given every time, the flag works."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder, trace = model_with_code
    argv = ["extract", "--model", str(folder), "--data", "capitals", "--limit", "2", "--dtype", "fp32"]
    assert main([*argv, "--trust-remote-code", "--out", str(tmp_path / "s")]) == 0, capsys.readouterr().err
    assert trace.exists()


@pytest.mark.parametrize(
    "named",
    [
        "../outside.csv",
        "/etc/hostname",
        "https://example.org/x.csv",
        "hf://datasets/a/b/x.csv",
        "sub/../../outside.csv",
    ],
)
def test_a_data_folder_stays_inside_itself(tmp_path, named, cache):
    folder = tmp_path / "set"
    folder.mkdir()
    rows = pd.DataFrame({"statement": [f"The {i} is blue" for i in range(20)], "label": [0, 1] * 10})
    rows.to_csv(tmp_path / "outside.csv", index=False)
    rows.to_csv(folder / "train.csv", index=False)
    for files in (named, [{"split": "train", "path": named}], {"train": [named]}):
        card = yaml.safe_dump({"configs": [{"config_name": "default", "data_files": files}]})
        (folder / "README.md").write_text(f"---\n{card}---\nA set.\n")
        with pytest.raises(DataError, match="outside the folder"):
            load_data(str(folder), ReadConfig())
    (folder / "README.md").unlink()
    assert len(load_data(str(folder), ReadConfig(split="train")).groups)
    os.symlink(tmp_path / "outside.csv", folder / "test.csv")
    with pytest.raises(DataError, match="leads out of the folder"):
        load_data(str(folder), ReadConfig(split="train"))


@pytest.mark.parametrize(
    "name", ["csv", "json", "parquet", "text", "arrow", "pandas", "xml", "webdataset", "imagefolder"]
)
def test_a_folder_called_like_a_reader_of_datasets(tmp_path, monkeypatch, name, cache):
    """`datasets` has readers of these names, which would look for files where we stand."""
    monkeypatch.chdir(tmp_path)
    pd.DataFrame({"statement": ["WRONG is blue", "WRONG is red"] * 10, "label": [0, 1] * 10}).to_csv(
        "train.csv", index=False
    )
    (tmp_path / name).mkdir()
    rows = pd.DataFrame({"statement": [f"The {w} is blue" for w in "abcdefghijklmnopqrst"], "label": [0, 1] * 10})
    rows.to_csv(tmp_path / name / "train.csv", index=False)
    for ref in (f"./{name}", name, str(tmp_path / name)):
        dataset = load_data(ref, ReadConfig(split="train"))
        assert not any("WRONG" in item.texts["statement"] for item in dataset.items) and dataset.items


def rows_file(path):
    rows = pd.DataFrame({"statement": [f"The {i} is blue" for i in range(20)], "label": [0, 1] * 10})
    rows.to_csv(path, index=False)
    return rows


@pytest.mark.parametrize("how", ["other card", "carriage returns", "dashes inside", "saved state", "saved splits"])
def test_other_ways_out_of_a_data_folder(how, tmp_path, cache):
    import datasets

    rows = rows_file(tmp_path / "outside.csv")
    folder = tmp_path / "set"
    folder.mkdir()
    card = "configs:\n- config_name: default\n  data_files: ../outside.csv\n"
    if how == "other card":
        (folder / ".huggingface.yaml").write_text(card)
    elif how == "carriage returns":
        (folder / "README.md").write_bytes(f"---\n{card}---\nA set.\n".replace("\n", "\r").encode())
    elif how == "dashes inside":
        (folder / "README.md").write_text(f"---\na: 1\n---b: 2\n{card}---\n")
    elif how == "saved splits":
        datasets.Dataset.from_pandas(rows).save_to_disk(str(tmp_path / "outsaved"))
        (folder / "dataset_dict.json").write_text('{"splits": ["../outsaved"]}')
    else:
        datasets.Dataset.from_pandas(rows).save_to_disk(str(tmp_path / "outsaved"))
        shutil.copytree(tmp_path / "outsaved", folder, dirs_exist_ok=True)
        state = json.loads((folder / "state.json").read_text())
        state["_data_files"] = [{"filename": f"../outsaved/{f['filename']}"} for f in state["_data_files"]]
        (folder / "state.json").write_text(json.dumps(state))
    with pytest.raises(DataError):
        load_data(str(folder))


def test_a_snapshot_of_the_hubs_cache_is_links(tmp_path, cache):
    blobs, snapshot = tmp_path / "repo" / "blobs", tmp_path / "repo" / "snapshots" / "abc"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    rows_file(blobs / "1234")
    (snapshot / "train.csv").symlink_to("../../blobs/1234")
    (snapshot / "gone.txt").symlink_to("../../blobs/nothing")
    assert len(load_data(str(snapshot)).items) == 20
