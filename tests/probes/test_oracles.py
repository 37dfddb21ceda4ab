"""Each probe against an independent reference: scikit-learn, a closed form, a toy problem, or a slow literal version."""

import numpy as np
import pytest
import torch
from scipy.special import expit
from sklearn.covariance import LedoitWolf
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.ensemble import RandomForestClassifier
from sklearn.gaussian_process import GaussianProcessClassifier
from sklearn.gaussian_process.kernels import RBF
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from adapterprobe import probes
from adapterprobe.errors import ConfigError
from adapterprobe.probes.features import Concatenated, Difference, LayerSteps
from adapterprobe.probes.newton import standardise
from adapterprobe.probes.pairs import paired
from adapterprobe.probes.registry import fit_settings
from adapterprobe.probes.uncertainty import entropy, of_latent
from planted import planted


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def auroc(probe, X, y):
    return roc_auc_score(y, probe.decision_function(X))


def asked_both_ways(questions=300, features=40, gap=3.0, shared=3.0, seed=0):
    """Contrast pairs that share what their question is about, and lie apart along a truth direction."""
    rng = np.random.default_rng(seed)
    y, pairs = np.arange(2 * questions) % 2, np.repeat(np.arange(questions), 2)
    direction = rng.standard_normal(features)
    direction /= np.linalg.norm(direction)
    X = rng.standard_normal((2 * questions, features)) + shared * rng.standard_normal((questions, features))[pairs]
    return X + gap * np.outer(2 * y - 1, direction), y, pairs, direction


@pytest.mark.parametrize(("rows", "features"), [(60, 200), (300, 40)])
@pytest.mark.parametrize("C", [1e-4, 1e-2, 1.0])
def test_logistic_is_scikit_learns(rows, features, C):
    X, y, _ = planted(rows, features)
    X[:, 3] = 7.0
    ours = probes.make("logistic", C=C).fit(X, y)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=C, tol=1e-10, max_iter=10_000)).fit(X, y)
    assert np.allclose(ours.coef_, theirs[-1].coef_[0], atol=1e-4 * np.abs(theirs[-1].coef_).max())
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-4)
    weight = np.random.default_rng(0).random(rows)
    ours = probes.make("logistic", C=C, scale=False).fit(X, y, sample_weight=weight)
    theirs = LogisticRegression(C=C, tol=1e-10, max_iter=100_000).fit(X, y, sample_weight=weight)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X), atol=1e-3)


def test_logistic_settings_together_equal_one_by_one():
    X, y, _ = planted(60, 200)
    settings = [{"C": c} for c in (1e-4, 1e-2, 1.0)]
    for probe, params in zip(fit_settings("logistic", settings, X, y), settings, strict=True):
        assert np.allclose(probe.coef_, probes.make("logistic", **params).fit(X, y).coef_, atol=1e-6)
        assert probe.get_params()["C"] == params["C"]


def test_folds_together_equal_fits_on_their_rows():
    X, y, _ = planted(90, 200)
    kept = np.arange(90) % 3 != np.arange(3)[:, None]
    settings = [{"C": 1e-3, "scale": False}, {"C": 1.0, "scale": False}]
    found = fit_settings("logistic", settings, X, y, kept)
    alone = [probes.make("logistic", **params).fit(X[mask], y[mask]) for mask in kept for params in settings]
    for one, two in zip(found, alone, strict=True):
        assert one.C == two.C
        assert np.allclose(one.decision_function(X), two.decision_function(X), atol=1e-5)


def test_mass_mean_literally():
    X, y, _ = planted()
    probe = probes.make("mass_mean").fit(X, y)
    direction = X[y == 1].mean(0) - X[y == 0].mean(0)
    assert np.allclose(probe.direction_, direction)
    assert np.corrcoef(probe.decision_function(X), X @ direction)[0, 1] > 1 - 1e-9


