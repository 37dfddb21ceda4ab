"""What every probe is: a scikit-learn classifier on rows x features with labels 0 and 1."""

from __future__ import annotations

import copy
import inspect
from typing import ClassVar

import numpy as np
from scipy.special import expit
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from adapterprobe.probes.centring import SetCentring
from adapterprobe.probes.input_checks import refuse_non_finite, validated


class ConstantFeatures(ValueError):
    """Features that are the same in all rows, as the first layer's are where every prompt ends in the same token."""


class Probe(ClassifierMixin, BaseEstimator):
    """Base of probes: checks input once, leaves `_fit` and `_decide` to the method.

    `decision_function` is the log-odds of label 1 (`classes_[1]`); `predict_proba` its logistic function.
    """

    probe_name: ClassVar[str] = ""
    wants: ClassVar[tuple[str, ...]] = ()
    """What `_fit` takes beside X, y and weights: `pairs`, `polarity`, `sets`, `groups`, `token_labels`, or several of them."""
    depth_of: ClassVar[str] = ""
    """What the middle axis of a three-dimensional X is, for probes that use it: `layers` or `tokens`. `neighbours`: it takes one state,
    which is the mean of neighbouring layers' states."""
    most_layers: ClassVar[int | None] = 8
    """Of a probe over layers: how many it is given where its configuration does not say which; None: all."""

    def fit(
        self,
        X,
        y,
        sample_weight=None,
        pairs=None,
        polarity=None,
        token_labels=None,
        sets=None,
        groups=None,
        scaled=False,
    ):
        """Fit on X (rows x features) and y (two classes).

        Args:
            sample_weight: weight of each row; a row of weight 0 is a row that is not there.
            pairs: for each row a number that the two rows of a contrast pair share (the same question with the right and
                with a wrong answer), negative where a row has no partner. Probes that do not want pairs pass over it.
            polarity: 1 for affirmative and -1 for negated rows.
            token_labels: rows x tokens, 0 or 1, where parts of a row have labels of their own; for probes over tokens.
            sets: which set each row is of (a name or a number), such as its data set, polarity and wording. Features are then centred
                set by set, by their means alone; see `centred_on` for rows of a new set. A probe that wants sets (`ttpd`) does with
                them what its authors do.
            groups: what each row is about; for probes that hold rows out in fitting (`stack`).
            scaled: divide by each set's spread too.

        Raises:
            ValueError: NaN or infinite features, constant features, one class only, or shapes that do not match.
        """
        own_sets = sets if "sets" in self.wants else None
        centring = None
        if sets is not None and own_sets is None:
            centring = SetCentring.of(_as_rows(X), sets, scaled, self.depth_of == "tokens")
            X = centring.apply(_as_rows(X), sets)
        X, coded = self._checked(X, y)
        extras = self._extras(
            X, pairs=pairs, polarity=polarity, token_labels=token_labels, sets=own_sets, groups=groups
        )
        if sample_weight is not None:
            sample_weight = np.asarray(sample_weight, dtype=np.float64)
            if sample_weight.shape != (len(X),):
                raise ValueError(f"sample_weight has shape {sample_weight.shape}, expected ({len(X)},)")
            kept = sample_weight > 0
            if not kept.any():
                raise ValueError("Sample weights must contain at least one non-zero number.")
            X, coded, sample_weight = X[kept], coded[kept], sample_weight[kept]
            extras = {name: None if value is None else value[kept] for name, value in extras.items()}
            if len(np.unique(coded)) < 2:
                raise ValueError("sample_weight leaves rows of one class or none; both classes need a weight above 0")
        self._fit(X, coded, sample_weight, **extras)
        self._centre(centring)
        return self

    centre_: np.ndarray
    centre_scale_: np.ndarray

    def _centre(self, centring: SetCentring | None) -> None:
        """Remember what new rows are centred by: what is known of the sets that were fitted on."""
        for name in ("centre_", "centre_scale_"):
            vars(self).pop(name, None)
        if centring is not None:
            self.centre_ = centring.centre
            if centring.scale is not None:
                self.centre_scale_ = centring.scale

    @property
    def is_centred(self) -> bool:
        """Whether it was fitted on sets, each centred by its own mean."""
        return "centre_" in vars(self)

    def centred_on(self, X) -> Probe:
        """The same probe for a new set: a copy that centres by these unlabelled rows (and scales by their spread, where it was fitted so)
        instead of by the sets that it was fitted on.

        Raises:
            ValueError: it was not fitted on sets, or X is not finite or has another shape.
        """
        if not self.is_centred:
            raise ValueError(
                f"{type(self).__name__} was fitted without sets, so that it centres nothing; give fit sets"
            )
        X = _as_rows(X)
        refuse_non_finite(X.reshape(len(X), -1))
        if X.shape[1:] != self.centre_.shape:
            raise ValueError(
                f"rows of shape {X.shape[1:]} are no set of a probe that was fitted on {self.centre_.shape}"
            )
        scaled = "centre_scale_" in vars(self)
        return self.centred_by(SetCentring.of(X, np.zeros(len(X), int), scaled, self.depth_of == "tokens", 1))

    def centred_by(self, centring: SetCentring) -> Probe:
        """The same probe, which centres new rows by what is known of other sets: a copy."""
        found = copy.copy(self)
        found._centre(centring)
        return found

    @property
    def needs_polarity(self) -> bool:
        """Whether it scores rows only when it is told their polarity (see `told`)."""
        return False

    def told(self, polarity: np.ndarray) -> Probe:
        """The same probe for rows whose polarity is known (1 affirmative, -1 negated), in their order: a copy.

        Raises:
            ValueError: it does not need to be told.
        """
        raise ValueError(f"{type(self).__name__} scores rows whatever their polarity is")

    def fit_soft(self, X, chance, sample_weight=None) -> Probe:
        """Fit on soft labels: each row counts for label 1 with weight `chance` and for label 0 with the rest.

        Raises:
            ValueError: a chance outside [0, 1].
            TypeError: this probe takes no weights.
        """
        chance = np.asarray(chance, float)
        if chance.shape != (len(X),) or not ((chance >= 0) & (chance <= 1)).all():
            raise ValueError(f"soft labels must be {len(X)} numbers in [0, 1], got shape {chance.shape}")
        weight = np.ones(len(chance)) if sample_weight is None else np.asarray(sample_weight, float)
        twice = np.concatenate([X, X])
        labels = np.repeat([1, 0], len(chance))
        return self.fit(twice, labels, sample_weight=np.concatenate([weight * chance, weight * (1 - chance)]))

    def _extras(self, X: np.ndarray, **given) -> dict[str, np.ndarray | None]:
        """Those of `pairs`, `polarity`, `sets`, `groups` and `token_labels` that this probe wants, checked."""
        found: dict[str, np.ndarray | None] = {}
        for name in self.wants:
            value = given[name]
            if value is not None:
                value = np.asarray(value)
                if name == "token_labels":
                    if value.ndim != 2 or len(value) != len(X) or not np.isin(value, (0, 1)).all():
                        raise ValueError(
                            f"token_labels has shape {value.shape}, expected ({len(X)}, tokens) of 0 and 1"
                        )
                elif value.shape != (len(X),):
                    raise ValueError(f"{name} has shape {value.shape}, expected ({len(X)},)")
                if name == "polarity" and not np.isin(value, (-1, 1)).all():
                    raise ValueError(f"polarity must be 1 or -1, got {sorted(set(value.tolist()))[:5]}")
            found[name] = value
        return found

    def _checked(self, X, y) -> tuple[np.ndarray, np.ndarray]:
        """X in double precision and y as 0 or 1; `classes_` is set."""
        X = self._flat(X, fitting=True)
        X, y = validated(self, X, y, dtype=[np.float64, np.float32], ensure_min_samples=2, ensure_all_finite=False)
        refuse_non_finite(X)
        check_classification_targets(y)
        self.classes_, coded = np.unique(y, return_inverse=True)
        if len(self.classes_) == 1:
            raise ValueError(f"Classifier can't train when only one class is present: got {self.classes_[0]!r}")
        if len(self.classes_) > 2:
            raise ValueError(
                f"Only binary classification is supported. The type of the target is multiclass: {self.classes_}"
            )
        if len(X) > 1 and (X[0] == X).all():
            raise ConstantFeatures(
                f"all {X.shape[1]} features are constant over {len(X)} rows; there is nothing to fit on"
            )
        return np.asarray(X, dtype=np.float64), coded

    def _flat(self, X, fitting: bool = False):
        """X as rows x features; probes that use depth take three dimensions too."""
        return X

    def decision_function(self, X):
        """Log-odds of the second class: one value per row."""
        return self._decide(self._new(X))

    def _new(self, X) -> np.ndarray:
        """Checked features of new rows, double precision; centred where it was fitted on sets."""
        check_is_fitted(self)
        if self.is_centred:
            X = np.asarray(X)
            if X.shape[1:] != self.centre_.shape and X.ndim > 1 and X[:1].size == self.centre_.size:
                # The same layers or tokens, side by side.
                X = X.reshape(-1, *self.centre_.shape)
            X = SetCentring(self.centre_, vars(self).get("centre_scale_"), {}, self.depth_of == "tokens").apply(
                _as_rows(X)
            )
        X = validated(self, self._flat(X), reset=False, dtype=[np.float64, np.float32], ensure_all_finite=False)
        refuse_non_finite(X)
        return np.asarray(X, np.float64)

    def predict_proba(self, X):
        """Probabilities of both classes: rows x 2."""
        positive = expit(self.decision_function(X))
        return np.column_stack([1 - positive, positive])

    def predict(self, X):
        positive = self.decision_function(X) > 0
        return self.classes_[positive.astype(int)]

    @property
    def direction(self) -> np.ndarray | None:
        """Where a probe is linear: the gradient of its log-odds by the features, towards label 1; else None."""
        return None

    @property
    def state_direction(self) -> np.ndarray | None:
        """The same by the states that it is given, which it may divide by the spread of their set."""
        direction = self.direction
        return direction / self.centre_scale_ if direction is not None and "centre_scale_" in vars(self) else direction

    def _fit(self, X, y, sample_weight, **extras):
        raise TypeError(f"{type(self).__name__} does not define _fit")

    def _decide(self, X):
        raise TypeError(f"{type(self).__name__} does not define _decide")

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    @classmethod
    def fit_settings(cls, settings: list[dict], X, y, kept=None, **extras) -> list[Probe]:
        """One fitted probe per setting; a method overrides it where settings can share work.

        Args:
            kept: folds x rows, True where a fold fits on a row; the probes of the first fold come first. None: one
                fit on all rows.
            extras: `pairs`, `polarity`, `sample_weight`, `token_labels` and `groups` of the rows, and `sets` for a probe that wants them.

        Raises:
            ValueError: weights for a method that has none.
        """
        if kept is None:
            kept = np.ones((1, len(X)), bool)
        if extras.get("sample_weight") is not None and not takes_weights(cls):
            raise ValueError("it has no weights for rows, and the data have a column 'weight'; leave one of them out")
        extras = {n: value for n, value in extras.items() if n in (*cls.wants, "sample_weight") and value is not None}
        return [
            cls(**params).fit(X[mask], y[mask], **{name: value[mask] for name, value in extras.items()})
            for mask in kept
            for params in settings
        ]

    @classmethod
    def parameter_names(cls) -> list[str]:
        """What may be set, whether or not it has a default."""
        return sorted(cls._get_param_names())

    @classmethod
    def candidates(cls, strengths: list[float]) -> list[dict]:
        """Parameter settings that selection tries, strongest regularisation first."""
        return [{}]


def takes_weights(probe: type[Probe]) -> bool:
    """Whether a probe's `fit` has weights for rows."""
    return "sample_weight" in inspect.signature(probe.fit).parameters


class UnweightedProbe(Probe):
    """A probe whose method has no weights for rows."""

    def fit(self, X, y, pairs=None, polarity=None, sets=None, groups=None, scaled=False):
        """Fit on X (rows x features) and y (two classes); see `Probe.fit`, without weights."""
        return super().fit(X, y, pairs=pairs, polarity=polarity, sets=sets, groups=groups, scaled=scaled)


def _as_rows(X) -> np.ndarray:
    """X as an array of at least two dimensions, for what comes before the checks."""
    X = np.asarray(X)
    if X.ndim < 2 or not np.issubdtype(X.dtype, np.number):
        raise ValueError(f"features must be numbers in rows x features, got shape {X.shape} of {X.dtype}")
    return X
