"""Two ways to train a whole network on a share of the labels, each choosing on the validation labels of the share.

`fine_tune_head_first`: the head of the frozen encoder, then the whole network from there (arXiv 2202.10054), then the
weights on the way between the two that are best (arXiv 2109.01903). `train_from_scratch`: the best of some learning
rates.

Axes: N clips, K classes.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mbt_speech.probing.classification import Classifier
from mbt_speech.probing.examples import Examples
from mbt_speech.probing.linear_fits import LinearHead
from mbt_speech.probing.linear_head import fit_kind, fit_linear_head

from .fine_tuning import FullTraining, Pace
from .hub_uploads import HubUploads

ALPHAS = (0.0, 0.25, 0.5, 0.75, 1.0)
A_QUARTER = 0.25
MANY_CLIPS = 8  # to learn from, for each class, on average
FROM_PROBE = Pace(epochs=4, min_steps=40, max_steps=400)
FROM_SCRATCH = Pace(epochs=30, min_steps=200, max_steps=2000)
ENCODER_LEARNING_RATE = 3e-4  # of MBT encoders
HUB_ENCODER_LEARNING_RATE = 3e-5  # of the larger transformers of others, as is usual
ONE_IN_TWENTY = 1.645  # standard deviations that a normal distribution exceeds so often
REFIT_NAME = "all_labels"


def fine_tune_head_first(
    start: Callable[[LinearHead, np.ndarray], FullTraining],
    examples: Examples,
    rows: Mapping[str, np.ndarray],
    num_classes: int,
    seed: int,
    output_dir: Path,
    description: str,
    uploads: HubUploads | None = None,
) -> Classifier:
    """Fits the head, trains the whole network from there, and keeps the weights between both that validation prefers.

    Weights are compared after training on the training clips, as `WeightPath.choose` says. Unless the probe is kept,
    the network then trains once more, on all labeled clips, as the probe does.

    Args:
        start: (head, positions of clips) -> the training, from this head, on these clips.
        examples: All clips, represented by the encoder as it is.
        rows: train, validation -> positions of the clips whose labels are given.
        num_classes: K.
        seed: Of cross-validation.
        output_dir: Folder of logs and checkpoints.
        description: Text in front of the progress bar.
        uploads: Gets the checkpoints of the training on all labels.
    """
    began = time.monotonic()
    features, labels, train, validation = examples.features, examples.labels, rows["train"], rows["validation"]
    probe = fit_linear_head(
        features[train], labels[train], features[validation], labels[validation], num_classes, seed
    )
    head = fit_kind(features[train], labels[train], num_classes, probe.kind)
    training = start(head.calibrated(features[validation], labels[validation]).scaled(), train)
    path = WeightPath(training.model)
    training.run(output_dir, description)
    path.end_here()
    preferred = preferred_alpha(len(train), len(np.unique(labels[train])))
    alpha, accuracy = path.choose(lambda: training.logits_on(validation), preferred)
    training.accelerator.free_memory()
    training = start(probe.scaled(), np.concatenate([train, validation]))
    path = WeightPath(training.model)
    if alpha > 0:
        training.run(output_dir / REFIT_NAME, f"{description}, all labels", uploads)
    path.end_here()
    path.go_to(alpha)
    return training.classifier(accuracy, len(train), (time.monotonic() - began) / 60, alpha)


def train_from_scratch(
    start: Callable[[float, np.ndarray], FullTraining],
    learning_rates: Sequence[float],
    rows: Mapping[str, np.ndarray],
    output_dir: Path,
    description: str,
    uploads: HubUploads | None = None,
) -> Classifier:
    """Trains a network as it is initialized with each learning rate, then, with the best one, on all labeled clips.

    Of a single rate there is nothing to choose: it trains on all labeled clips only, and no accuracy on validation is
    known.

    Args:
        start: (learning rate, positions of clips) -> the training on these clips.
        learning_rates: To choose from.
        rows: train, validation -> positions of the clips whose labels are given; the latter choose.
        output_dir: Folder of logs and checkpoints, one below it for each of several learning rates.
        description: Text in front of the progress bar.
        uploads: Gets the checkpoints of the training on all labels.
    """
    began = time.monotonic()
    best_rate, accuracies = learning_rates[0], {}
    if len(learning_rates) > 1:
        for rate in dict.fromkeys(learning_rates):
            training = start(rate, rows["train"])
            training.run(output_dir / f"learning_rate_{rate:.12g}", f"{description}, learning rate {rate:g}")
            accuracies[rate] = training.accuracy_on(rows["validation"])
            training.accelerator.free_memory()
        best_rate = max(accuracies, key=lambda rate: accuracies[rate])
    training = start(best_rate, np.concatenate([rows["train"], rows["validation"]]))
    training.run(output_dir / REFIT_NAME, f"{description}, all labels", uploads)
    return training.classifier(accuracies.get(best_rate), len(rows["train"]), (time.monotonic() - began) / 60)


class WeightPath:
    """The straight line between a network's weights as they are and as they are after training; both as copies."""

    def __init__(self, model: nn.Module):
        self.model, self.start = model, _weights(model)
        self.end = self.start

    def end_here(self) -> None:
        """Lets the line end at the weights as they are now."""
        self.end = _weights(self.model)

    def go_to(self, alpha: float) -> None:
        """Sets the network to the weights at `alpha`: 0 is the start and 1 the end, buffers included."""
        device = next(self.model.parameters()).device
        weights = {
            name: torch.lerp(value, self.end[name], alpha) if value.is_floating_point() else self.end[name]
            for name, value in self.start.items()
        }
        self.model.load_state_dict({name: value.to(device) for name, value in weights.items()})

    def choose(self, classify: Callable[[], tuple[np.ndarray, np.ndarray]], preferred: float) -> tuple[float, float]:
        """Chooses an alpha and goes to it; returns it and its accuracy.

        It is the nearest to the preferred one which the best is not clearly better than, as few clips show little.

        Args:
            classify: Returns logits (N, K) and labels (N,) of clips, always the same.
            preferred: The alpha to choose if others are not clearly better.
        """
        correct = {}
        for alpha in ALPHAS:
            self.go_to(alpha)
            logits, labels = classify()
            correct[alpha] = logits.argmax(axis=1) == labels
        best = max(ALPHAS, key=lambda alpha: correct[alpha].sum())
        chosen = next(
            alpha
            for alpha in sorted(ALPHAS, key=lambda alpha: abs(alpha - preferred))
            if not is_clearly_better(correct[best], correct[alpha])
        )
        self.go_to(chosen)
        return chosen, float(correct[chosen].mean())


