"""A run on conversations of a tiny model, and detectors that are packed of it."""

import json

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from adapterprobe.cli import main

TEMPLATE = "{% for m in messages %}<{{ m.role }}>{{ m.content }}<eos>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
PLACES = ["Peru", "Chad", "Oman", "Fiji", "Mali", "Cuba", "Laos"]


def talk(number, lie):
    place = PLACES[(number + 3 * lie) % len(PLACES)]
    return [
        {"role": "user", "content": f"In which land is town {number}?"},
        {"role": "assistant", "content": f"Town {number} is in {place}, as every map shows."},
    ]


@pytest.fixture(scope="session")
def reply_detectors(tiny_folder, tmp_path_factory):
    """A folder with detectors of replies (`on`, `off`, `tokens`, `own`) and the model that they read (`chatty`)."""
    base = tmp_path_factory.mktemp("reply-detectors")
    AutoModelForCausalLM.from_pretrained(tiny_folder).save_pretrained(base / "chatty")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(base / "chatty")
    rows = [{"messages": talk(n, lie), "deceptive": lie, "group": str(n)} for n in range(40) for lie in (False, True)]
    (base / "chats.jsonl").write_text("\n".join(map(json.dumps, rows)))
    argv = [
        "run",
        "--data",
        str(base / "chats.jsonl"),
        "--model",
        str(base / "chatty"),
        "--dtype",
        "fp32",
        "--out",
        str(base / "out"),
    ]
    for setting in (
        "adapter.layers=1-3", "adapter.epochs=1", "adapter.rank=4", "seeds=[0]", "probes=[logistic,token_logistic]", "select.strengths=[0.01]",
        "select.curve=[]", "evaluate.resamples=1000", "data.min_groups=4", "evaluate.adapter_controls=false", "evaluate.shifts=[]",
        "evaluate.directions=false",
    ):  # fmt: skip
        argv += ["--set", setting]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ADAPTERPROBE_CACHE", str(base / "cache"))
        assert main(argv) == 0
        for name, arm, probe in (
            ("on", "adapter+probe", "logistic"),
            ("tokens", "base+probe", "token_logistic"),
            ("own", "base", None),
            ("off", "base+probe", "logistic"),
        ):
            probed = ["--probe", probe] if probe else []
            assert main(["pack", str(base / "out"), "--arm", arm, *probed, "--out", str(base / name)]) == 0
    return base
