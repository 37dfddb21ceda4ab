"""What used to end in a traceback, or in silence, is one clear line."""

import json
import os
import shutil

import numpy as np
import pytest
from safetensors.numpy import save_file

from adapterprobe.cli import main
from adapterprobe.config_files import read_config
from adapterprobe.data import load_data
from adapterprobe.errors import CacheError, ConfigError, DataError
from adapterprobe.probes import load_probe, make, save_probe
from adapterprobe.safe_yaml import parse_yaml


def one_line(capsys, *words) -> str:
    error = capsys.readouterr().err.strip().splitlines()
    assert error and error[-1].startswith("adapterprobe:") and not any("Traceback" in line for line in error), error
    assert all(word in error[-1] for word in words), error[-1]
    return error[-1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("adapter: {rank: 4}\nadapter: {alpha: 3}\n", ["line 2", "'adapter' stands there twice", "line 1"]),
        ("adapter: {rank: 4, rank: 5}\n", ["line 1", "'rank' stands there twice"]),
        ("seeds: [0]\ndata: {ood: []}\nseeds: [1]\n", ["line 3"]),
        ("[]", ["expected keys and values"]),
        ("0", ["expected keys and values"]),
        ("", ["expected keys and values", "adapterprobe run demo"]),
        ("# nothing\n", ["expected keys and values"]),
        ("--- \n...\n", ["expected keys and values"]),
        ("1: 2\n", ["expected names as keys"]),
        (
            "adapter: {rnak: 3}\nselect: {folds: 1}\ndata: {form: x}\n",
            ["adapter.rank", "one fold leaves nothing", "data.form"],
        ),
        ("seeds: [" + "9" * 4000 + "]", []),
        ("name: !!python/object/apply:os.system [true]", ["could not determine a constructor"]),
        ("name: \x01", []),
    ],
)
def test_configurations(tmp_path, capsys, text, words):
    (tmp_path / "c.yaml").write_text(text)
    assert main(["run", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "o")]) == 2
    one_line(capsys, *words)
    assert not (tmp_path / "o").exists()


def test_no_name_is_no_demo(tmp_path, capsys):
    assert main(["run", "", "--out", str(tmp_path / "o")]) == 2
    one_line(capsys, "has no name")
    assert read_config(None).name == read_config("demo").name


@pytest.mark.parametrize("text", ["1e-1", "1E5", "1e+3", "-2.5e-3", ".5e2", "3e0", "1.e-2"])
def test_numbers_as_people_write_them(text, tmp_path):
    """Also inside `options` and `params`, where they were texts."""
    assert parse_yaml(f"[{text}, '{text}']") == [float(text), text]
    (tmp_path / "c.yaml").write_text(
        f"adapter: {{options: {{x: {text}}}}}\nprobes: [logistic, {{probe: mlp, params: {{alpha: {text}}}}}]\n"
    )
    config = read_config(tmp_path / "c.yaml", [f"select.strengths=[{text.lstrip('-')}]"])
    assert config.adapter.options["x"] == float(text) == config.probes[1].params["alpha"]
    assert config.select.strengths == [abs(float(text))]


@pytest.mark.parametrize("word", ["1e", "e5", "1e-", "0x1e5g", "v1e-3", "1-e3"])
def test_words_that_only_look_like_numbers(word):
    assert parse_yaml(word) == word


def question(**changes) -> str:
    row = {"question": "Which?", "choices": ["a", "b"], "answer": 0} | changes
    return json.dumps(row)


@pytest.mark.parametrize(
    "row",
    [
        question(answer="9" * 5000),
        question(answer="٣"),
        question(choices=[int("9" * 400), 1]),
        '{"question": "Which?", "choices": [1' + "0" * 400 + ', 2], "answer": 0}',
        '{"question": "Which?", "choices": ["a", "b"], "answer": 1' + "0" * 4000 + "}",
        '{"question": "Which?", "choices": [1e400, 2], "answer": 0}',
        question(question="\ud800"),
        question(choices="[" * 5000),
        '{"question": "a", "question": "b", "choices": ["a", "b"], "answer": 0}',
        "[" * 100_000,
        '{"a":' * 10_000,
    ],
)
def test_rows(tmp_path, row):
    good = "\n".join(question(question=f"Which of {i}?") for i in range(30))
    (tmp_path / "q.jsonl").write_text(f"{good}\n{row}\n", "utf-8", errors="surrogatepass")
    with pytest.raises(DataError, match="line 31"):
        load_data(str(tmp_path / "q.jsonl"))


def test_a_key_that_stands_twice_in_json_lines(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"statement": "a", "label": 1}\n{"statement": "b", "label": 0, "label": 1}\n')
    with pytest.raises(DataError, match="line 2: says something twice .*'label'"):
        load_data(str(tmp_path / "x.jsonl"))


