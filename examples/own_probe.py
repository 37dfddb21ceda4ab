"""A probe of one's own, in one run with ours: the difference of the classes' medians as direction.

python examples/own_probe.py                                                  by itself, on made-up states
adapterprobe run --import examples/own_probe.py --set probes=[logistic,median] --out runs/median    in a run
"""

import numpy as np

from adapterprobe import probes


@probes.register("median")
class MedianProbe(probes.UnweightedDirectionProbe):
    """Outliers among the states move medians less than means."""

    def _direct(self, X, y, sample_weight):
        return np.median(X[y == 1], axis=0) - np.median(X[y == 0], axis=0)


if __name__ == "__main__":
    rng = np.random.default_rng(0)
    y = np.arange(200) % 2
    X = rng.standard_normal((200, 64)) + np.outer(y, rng.standard_normal(64))
    probe = probes.make("median").fit(X[:100], y[:100])
    print(f"accuracy on the other half: {probe.score(X[100:], y[100:]):.2f}")