def test_mass_mean_covariance_undoes_a_stretched_axis():
    X, y, _ = planted(400, 10, strength=2.0)
    X[:, 0] *= 30
    held = slice(200, None)
    plain, tilted = (
        roc_auc_score(y[held], probes.make("mass_mean", covariance=c).fit(X[:200], y[:200]).decision_function(X[held]))
        for c in (False, True)
    )
    assert tilted > plain + 0.05


def test_soft_labels_are_the_mean_of_both_labels():
    X, y, _ = planted(80, 6)
    chance = np.clip(np.random.default_rng(0).random(80), 0.05, 0.95)
    ours = probes.make("logistic", C=0.3, scale=False).fit_soft(X, chance)
    theirs = LogisticRegression(C=0.3, tol=1e-10, max_iter=10_000)
    theirs.fit(np.concatenate([X, X]), [1] * 80 + [0] * 80, sample_weight=np.concatenate([chance, 1 - chance]))
    assert np.allclose(ours.coef_, theirs.coef_[0], atol=1e-5)
    hard = probes.make("logistic", C=0.3).fit_soft(X, y.astype(float))
    assert np.allclose(hard.coef_, probes.make("logistic", C=0.3).fit(X, y).coef_, atol=1e-6)
    with pytest.raises(ValueError, match=r"numbers in \[0, 1\]"):
        probes.make("logistic").fit_soft(X, chance + 1)


@pytest.mark.parametrize(("rows", "features"), [(60, 200), (300, 40)])
def test_ridge_is_scikit_learns(rows, features):
    X, y, _ = planted(rows, features)
    ours = probes.make("ridge", alpha=50.0).fit(X, y)
    theirs = make_pipeline(StandardScaler(), RidgeClassifier(alpha=50.0)).fit(X, y)
    assert cosine(ours.direction_ * standardise(X)[1], np.ravel(theirs[-1].coef_)) > 1 - 1e-9


@pytest.mark.parametrize(("rows", "features"), [(60, 200), (300, 40)])
def test_lda_is_scikit_learns(rows, features):
    X, y, _ = planted(rows, features)
    ours = probes.make("lda", shrinkage=0.3).fit(X, y)
    theirs = LinearDiscriminantAnalysis(solver="eigen", shrinkage=0.3).fit(X, y)
    assert np.allclose(ours.decision_function(X), theirs.decision_function(X), rtol=1e-6, atol=1e-6)


def test_mass_mean_with_ledoit_and_wolfs_covariance():
    X, y, _ = planted(60, 100)
    means = np.stack([X[y == label].mean(0) for label in (0, 1)])
    covariance = LedoitWolf(assume_centered=True).fit(X - means[y]).covariance_
    expected = np.linalg.solve(covariance, means[1] - means[0])
    assert cosine(probes.make("mass_mean", covariance=True).fit(X, y).direction_, expected) > 1 - 1e-9


def test_lat_is_the_main_axis_of_differences():
    X, y, pairs, direction = asked_both_ways()
    probe = probes.make("lat").fit(X, y, pairs=pairs)
    first, second = paired(pairs, None, np.random.default_rng(0))
    expected = PCA(1).fit(X[first] - X[second]).components_[0]
    assert abs(cosine(probe.direction_, expected)) > 1 - 1e-9
    assert cosine(probe.direction_, direction) > 0.97
    # Labels decide the sign alone.
    assert cosine(probes.make("lat").fit(X, 1 - y, pairs=pairs).direction_, -probe.direction_) > 1 - 1e-9


