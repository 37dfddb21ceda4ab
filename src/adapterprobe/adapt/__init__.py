"""Adapters: attached, trained on an objective, switched off and on."""

from adapterprobe.adapt import processes
from adapterprobe.adapt.attach import attach
from adapterprobe.adapt.switch import adapter_merged, adapter_off
from adapterprobe.adapt.train import TrainResult, train_adapter

__all__ = ["TrainResult", "adapter_merged", "adapter_off", "attach", "processes", "train_adapter"]
