"""A detector of the hub, fetched and pushed by its own client from an endpoint that speaks its protocol."""

import json
import os
import subprocess
import sys

import pytest

from adapterprobe.cli import main
from adapterprobe.detectors.bundle_record import read_record
from hub_endpoint import SHA, hub_endpoint
from reply_detectors import talk

CODE = """
import json, sys
import adapterprobe as ap
d = ap.Detector.load("me/lie", sys.argv[1], revision="v1", token="hf_of_the_test")
print(json.dumps(d.score(json.loads(sys.argv[2]))["score"].tolist()))
print(json.dumps(d.push_to_hub("me/again", token="hf_of_the_test")))
"""


def files_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def asked(tmp_path):
    """What a process of its own is told of the hub."""
    return os.environ | {
        "HF_HOME": str(tmp_path / "hf"), "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0", "ADAPTERPROBE_CACHE": str(tmp_path / "cache")
    }  # fmt: skip


def test_fetched_and_pushed(reply_detectors, tmp_path, asked):
    talks = json.dumps([talk(n, False) for n in range(3)])
    with hub_endpoint() as (hub, address):
        # What no bundle has is not fetched: code, pickles, files that lead elsewhere.
        hub.repositories["me/lie"] = files_of(reply_detectors / "on") | {"modeling.py": b"1/0", "probe.pkl": b"x"}
        done = subprocess.run(
            [sys.executable, "-c", CODE, str(reply_detectors / "chatty"), talks],
            env=asked | {"HF_ENDPOINT": address}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    first, commit = map(json.loads, done.stdout.splitlines()[-2:])
    assert commit == f"{address}/me/again/commit/{SHA}" and hub.private == {"me/again": True}
    # What names no repository the client asks without a token.
    assert {token for line, token in hub.tokens.items() if "/me/" in line} == {"Bearer hf_of_the_test"}
    fetched = {line.rpartition("/")[2] for line in hub.asked if "/resolve/" in line}
    assert {"detector.json", "adapter_model.safetensors"} <= fetched and not fetched & {"modeling.py", "probe.pkl"}
    assert any(line.endswith("/revision/v1") for line in hub.asked)
    # What was pushed is what was fetched, and gives the same scores.
    pushed = tmp_path / "pushed"
    for name, content in hub.repositories["me/again"].items():
        (pushed / name).parent.mkdir(parents=True, exist_ok=True)
        (pushed / name).write_bytes(content)
    assert read_record(pushed) == read_record(reply_detectors / "on")
    assert set(files_of(pushed)) == set(files_of(reply_detectors / "on"))
    from adapterprobe.detectors.detector import Detector

    again = Detector.load(pushed, str(reply_detectors / "chatty"))
    assert again.score(json.loads(talks))["score"].tolist() == pytest.approx(first, abs=1e-6)


def test_what_is_not_there(reply_detectors, tmp_path, asked):
    with hub_endpoint() as (_, address):
        done = subprocess.run(
            [sys.executable, "-c", "import sys; from adapterprobe.cli import main; sys.exit(main())", "calibrate", "me/none", str(reply_detectors / "chats.jsonl"), "--out", str(tmp_path / "o")],
            env=asked | {"HF_ENDPOINT": address}, capture_output=True, text=True, timeout=300,
        )  # fmt: skip
    assert done.returncode == 2
    assert "cannot fetch the detector 'me/none' from the hub" in done.stderr and "check its name" in done.stderr
    assert "Traceback" not in done.stderr and main(["calibrate", "a/b/c", "x.jsonl", "--out", str(tmp_path / "p")]) == 2