def test_crc_literally():
    X, y, pairs, direction = asked_both_ways()
    polarity = np.where(np.random.default_rng(3).random(300) < 0.5, 1, -1).repeat(2) * np.where(y == 1, 1, -1)
    # One side of every pair is shifted, as an affirmation's last word is.
    X[polarity > 0] += 10 * np.eye(40)[0]
    probe = probes.make("crc").fit(X, y, pairs=pairs, polarity=polarity)
    up, down = (X[polarity == side][np.argsort(pairs[polarity == side])] for side in (1, -1))
    up, down = ((side - side.mean(0)) / X.std(0) for side in (up, down))
    expected = np.linalg.svd(up - down)[2][0] / X.std(0)
    assert abs(cosine(probe.direction_, expected)) > 1 - 1e-9
    assert cosine(probe.direction_, direction) > 0.9


def slow_ccs(first, second, penalty, starts=20):
    """The least loss that LBFGS finds, start by start."""
    found = []
    for seed in range(starts):
        torch.manual_seed(seed)
        w = torch.randn(first.shape[1] + 1, dtype=torch.float64, requires_grad=True)
        optimiser = torch.optim.LBFGS([w], max_iter=500, line_search_fn="strong_wolfe")

        def loss(w=w):
            p, q = (torch.sigmoid(torch.tensor(side) @ w[:-1] + w[-1]) for side in (first, second))
            return ((p - (1 - q)) ** 2 + torch.min(p, q) ** 2).mean() + penalty * (w[:-1] ** 2).sum()

        def closure(w=w, optimiser=optimiser, loss=loss):
            optimiser.zero_grad()
            value = loss()
            value.backward()
            return value

        optimiser.step(closure)
        found.append(float(loss().detach()))
    return min(found)


def test_ccs_finds_what_a_slow_search_finds():
    X, y, pairs, direction = asked_both_ways(150, 8)
    probe = probes.make("ccs", penalty=0.02, steps=2000).fit(X, y, pairs=pairs)
    Z = (X - X.mean(0)) / X.std(0)
    first, second = paired(pairs, None, np.random.default_rng(0))
    reached = probe.loss_ + 0.02 * (probe.coef_**2).sum()
    assert reached <= slow_ccs(Z[first], Z[second], 0.02) + 2e-3
    p, q = (expit(Z[side] @ probe.coef_ + probe.intercept_) for side in (first, second))
    assert probe.consistency_ == pytest.approx(((p + q - 1) ** 2).mean(), abs=1e-5)
    assert cosine(probe.direction, direction) > 0.9


def test_ccs_without_labels():
    X, y, pairs, _ = asked_both_ways()
    unsigned = probes.make("ccs", sign="none").fit(X, y, pairs=pairs)
    wrong = probes.make("ccs", sign="none").fit(X, np.random.default_rng(0).permutation(y), pairs=pairs)
    assert np.array_equal(unsigned.coef_, wrong.coef_)
    assert abs(auroc(unsigned, X, y) - 0.5) > 0.3
    signed = probes.make("ccs").fit(X, y, pairs=pairs)
    assert auroc(signed, X, y) > 0.8 and signed.sign_from_ == "labels"
    with pytest.raises(ValueError, match="sign must be"):
        probes.make("ccs", sign="guess").fit(X, y)


def test_ttpd_holds_for_negations_where_a_mean_difference_fails():
    """Bürger et al.'s figure 1: truth has a general direction and one that turns with polarity."""
    rng = np.random.default_rng(0)
    y, polarity = np.arange(800) % 2, np.where(np.arange(800) % 4 < 2, 1, -1)
    truth = 2 * y - 1
    X = 0.5 * rng.standard_normal((800, 30))
    X[:, 0] += truth
    X[:, 1] += 3 * truth * polarity
    X[:, 2] += 2 * polarity
    half = np.arange(800) < 400
    probe = probes.make("ttpd").fit(X[half], y[half], polarity=polarity[half])
    assert auroc(probe, X[~half], y[~half]) > 0.95
    assert cosine(probe.directions_[0], np.eye(30)[0]) > 0.95
    affirmative = half & (polarity > 0)
    naive = probes.make("mass_mean").fit(X[affirmative], y[affirmative])
    assert auroc(naive, X[polarity < 0], y[polarity < 0]) < 0.1
    # With one polarity it is the difference of the class means.
    alone = probes.make("ttpd").fit(X[affirmative], y[affirmative], polarity=polarity[affirmative])
    assert cosine(alone.coef_, naive.direction_) > 1 - 1e-9
    with pytest.raises(ValueError, match="polarity must be 1 or -1"):
        probes.make("ttpd").fit(X, y, polarity=y)


