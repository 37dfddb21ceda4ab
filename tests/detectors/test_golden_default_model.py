"""The example that shows what golden rows catch, on the default model with a probe whose direction was drawn."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from adapterprobe.detectors.published import import_probe, read_checkpoint
from adapterprobe.models import load_model

EXAMPLE = Path(__file__).parents[2] / "examples" / "golden_rows.py"
LAYER = 20


@pytest.mark.slow
@pytest.mark.real
def test_the_example_tells_what_golden_rows_catch(tmp_path):
    lm = load_model()
    draw = torch.Generator().manual_seed(0)
    width = lm.structure.width
    state = {
        "linear.weight": torch.randn(1, width, generator=draw) / 400,
        "linear.bias": torch.zeros(1),
        "dataset_mean": torch.zeros(width),
        "dataset_std": torch.ones(width),
        "threshold": torch.tensor(0.0),
    }
    torch.save(
        {"state_dict": state, "hyperparams": {"probe_architecture": "lr", "layer": LAYER}}, tmp_path / "drawn.pt"
    )
    bundle = import_probe(read_checkpoint(tmp_path / "drawn.pt"), lm, tmp_path / "drawn")
    done = subprocess.run([sys.executable, EXAMPLE, bundle], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    print(done.stdout)
    found = {
        what: (level, said) for what, level, said in (line[2:-2].split(" | ") for line in done.stdout.splitlines()[2:])
    }
    assert found["nothing"][0] == "equal"
    formats = [level for what, (level, _) in found.items() if what.startswith("number format")]
    assert len(formats) == 2 and set(formats) <= {"equal", "told"}
    assert found["weights in 4 bits"][0] != "equal"
    for what, says in (
        ("another checkpoint: every weight moved by 2 %", "other weights in the same number format"),
        ("a layer off by one", f"what it was made with is state {LAYER} of"),
        ("another pooling", "reads other states of"),
        ("another chat template", "another chat template"),
    ):
        assert found[what][0] == "refused" and says in found[what][1]