@pytest.fixture
def saved(tmp_path):
    rng = np.random.default_rng(0)
    probe = make("logistic").fit(rng.normal(size=(40, 4)), np.tile([0, 1], 20))
    save_probe(tmp_path / "p", probe, layer=1)
    return tmp_path / "p"


@pytest.mark.parametrize(
    "change",
    [
        lambda c: [1, 2],
        lambda c: "text",
        lambda c: c | {"params": "text"},
        lambda c: c | {"params": {"nosuch": 1}},
        lambda c: c | {"probe": 3},
        lambda c: c | {"probe": "nosuch"},
        lambda c: c | {"scalars": []},
        lambda c: c | {"scalars": {"__class__": 1}},
        lambda c: c | {"scalars": {"_fit": 1}},
        lambda c: c | {"tables": {"a": 1}},
        lambda c: c | {"tables": ["__dict__"]},
        lambda c: c | {"sha256": None},
        lambda c: c | {"about": None},
        lambda c: {},
    ],
)
def test_probe_files(saved, change):
    path = saved.with_name("p.json")
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(CacheError):
        load_probe(saved)


@pytest.mark.parametrize("how", ["no layer", "no weights", "another width"])
def test_probes_of_a_run_that_cannot_score(finished_run, tmp_path, cache, capsys, how):
    out = tmp_path / "o"
    shutil.copytree(finished_run / "out", out)
    mark = json.loads((out / "run.json").read_text())
    del mark["checksums"]
    (out / "run.json").write_text(json.dumps(mark))
    for path in (out / "probes").glob("*.json"):
        content = json.loads(path.read_text())
        if how == "no layer":
            content["about"].pop("layer")
        elif how == "another width":
            content["scalars"]["n_features_in_"] = 10**9
        else:
            from adapterprobe.cache import file_digest

            save_file({"nothing_": np.zeros(1)}, path.with_suffix(".safetensors"))
            content |= {"sha256": file_digest(path.with_suffix(".safetensors")), "scalars": {"classes_": 1}}
        path.write_text(json.dumps(content))
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it?"}')
    assert main(["score", str(out), str(tmp_path / "p.jsonl")]) == 2
    one_line(capsys, "probe")


def test_surrogates_in_an_adapters_settings(finished_run, tmp_path):
    from adapterprobe.adapters.adapter_folder import adapter_digest

    shutil.copytree(finished_run / "out" / "adapter", tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"task_type": "\ud800"}))
    assert adapter_digest(tmp_path / "a") != adapter_digest(finished_run / "out" / "adapter")


def test_probe_tensors_cannot_replace_methods(saved):
    path = saved.with_name("p.safetensors")
    save_file({"predict_proba": np.zeros(3)}, path)
    from adapterprobe.cache import file_digest

    about = saved.with_name("p.json")
    about.write_text(json.dumps(json.loads(about.read_text()) | {"sha256": file_digest(path)}))
    with pytest.raises(CacheError, match="no fitted value"):
        load_probe(saved)


@pytest.mark.parametrize("name", ["adapter_model.safetensors", "adapter_config.json"])
@pytest.mark.parametrize("what", ["folder", "nothing", "empty", "noise", "list"])
def test_adapter_folders(finished_run, tiny_folder, tmp_path, cache, capsys, name, what):
    folder = tmp_path / "a"
    shutil.copytree(finished_run / "out" / "adapter", folder)
    (folder / "made_for.json").unlink()
    (folder / name).unlink()
    if what == "folder":
        (folder / name).mkdir()
    elif what != "nothing":
        (folder / name).write_bytes({"empty": b"", "noise": b"\xff\x00" * 99, "list": b"[1]"}[what])
    argv = [
        "extract",
        "--model",
        str(tiny_folder),
        "--data",
        "capitals",
        "--limit",
        "2",
        "--dtype",
        "fp32",
        "--adapter",
        str(folder),
    ]
    assert main([*argv, "--out", str(tmp_path / "s")]) == 2
    one_line(capsys)
    assert main(["merge", str(folder), "--model", str(tiny_folder), "--out", str(tmp_path / "m")]) == 2
    one_line(capsys)


@pytest.mark.parametrize(
    "name",
    [
        "predictions.parquet",
        "results.json",
        "prompts.parquet",
        "config.yaml",
        "run.json",
        "about.json",
        "verdicts.json",
    ],
)
@pytest.mark.parametrize(
    "content", [b"", b"[1]", b"{}", b"PAR1" + b"\x00" * 50 + b"PAR1", b"\xff\xfe", b"null", b'{"a": {"b": []}}']
)
def test_run_folders(finished_run, tmp_path, cache, capsys, name, content):
    """Damaged files under `score` and `report`, with the seal taken off so that each is really read."""
    out = tmp_path / "o"
    shutil.copytree(finished_run / "out", out)
    mark = json.loads((out / "run.json").read_text())
    del mark["checksums"]
    (out / "run.json").write_text(json.dumps(mark))
    (out / name).write_bytes(content)
    (tmp_path / "p.jsonl").write_text('{"prompt": "Is it?"}')
    if name not in ("about.json", "verdicts.json"):
        assert main(["score", str(out), str(tmp_path / "p.jsonl")]) == 2
        one_line(capsys)
    if name in ("results.json", "verdicts.json") and content != b"[1]":
        return
    # What a report computes anew may be damaged.
    status = main(["report", str(out)])
    assert status == 2 or name in ("results.json", "verdicts.json")
    if status == 2:
        one_line(capsys)