def test_linear_comes_near_the_optimum():
    X, y, _ = planted(400, 20)
    probe = probes.make("linear", alpha=0.05, epochs=400).fit(X, y)
    best = make_pipeline(StandardScaler(), LogisticRegression(C=1 / (0.05 * 400))).fit(X, y)
    assert cosine(probe.coef_, best[-1].coef_[0]) > 0.999
    assert np.corrcoef(probe.decision_function(X), best.decision_function(X))[0, 1] > 0.999


def test_mlp_reads_what_is_not_linear():
    X = np.random.default_rng(0).standard_normal((1200, 5))
    y = (X[:, 0] * X[:, 1] > 0).astype(int)
    assert auroc(probes.make("mlp", alpha=0.01).fit(X[:800], y[:800]), X[800:], y[800:]) > 0.95
    assert auroc(probes.make("logistic").fit(X[:800], y[:800]), X[800:], y[800:]) < 0.6


def test_conv_reads_a_change_between_layers_wherever_it_is():
    rng = np.random.default_rng(0)
    y, where = np.arange(900) % 2, rng.integers(0, 10, 900)
    X = 0.3 * rng.standard_normal((900, 10, 6))
    rows = np.arange(900)
    X[rows, where, 0] += 2 * (2 * y - 1)
    X[rows, (where + 1) % 10, 0] -= 2 * (2 * y - 1)
    probe = probes.make("conv", steps=300).fit(X[:600], y[:600])
    assert auroc(probe, X[600:], y[600:]) > 0.9
    side_by_side = Concatenated().fit_transform(X)
    assert auroc(probes.make("logistic").fit(side_by_side[:600], y[:600]), side_by_side[600:], y[600:]) < 0.65
    flat = probes.make("conv", steps=300, depth=10).fit(side_by_side[:600], y[:600])
    assert np.array_equal(flat.decision_function(side_by_side[600:]), probe.decision_function(X[600:]))
    with pytest.raises(ValueError, match="cannot be split into 7 layers"):
        probes.make("conv", depth=7).fit(side_by_side, y)
    with pytest.raises(ValueError, match="X has 4 layers, ConvProbe was fitted on 10"):
        probe.decision_function(X[:, :4])


def test_attention_finds_the_token_that_says_it():
    rng = np.random.default_rng(0)
    y, where = np.arange(900) % 2, rng.integers(3, 12, 900)
    X = rng.standard_normal((900, 12, 6))
    X[:, :3] = 0
    rows = np.arange(900)
    X[rows, where, 0] = 6
    X[rows, where, 1] = 2 * (2 * y - 1)
    probe = probes.make("attention", steps=400).fit(X[:600], y[:600])
    assert auroc(probe, X[600:], y[600:]) > 0.97
    mean = X.mean(1)
    assert (
        auroc(probe, X[600:], y[600:])
        > auroc(probes.make("logistic").fit(mean[:600], y[:600]), mean[600:], y[600:]) + 0.05
    )
    # Padding has no part in it.
    longer = np.concatenate([np.zeros((300, 0, 6)), X[600:]], axis=1)
    longer[:, :3] = 0
    assert np.array_equal(probe.decision_function(longer), probe.decision_function(X[600:]))