def preferred_alpha(num_clips: int, num_classes: int) -> float:
    """Returns the alpha to prefer of a network that learned from so many clips: a quarter if classes have many.

    There, it was better than the start in nearly all experiments, where validation was too small to show it. From few
    clips, a network learns voices and rooms as well as what tells classes apart (docs/finetuning_experiments.md).
    """
    return A_QUARTER if num_clips >= MANY_CLIPS * num_classes else 0.0


def describe_weights(alpha: float | None) -> str:
    """Returns which weights between the probe and the fine-tuned network were kept."""
    if alpha == 0:
        return "the probe, as validation does not show that fine-tuned weights are better"
    return "the fine-tuned weights" if alpha == 1 else f"weights {alpha:g} of the way from the probe"


def is_clearly_better(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether a classifier is better than another by more than chance gives one time in twenty.

    McNemar's test, one-sided, with the normal approximation: only clips that one of the two alone classifies correctly
    count, and three gained are enough if none is lost.

    Args:
        first: Which clips it classifies correctly, (N,).
        second: The same of the other one.
    """
    gained, lost = int((first & ~second).sum()), int((second & ~first).sum())
    return gained - lost > ONE_IN_TWENTY * math.sqrt(gained + lost)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().cpu().clone() for name, value in model.state_dict().items()}
