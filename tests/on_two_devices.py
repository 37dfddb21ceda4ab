"""A model over the CPU and a pretended device, held against itself on the CPU: python on_two_devices.py MODEL LAYOUT FOLDER."""

import sys
from pathlib import Path

import pretended_device

if __name__ == "__main__":
    # Not where tests are collected: a backend is registered for good.
    pretended_device.register()

import pytest
import torch
from accelerate import dispatch_model

from adapter_contract import asked_capitals
from adapterprobe.models import load_model, wrap_model
from spread_models import alike, everything, spread_out

THERE = pretended_device.DEVICE


def main(model: str, layout: str, folder: Path) -> None:
    whole = load_model(model, dtype="fp32", device="cpu")
    encoded = asked_capitals(whole.tokenizer)
    with pretended_device.PretendedDevice():
        with pytest.raises(RuntimeError, match="several devices"):
            torch.ones(3, device=THERE) + torch.ones(3)
        loaded = load_model(model, dtype="fp32", device="cpu")
        if layout == "two devices":
            placed = dispatch_model(loaded.model, spread_out(model, {0: THERE, 2: THERE}), main_device="cpu")
        else:
            # What is on the CPU is brought to the device for each pass.
            placed = dispatch_model(loaded.model, spread_out(model, {1: "cpu", 3: "cpu"}, rest=THERE))
        lm = wrap_model(placed, loaded.tokenizer)
        found = {parameter.device.type for parameter in lm.model.parameters()}
        assert found == (
            {"cpu", pretended_device.NAME} if layout == "two devices" else {"meta", pretended_device.NAME}
        ), found
        got = everything(lm, encoded.ids[:6], encoded, folder / "spread")
    alike(got, everything(whole, encoded.ids[:6], encoded, folder / "whole"))
    print("alike")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