def test_token_logistic_is_a_weighted_logistic_regression_on_tokens():
    rng = np.random.default_rng(0)
    y, lengths = np.arange(200) % 2, rng.integers(1, 8, 200)
    X = rng.standard_normal((200, 8, 5)) + (2 * y - 1)[:, None, None] * [0.4, 0, 0, 0, 0]
    for row, length in enumerate(lengths):
        X[row, : 8 - length] = 0
    there = np.arange(8)[None] >= 8 - lengths[:, None]
    tokens, owner = X[there], np.repeat(np.arange(200), lengths)
    weight = 1 / lengths[owner]
    mean = np.average(tokens, axis=0, weights=weight)
    scale = np.sqrt(np.average((tokens - mean) ** 2, axis=0, weights=weight))
    theirs = LogisticRegression(C=0.1, tol=1e-10, max_iter=10_000)
    theirs.fit((tokens - mean) / scale, y[owner], sample_weight=weight)
    odds = theirs.decision_function((tokens - mean) / scale)
    probe = probes.make("token_logistic", C=0.1).fit(X, y)
    expected = np.array([odds[owner == row].mean() for row in range(200)])
    assert np.allclose(probe.decision_function(X), expected, atol=1e-4)
    highest = np.array([odds[owner == row].max() for row in range(200)])
    assert np.allclose(
        probes.make("token_logistic", C=0.1, pool="max").fit(X, y).decision_function(X), highest, atol=1e-4
    )
    three = [
        max(np.convolve(part, np.ones(min(3, len(part))) / min(3, len(part)), "valid"))
        for part in (odds[owner == row] for row in range(200))
    ]
    rolled = probes.make("token_logistic", C=0.1, pool="rolling:3").fit(X, y)
    assert np.allclose(rolled.decision_function(X), three, atol=1e-4)
    with pytest.raises(ConfigError, match="expected mean, max or rolling:N"):
        probes.make("token_logistic", pool="median").fit(X, y)