@pytest.mark.parametrize(
    "path",
    ["a\x00b", "~nosuchuser_x/y", "x" * 300, "\udcff.csv", "/", ".", "", " ", "/dev/null/x", "/proc/self/mem"],
)
def test_paths(path, tmp_path, cache, capsys, tiny_folder, finished_run):
    """As data, model, adapter, run, configuration, output and JSON file, in every command that takes one."""
    out = str(tmp_path / "o")
    model = ["--model", str(tiny_folder)]
    for argv in (
        ["extract", "--data", path, *model, "--out", out],
        ["extract", "--data", "capitals", "--model", path or ".", "--out", out],
        ["extract", "--data", "capitals", *model, "--adapter", path or ".", "--out", out],
        ["run", path, "--out", out],
        ["score", path, "x.jsonl"],
        ["score", str(finished_run / "out"), path],
        ["merge", path, "--out", out],
        ["report", path],
        ["compare", path, path + "x"],
        ["data", "check", path, "--no-model"],
        ["extract", "--data", "capitals", *model, "--format", f"{path}.jinja", "--out", out],
    ):
        try:
            status = main(argv)
        except SystemExit as stop:
            status = stop.code
        shown = capsys.readouterr().err
        assert status == 2 and "Traceback" not in shown, (argv, shown)
        assert len([line for line in shown.splitlines() if line.startswith("adapterprobe:")]) == 1, (argv, shown)


@pytest.mark.parametrize("path", [".", "/", "", "a\x00b", "x" * 300, "none/such/f.json"])
def test_json_of_findings(path, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status = main(["data", "check", "units", "--no-model", "--json", path])
    if path:
        assert status == 2
        one_line(capsys)
    assert not [name for name in os.listdir(tmp_path) if name.endswith(".part")]


def test_all_contradictions_at_once_and_a_way_to_leave_them_out(tmp_path, cache, capsys):
    for name, city in (("one", "Lyon"), ("two", "Oslo")):
        rows = [
            {"statement": f"The city {city} is large", "label": 1},
            {"statement": f"the city {city} is large.", "label": 0},
        ]
        rows += [
            {"statement": f"The {name} town {w}{k} is {c}", "label": int(c == "blue")}
            for k in range(40)
            for w, c in (("x", "blue"), ("x", "red"))
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = ["--data", str(tmp_path / "one.jsonl"), "--data", str(tmp_path / "two.jsonl"), "--ood", "none"]
    assert main(["plan", *data]) == 2
    error = one_line(capsys, "one.jsonl", "two.jsonl", "--drop-contradictions")
    assert error.count("lines 1, 2") == 2
    from adapterprobe.config import ReadConfig

    kept = load_data(str(tmp_path / "one.jsonl"), ReadConfig(contradictions="drop"))
    assert kept.dropped["contradictions"] == 2 and not any("Lyon" in i.texts["statement"] for i in kept.items)


def test_an_estimator_without_defaults_does_not_break_the_error(capsys):
    with pytest.raises(ConfigError, match="its parameters are .*estimator"):
        make("VotingClassifier", nosuch=1)
    with pytest.raises(ConfigError, match="its parameters are .*C"):
        make("logistic", nosuch=1)


def test_check_reads_the_tokenizer_alone(cache, monkeypatch, capsys):
    """Nothing is converted for `data check` on a new machine."""
    from transformers import AutoModelForCausalLM

    def refuse(*args, **kwargs):
        raise AssertionError("the weights are not wanted")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", refuse)
    assert main(["data", "check", "units"]) in (0, 1)
    assert not (cache / "models").exists() and list((cache / "tokenizers").glob("*/tokenizer.json"))


@pytest.mark.real
def test_the_part_that_is_read_is_that_of_the_model(cache):
    from adapterprobe.models import load_model
    from adapterprobe.models.load import load_reader

    reader, lm = load_reader(), load_model(dtype="fp32")
    assert reader.tokenizer.backend_tokenizer.to_str() == lm.tokenizer.backend_tokenizer.to_str()
    assert reader.tokenizer.chat_template == lm.tokenizer.chat_template
    assert (reader.context_length, reader.vocabulary) == (lm.context_length, lm.vocabulary)
