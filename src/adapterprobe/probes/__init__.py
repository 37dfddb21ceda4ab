"""Probes: scikit-learn estimators from hidden states to the probability of label 1, by name."""

from adapterprobe.probes import (
    attention,
    ccs,
    conv,
    crc,
    ensemble,
    gp,
    gpp,
    laplace,
    lat,
    lda,
    linear,
    logistic,
    mass_mean,
    mlp,
    ranking,
    ridge,
    token_logistic,
    ttpd,
    vae,
)
from adapterprobe.probes.base import Probe, UnweightedProbe
from adapterprobe.probes.direction import DirectionProbe, UnweightedDirectionProbe
from adapterprobe.probes.registry import available, lookup, make, register, search_space
from adapterprobe.probes.save import load_probe, save_probe
from adapterprobe.probes.uncertainty import Uncertainty

__all__ = [
    "DirectionProbe",
    "Probe",
    "Uncertainty",
    "UnweightedDirectionProbe",
    "UnweightedProbe",
    "attention",
    "available",
    "ccs",
    "conv",
    "crc",
    "ensemble",
    "gp",
    "gpp",
    "laplace",
    "lat",
    "lda",
    "linear",
    "load_probe",
    "logistic",
    "lookup",
    "make",
    "mass_mean",
    "mlp",
    "ranking",
    "register",
    "ridge",
    "save_probe",
    "search_space",
    "token_logistic",
    "ttpd",
    "vae",
]