def test_ranking_is_a_logistic_regression_on_differences():
    X, y, pairs, direction = asked_both_ways()
    probe = probes.make("ranking", C=0.1).fit(X, y, pairs=pairs)
    D = (X[y == 1] - X[y == 0]) / X.std(0)
    theirs = LogisticRegression(C=0.1, fit_intercept=False, tol=1e-10, max_iter=10_000)
    theirs.fit(np.concatenate([D, -D]), [1] * 300 + [0] * 300)
    assert cosine(probe.direction_ * X.std(0), theirs.coef_[0]) > 1 - 1e-6
    assert cosine(probe.direction_, direction) > 0.9
    with pytest.raises(ValueError, match="one row of each label"):
        probes.make("ranking").fit(X, y, pairs=np.where(y == 1, 0, 1) + 2 * (np.arange(600) // 4))


def test_vae_loss_literally():
    X, y, _ = planted(40, 7)
    probe = probes.make("vae", beta=0.5, label_weight=2.0)
    torch.manual_seed(0)
    network = probe._network(7)
    Z, labels = torch.tensor(X, dtype=torch.float32), torch.tensor(y, dtype=torch.float32)
    torch.manual_seed(1)
    got = probe._loss(network, Z, labels)
    torch.manual_seed(1)
    inner = network.into(Z)
    latent = torch.distributions.Normal(network.mean(inner), (network.log_variance(inner) / 2).exp())
    sample = latent.mean + torch.randn_like(latent.mean) * latent.stddev
    kl = torch.distributions.kl_divergence(latent, torch.distributions.Normal(0.0, 1.0)).sum(1).mean() / 7
    chance = torch.sigmoid(network.head(sample)[:, 0])
    said = -torch.where(labels == 1, chance, 1 - chance).log().mean()
    expected = ((network.back(sample) - Z) ** 2).mean() + 0.5 * kl + 2 * said
    assert got.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize(("rows", "features"), [(30, 60), (200, 12)])
def test_laplace_in_all_dimensions(rows, features):
    X, y, _ = planted(rows, features)
    new = planted(20, features, seed=5)[0]
    probe = probes.make("laplace", C=0.2).fit(X, y)
    Z, Z_new = ((A - X.mean(0)) / X.std(0) for A in (X, new))
    best = LogisticRegression(C=0.2, tol=1e-12, max_iter=10_000).fit(Z, y)
    chance = best.predict_proba(Z)[:, 1]
    design = np.column_stack([Z, np.ones(rows)])
    hessian = (design * (chance * (1 - chance))[:, None]).T @ design + np.diag([5.0] * features + [1e-6])
    design = np.column_stack([Z_new, np.ones(20)])
    mean, variance = probe.latent(new)
    assert np.allclose(mean, best.decision_function(Z_new), atol=1e-4)
    assert np.allclose(variance, np.einsum("ij,jk,ik->i", design, np.linalg.inv(hessian), design), rtol=1e-3)
    draws = mean[:, None] + np.sqrt(variance)[:, None] * np.random.default_rng(0).standard_normal((20, 200_000))
    assert np.allclose(probe.predict_proba(new)[:, 1], expit(draws).mean(1), atol=4e-3)
    found = probe.uncertainty(new)
    assert np.allclose(found.aleatoric, entropy(expit(draws)).mean(1), atol=4e-3)
    assert np.allclose(found.epistemic, entropy(expit(draws).mean(1)) - entropy(expit(draws)).mean(1), atol=4e-3)


def test_ensemble_is_logistic_regression_on_bootstrap_samples():
    X, y, _ = planted(80, 10)
    probe = probes.make("ensemble", C=0.5, members=7).fit(X, y)
    rng = np.random.default_rng(0)
    Z = (X - X.mean(0)) / X.std(0)
    chances = []
    for _ in range(7):
        counts = np.bincount(rng.integers(80, size=80), minlength=80)
        best = LogisticRegression(C=0.5, tol=1e-10, max_iter=10_000).fit(Z, y, sample_weight=counts)
        chances.append(best.predict_proba(Z)[:, 1])
    assert np.allclose(probe.predict_proba(X)[:, 1], np.mean(chances, axis=0), atol=1e-4)
    together = probes.make("ensemble").fit(X, y, pairs=np.arange(80) // 2)
    assert not np.array_equal(together.coef_, probes.make("ensemble").fit(X, y).coef_)


def test_gpp_literally():
    """The published algorithm with dense inverses and samples."""
    X, y, _ = planted(30, 6)
    new = planted(10, 6, seed=3)[0]
    probe = probes.make("gpp", epsilon=0.2, strength=3.0, scale=False).fit(X, y)
    A, B = (np.column_stack([side, np.ones(len(side))]) for side in (X, new))
    A, B = (side / np.linalg.norm(side, axis=1, keepdims=True) for side in (A, B))
    prior = np.log(1 / 0.2 + 1)
    base = np.log(0.2) - prior / 2
    mean, variance = 0.0, 0.0
    for sign, seen in ((1, y), (-1, 1 - y)):
        alpha = 0.2 + 3.0 * seen
        noise = np.log(1 / alpha + 1)
        observed = np.log(alpha) - noise / 2
        inverse = np.linalg.inv(prior * A @ A.T + np.diag(noise))
        across = prior * B @ A.T
        mean = mean + sign * (base + across @ inverse @ (observed - base))
        variance = variance + prior - np.einsum("ij,jk,ik->i", across, inverse, across)
    assert np.allclose(probe.latent(new)[0], mean) and np.allclose(probe.latent(new)[1], variance)
    f = mean[:, None] + np.sqrt(variance)[:, None] * np.random.default_rng(0).standard_normal((10, 300_000))
    found = probe.uncertainty(new)
    assert np.allclose(probe.predict_proba(new)[:, 1], expit(f).mean(1), atol=3e-3)
    assert np.allclose(found.aleatoric, entropy(expit(f)).mean(1), atol=3e-3)
    expected = 0.5 * np.log(2 * np.pi * variance) + 0.5 + mean - 2 * np.logaddexp(0, f).mean(1)
    assert np.allclose(found.epistemic, expected, atol=0.03)


def test_gpp_knows_where_it_has_seen_nothing():
    """The paper's toy: fuzzy where labels disagree (aleatory), unsure where there are none (epistemic)."""
    rng = np.random.default_rng(0)
    places = np.eye(3) * 5
    X = np.repeat(places[:2], 40, axis=0) + 0.1 * rng.standard_normal((80, 3))
    y = np.concatenate([np.ones(40, int), np.arange(40) % 2])
    found = probes.make("gpp", scale=False).fit(X, y).uncertainty(places)
    clear, fuzzy, unseen = range(3)
    assert found.epistemic[unseen] > found.epistemic[fuzzy] > found.epistemic[clear]
    assert found.aleatoric[fuzzy] > 0.6 > 0.1 > found.aleatoric[clear]
    assert found.latent_variance[unseen] > 3 * max(found.latent_variance[:2])


def test_gp_agrees_with_scikit_learns():
    rng = np.random.default_rng(0)
    X = rng.uniform(-2, 2, (200, 2))
    y = (np.hypot(*X.T) + 0.2 * rng.standard_normal(200) < 1.3).astype(int)
    new = rng.uniform(-2, 2, (200, 2))
    ours = probes.make("gp", steps=300, inducing=100).fit(X, y)
    theirs = GaussianProcessClassifier(4.0 * RBF(1.0)).fit(X, y)
    a, b = (model.predict_proba(new)[:, 1] for model in (ours, theirs))
    assert np.corrcoef(a, b)[0, 1] > 0.97 and np.abs(a - b).mean() < 0.12
    near, far = ours.uncertainty(X).latent_variance.mean(), ours.uncertainty(X + 20).latent_variance.mean()
    assert far > 2 * near


def test_uncertainty_adds_up():
    mean, variance = np.array([0.0, 3.0, -1.0]), np.array([1.0, 4.0, 1e-9])
    found = of_latent(mean, variance)
    draws = expit(mean[:, None] + np.sqrt(variance)[:, None] * np.random.default_rng(0).standard_normal((3, 400_000)))
    assert np.allclose(found.aleatoric + found.epistemic, entropy(draws.mean(1)), atol=3e-3)
    assert found.epistemic[2] == pytest.approx(0, abs=1e-6)


def test_any_classifier_of_scikit_learn():
    X, y, _ = planted(150, 8)
    ours = probes.make("RandomForestClassifier", n_estimators=20).fit(X, y)
    theirs = make_pipeline(StandardScaler(), RandomForestClassifier(n_estimators=20, random_state=0)).fit(X, y)
    assert np.allclose(ours.predict_proba(X), theirs.predict_proba(X), atol=1e-9)
    with pytest.raises(probes.registry.ConfigError, match="its parameters are"):
        probes.make("SVC", trees=3)


def test_features_of_several_states():
    X = np.random.default_rng(0).standard_normal((5, 3, 2))
    assert np.array_equal(Concatenated().fit_transform(X), np.concatenate([X[:, 0], X[:, 1], X[:, 2]], axis=1))
    assert np.array_equal(LayerSteps().fit_transform(X), np.concatenate([X[:, 1] - X[:, 0], X[:, 2] - X[:, 1]], axis=1))
    assert np.array_equal(Difference().fit_transform(X[:, :2]), X[:, 1] - X[:, 0])
    assert np.array_equal(LayerSteps().fit_transform(X[:, :1]), X[:, 0])
    with pytest.raises(ValueError, match="rows x states x width"):
        LayerSteps().fit_transform(X[:, 0])
    piped = make_pipeline(LayerSteps(), probes.make("logistic")).fit(X, [0, 1, 0, 1, 0])
    assert piped.predict(X).shape == (5,)
