"""Does the classifier know such images at all? An outlier detector on its activations."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import nn

from pyxai._errors import argument_error, check_count
from pyxai.classifier import Classifier, LinearHead
from pyxai.images import ImageError, ImageErrors
from pyxai.novelty.activations import (
    Activations,
    Known,
    Source,
    classifier_of,
    failures_of,
    source_of,
)
from pyxai.novelty.conventions import OutlierDetector
from pyxai.novelty.identity import identity_of, weights_token
from pyxai.novelty.labels import Labeler, Labels
from pyxai.novelty.metrics import Evaluation, evaluate_scores
from pyxai.novelty.scores import Logistic, Score, Setting, score_for
from pyxai.novelty.thresholds import Held, check_rates, threshold_for


class NoveltyDetector(OutlierDetector):
    """Tells images of the kind that a classifier knows from everything else.

    By the conventions of scikit-learn's outlier detectors: `score_samples` is higher for more
    familiar images, `decision_function` is that minus `threshold_`, `predict` is +1 for known and
    -1 for novel. A fitted detector is valid for the very weights that it was fitted on: it carries
    their fingerprint, and refuses to score with others.

    `score_samples` is what other libraries call `score`; scikit-learn's `score(X, y)` is one number
    for a whole set, and `evaluate` gives several with their names.

    Attributes:
        method_: the fitted score, with its parameters and what it found.
        threshold_: images that score below it are novel.
        layer_: the layer that was read; "fc (input)" stands for what enters the last linear layer.
        input_shape_: `[C, H, W]` of the first image; None if there were only activations.
        n_features_in_: d.
        n_known_: known images that the score was fitted on.
        n_threshold_: known images that the threshold was chosen on.
        failures_: photos that could not be used in `fit`.
        identity_: fingerprint of the weights, layer, preprocessing and class names.
    """

    def __init__(
        self,
        model: Classifier | nn.Module | LinearHead | None = None,
        layer: str | None = None,
        method: Any = "auto",
        *,
        false_alarm_rate: float | None = None,
        holdout: float = 0.2,
        batch_size: int | None = None,
        seed: int = 0,
        progress: bool = True,
    ) -> None:
        """Keeps the parameters; `fit` checks them.

        Args:
            model: the classifier; or, for ready activations alone, its last linear layer as a
                `pyxai.classifier.LinearHead` or nothing.
            layer: whose output to read, averaged over positions. None: what enters the network's
                last linear layer, so that logits = W · activations + b; for networks whose logits
                are not the output of one, the last layer with positions.
            method: "auto" (logistic with novel examples, else knn), another name, a score of
                `pyxai.novelty` with its parameters, or an outlier detector of scikit-learn; see
                docs/novelty.md.
            false_alarm_rate: the share of known images to be taken for novel, which sets the
                threshold. None is 0.05, but for "logistic" odds of one to one.
            holdout: the share of the known images that the threshold is chosen on and the score is
                not fitted on, drawn by the seed. 0 uses the same for both: as they look more
                familiar than others will, false alarms will be more frequent than asked for.
            batch_size: images in a forward pass; None, as many as suit cache and memory.
            seed: of everything drawn; the global random state is left alone.
            progress: False shows no bars, nor does an output that is no terminal.
        """
        self.model = model
        self.layer = layer
        self.method = method
        self.false_alarm_rate = false_alarm_rate
        self.holdout = holdout
        self.batch_size = batch_size
        self.seed = seed
        self.progress = progress

    # ---- fitting ----

    def fit(
        self,
        known: Known,
        novel: Known | None = None,
        *,
        labels: Labels = None,
        validation: Known | None = None,
    ) -> NoveltyDetector:
        """Learns what known images look like.

        Everything is read once and no more than a batch is held, beside what a method needs:
        means and covariances (d² numbers), for knn up to `max_samples` rows, else samples of at
        most 10,000 rows. Photos that cannot be used are left out and listed in `failures_`, unless
        there are labels.

        Args:
            known: photos, folders or generators of them, model input `[N, C, H, W]`, activations
                `[n, d]` (arrays, tensors or `Activations`), or chunks of activations.
            novel: examples of what is not known, for "logistic".
            labels: the class of each known image, index or name, or "folder" for the name of the
                folder that the photo lies in; None takes the network's top class. Used by the
                Mahalanobis distances.
            validation: known images for the threshold alone, in place of `holdout`.

        Returns:
            Itself.

        Raises:
            ValueError: a bad argument; too few images; activations that are not finite; labels that
                the network does not have; a method that is not available with this layer or
                network.
        """
        score = score_for(self.method, learns=novel is not None)
        if novel is not None and not score.needs_novel:
            expected = "None, as this method learns from known images alone (see evaluate)"
            raise argument_error("novel", expected, novel)
        if novel is None and score.needs_novel:
            raise argument_error("novel", "novel examples, which logistic learns from", None)
        rate = check_rates(self.false_alarm_rate, self.holdout, own=isinstance(score, Logistic))
        check_count("seed", self.seed, least=0)
        source, held = source_of(self.model, self.layer), Held(self.seed)
        failures: list[ImageError] = []
        sharing = "none" if validation is not None or rate is None else "all"
        if sharing == "all" and self.holdout:
            sharing = "apart"
        width, fitted_on = self._add_known(
            score, source, known, labels=labels, failures=failures, held=held, sharing=sharing
        )
        if score.needs_novel:
            self._add_novel(score, source, novel, failures, width)
        score.finish()
        if validation is not None and rate is not None:
            for chunk in self._chunks(source, validation, failures, "validation"):
                held.add(chunk)
        if rate is not None and not len(held):
            expected = f"enough images to hold some out (holdout={self.holdout})"
            raise ValueError(
                f"known: expected {expected}, got {fitted_on}; pass validation= or holdout=0"
            )
        self.method_ = score
        self.threshold_ = 0.0 if rate is None else threshold_for(held.scores(score), rate)
        self.n_features_in_, self.n_known_, self.n_threshold_ = width, fitted_on, len(held)
        self.failures_ = failures_of(failures)
        self._bind(source)
        return self

    def _bind(self, source: Source) -> None:
        """Notes the network that the score belongs to, as it is now."""
        self.layer_, self.input_shape_ = source.layer_name(), source.shape
        self.identity_ = identity_of(source.classifier or self.model, self.layer_)
        self._fitted_source, self._token = source, weights_token(source.classifier)

    def _add_known(
        self,
        score: Score,
        source: Source,
        known: Known,
        labels: Labels,
        failures: list[ImageError],
        held: Held,
        sharing: str,
    ) -> tuple[int, int]:
        """Shows known images to the score and, "apart" from these or "all" of them, to `held`.

        Returns:
            How many numbers an image has, and how many images the score has seen.
        """
        labeler = Labeler(labels, source.classifier, known)
        random = np.random.default_rng([self.seed, 1])
        fitted_on, width = 0, 0
        # With labels a photo that is left out would shift those of the others.
        skipped = failures if labels is None else None
        for chunk in self._chunks(source, known, skipped, "known"):
            classes = labeler.classes(chunk)
            if not width:
                width = chunk.features.shape[1]
                logits = None if chunk.logits is None else chunk.logits.shape[1]
                count = labeler.count(chunk)
                score.begin(Setting(width, logits, count, source.head(), self.seed))
            if sharing == "apart":
                apart = random.random(len(chunk)) < self.holdout
                held.add(chunk.rows(apart))
                chunk, classes = chunk.rows(~apart), None if classes is None else classes[~apart]
            elif sharing == "all":
                held.add(chunk)
            if len(chunk):
                score.update(chunk, classes)
            fitted_on += len(chunk)
        labeler.finish()
        if not fitted_on:
            reason = f"; {failures[0]}" if failures else ""
            raise ValueError(f"known: expected at least one image to fit on, got none{reason}")
        return width, fitted_on

    def _add_novel(
        self,
        score: Score,
        source: Source,
        novel: Any,
        failures: list[ImageError],
        width: int,
    ) -> None:
        assert isinstance(score, Logistic)
        for chunk in self._chunks(source, novel, failures, "novel"):
            if chunk.features.shape[1] != width:
                raise argument_error("novel", f"activations of {width} numbers", chunk.features)
            score.update_novel(chunk)

    # ---- scoring ----

    def activations(self, images: Known, *, skip_failures: bool = False) -> Iterator[Activations]:
        """What the detector reads of images, batch by batch; its other methods take these back.

        Args:
            images: as in `fit`.
            skip_failures: leave out photos that cannot be used; the `failures` of each batch name
                those before it and in it, so that none is lost. Else the first is an error.

        Raises:
            ImageError: a photo cannot be used; or, with `skip_failures`, none can.
            ValueError: the network is not the one that the detector was fitted on, or activations
                are not finite or of another width.
        """
        self._check_fitted()
        return self._told(images) if skip_failures else self._read(images, None)

    def _told(self, images: Known) -> Iterator[Activations]:
        """The activations with the failures; the last batch comes once all photos were read."""
        failures: list[ImageError] = []
        told = 0
        for chunk in self._read(images, failures):
            yield replace(chunk, failures=failures_of(failures[told:]))
            told = len(failures)
        if len(failures) > told:
            raise ImageErrors(failures_of(failures))

    def _read(self, images: Known, failures: list[ImageError] | None) -> Iterator[Activations]:
        for chunk in self._chunks(self._fitted_source, images, failures, "novelty"):
            if chunk.features.shape[1] != self.n_features_in_:
                expected = f"activations of {self.n_features_in_} numbers, as in fit"
                raise argument_error("images", expected, chunk.features)
            yield chunk

    def score_samples(self, images: Known) -> NDArray[np.float64]:
        """How familiar images are, `[n]`: higher for more familiar ones.

        Args:
            images: as in `fit`; in their order.

        Raises:
            ImageError: a photo cannot be used.
            ValueError: see `activations`.
        """
        found = [self.method_(chunk).numpy() for chunk in self.activations(images)]
        return np.concatenate(found) if found else np.empty(0)

    def decision_function(self, images: Known) -> NDArray[np.float64]:
        """`score_samples` minus the threshold, `[n]`: below 0 for novel images."""
        return self.score_samples(images) - self.threshold_

    def predict(self, images: Known) -> NDArray[np.int64]:
        """+1 for known images, -1 for novel ones, `[n]`."""
        return np.where(self.decision_function(images) < 0, -1, 1).astype(np.int64)

    def evaluate(
        self,
        known: Known,
        novel: Known,
        *,
        bootstrap: int = 1000,
        confidence: float = 0.95,
    ) -> Evaluation:
        """How well the detector tells known from novel images that it has not been fitted on.

        Args:
            known: known images, as in `fit`.
            novel: novel ones.
            bootstrap: samples for the intervals; 0 for none.
            confidence: of the intervals.

        Returns:
            AUROC, AUPR and FPR at 95 % TPR, with intervals. Photos that cannot be used are left
            out and listed in `failures`.

        Raises:
            ValueError: see `activations` and `evaluate_scores`.
        """
        self._check_fitted()
        failures: list[ImageError] = []
        sides = (
            [self.method_(chunk).numpy() for chunk in self._read(images, failures)]
            for images in (known, novel)
        )
        scores = [np.concatenate(each) if each else np.empty(0) for each in sides]
        found = evaluate_scores(*scores, bootstrap=bootstrap, confidence=confidence, seed=self.seed)
        return replace(found, failures=failures_of(failures))

    # ---- files ----

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes the fitted detector to one safetensors file, with JSON in its header.

        The network is not in it, but its fingerprint, layer, preprocessing and class names are.
        Estimators of scikit-learn go into the file by skops, which the extra `novelty` brings.

        Returns:
            The path.

        Raises:
            ValueError: the detector is not fitted, or the folder does not exist.
            pyxai.MissingExtraError: skops is needed and missing.
        """
        from pyxai.novelty.storage import save_detector

        self._check_fitted()
        save_detector(self, Path(path))
        return Path(path)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: Classifier | nn.Module | LinearHead | None = None,
        *,
        other_network: bool = False,
        trusted: Sequence[str] = (),
    ) -> NoveltyDetector:
        """Reads what `save` wrote; nothing is unpickled.

        Args:
            path: the file.
            model: the classifier that it was fitted on.
            other_network: take another network, preprocessing or class names all the same. Its
                scores mean nothing unless the activations are the same ones, as after a change of
                format, dtype or acceleration; check with `evaluate`.
            trusted: names of types that an estimator of scikit-learn may be made of, beside those
                of iforest, ocsvm and lof.

        Raises:
            ValueError: it is no such file; the network is another one; or an estimator is made of
                types that are not trusted.
        """
        from pyxai.novelty.storage import read_detector

        saved = read_detector(Path(path), trusted)
        detector = cls(model, method=saved.score.fresh(), **saved.parameters)
        detector.method_, detector.threshold_ = saved.score, saved.threshold
        detector.n_features_in_ = saved.width
        detector.n_known_, detector.n_threshold_ = saved.known, saved.threshold_on
        detector.failures_ = ()
        detector._bind(source_of(model, detector.layer, saved.input_shape))
        differences = saved.identity.differences(detector.identity_)
        if differences and not other_network:
            raise ValueError(
                f"model: expected the network that {str(path)!r} was fitted on, got another one: "
                f"{'; '.join(differences)} differ. Fit again, or pass other_network=True if the "
                "activations are known to be the same"
            )
        return detector

    # ---- the network ----

    def _chunks(
        self, source: Source, images: Known, failures: list[ImageError] | None, progress: str
    ) -> Iterator[Activations]:
        return source.chunks(
            images,
            batch_size=self.batch_size,
            failures=failures,
            progress=progress if self.progress else "",
        )

    def _new_source(self) -> Source:
        return source_of(self.model, self.layer, self.input_shape_)

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            from sklearn.exceptions import NotFittedError

            raise NotFittedError("NoveltyDetector: expected a fitted detector; call fit first")
        classifier = classifier_of(self.model)
        token = weights_token(classifier)
        if classifier is None or token == self._token:
            return
        # Weights were written to or moved: are they still the same numbers?
        if identity_of(self.model, self.layer_).fingerprint != self.identity_.fingerprint:
            raise ValueError(
                "NoveltyDetector: expected the weights that it was fitted on, got others; the "
                "network has changed, so fit again"
            )
        self._fitted_source, self._token = self._new_source(), token

    def __getstate__(self) -> dict[str, Any]:
        state = dict(self.__dict__)
        state.pop("_fitted_source", None)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.__sklearn_is_fitted__():
            self._fitted_source = self._new_source()
            self._token = ()  # checked at the next call
