"""Adapters: attached, trained on an objective, switched off and on."""

from adapterprobe.adapters import distributed as processes
from adapterprobe.adapters.attach import attach
from adapterprobe.adapters.on_off import adapter_merged, adapter_off
from adapterprobe.adapters.train import train_adapter
from adapterprobe.adapters.train_result import TrainResult

__all__ = ["TrainResult", "adapter_merged", "adapter_off", "attach", "processes", "train_adapter"]
