"""Logistic regression on the mean of neighbouring layers' states: what single layers add in noise averages out."""

from __future__ import annotations

from adapterprobe.probes.logistic import LogisticProbe
from adapterprobe.probes.registry import register


@register("layers_mean")
class LayersMeanProbe(LogisticProbe):
    """See `LogisticProbe`. In a run it is given, for each layer, the mean of the states of that layer and of one on either side."""

    depth_of = "neighbours"
