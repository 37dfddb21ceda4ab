"""Probes: scikit-learn estimators from hidden states to the probability of label 1, by name."""

from adapterprobe.probes import logistic, mass_mean
from adapterprobe.probes.base import Probe, available, make, register, search_space
from adapterprobe.probes.save import load_probe, save_probe

__all__ = [
    "Probe",
    "available",
    "load_probe",
    "logistic",
    "make",
    "mass_mean",
    "register",
    "save_probe",
    "search_space",
]
