"""The results of a sweep: what was done before, what comes in, and the report in the end."""

import hashlib
import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any

import pandas as pd

from mbt_speech.arguments import CONTROLS, FinetuneArguments
from mbt_speech.command_line import read_label_map
from mbt_speech.data.labeled_speech import LabeledSpeech
from mbt_speech.data.sources import source
from mbt_speech.probing.classification import Classifier
from mbt_speech.run_arguments import decisive
from mbt_speech.training.output_folder import RESULTS_NAME
from mbt_speech.training.run_log import append_line, read_lines, write_lines
from modeling_mbt import MBTConfig

from .label_curves import write_sweep

MODEL_NAMES = ("config.json", "model.safetensors", "README.md")
FROZEN, TRAINED = "frozen", "trained"


@dataclass(frozen=True)
class SweepRun:
    """One classifier: which encoder, how many labels, which seed."""

    method: str
    label_fraction: float
    seed: int
    digest: str
    """Tells methods of the same name apart, such as a model that was trained anew."""

    @property
    def name(self) -> str:
        """Returns the name of its folder within a sweep."""
        return f"{Path(self.method).name}-{self.digest}-{self.label_fraction:.12g}-seed{self.seed}"


def can_be_saved(line: Mapping[str, Any]) -> bool:
    """Whether the classifier of a line of results is a model: of MBT always, of others if they were trained."""
    return line["model_type"] == MBTConfig.model_type or line["encoder"] == TRAINED


class Results:
    """Lines of `results.jsonl`, those of earlier calls with the same settings among them.

    Args:
        args: The run.
        speech: The task.
        runs: What this call is about.
    """

    def __init__(self, args: FinetuneArguments, speech: LabeledSpeech, runs: list[SweepRun]):
        self.args, self.speech = args, speech
        self._names = {run.name for run in runs}  # before training, which may write into the folder of a model
        self._path = Path(args.output_dir, RESULTS_NAME)
        self.settings = _settings(args, speech)
        # Lines since the settings changed for the last time: the model at the top of the folder is one of theirs.
        self._starts_over = args.overwrite_output_dir and args.resume_from_checkpoint is None
        latest = reversed([] if self._starts_over else read_lines(self._path))
        found = list(takewhile(lambda line: line.get("settings") == self.settings, latest))[::-1]
        self._done = _of_present_models(found, runs)
        self._has_outdated = len(self._done) < len(found)

    def begin(self) -> None:
        """Deletes lines that do not count any more; to be called once everything is in order.

        They are all lines of earlier calls if this one starts over, which also deletes the model at the top of the
        folder, and those of models that have changed since.
        """
        if self._starts_over:
            self._path.unlink(missing_ok=True)
            if not any(Path(name).resolve() == self._path.parent.resolve() for name in self.args.model_name_or_path):
                for name in MODEL_NAMES:
                    self._path.with_name(name).unlink(missing_ok=True)
        elif self._has_outdated:
            write_lines(self._path, self._done)

    def __contains__(self, run: SweepRun) -> bool:
        return any(line["run"] == run.name for line in self._done)

    def line(self, run: SweepRun, model_type: str, classifier: Classifier) -> dict[str, Any]:
        """Returns the line of a classifier, whose encoder is of some type."""
        return {
            "run": run.name,
            "settings": self.settings,
            "task": self.args.label_column_name,
            "method": run.method,
            "label_fraction": run.label_fraction,
            "seed": run.seed,
            "model_type": model_type,
            "encoder": FROZEN if self.args.freeze_encoder else TRAINED,
            "unit": self.speech.unit,
            "num_train": classifier.num_train,
            "num_test": classifier.num_test,
            "chance": classifier.chance,
            "alpha": classifier.alpha,
            "steps": classifier.steps,
            "minutes": round(classifier.minutes, 2),
            "validation_accuracy": classifier.validation_accuracy,
            **classifier.test_scores,
        }

    def is_best(self, line: Mapping[str, Any]) -> bool:
        """Whether a line is of a model that can be saved, and ranks above all before; the first one does."""
        best = self.saved_line
        return can_be_saved(line) and (best is None or validation_rank(line) > validation_rank(best))

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Returns all lines with these settings, those of other runs in this folder among them."""
        return self._done

    @property
    def saved_line(self) -> dict[str, Any] | None:
        """Returns the line of the model at the top of `output_dir`, if one was saved."""
        return max(filter(can_be_saved, self._done), key=validation_rank, default=None)

    def add(self, line: dict[str, Any]) -> None:
        """Writes a line."""
        append_line(self._path, line)
        self._done.append(line)

    def report(self) -> None:
        """Writes results.csv, and table and picture over all seeds, of the runs of this call; prints the table."""
        lines = [line for line in self._done if line["run"] in self._names]
        pd.DataFrame(lines).drop(columns=["run", "settings"]).to_csv(self._path.with_suffix(".csv"), index=False)
        shown = [{name: value for name, value in line.items() if name not in ("run", "settings")} for line in lines]
        pretrained = [method for method in self.args.model_name_or_path if method not in CONTROLS]
        print(f"\n{write_sweep(shown, pretrained, self._path.parent, source(self.args))}")


def _of_present_models(lines: list[dict[str, Any]], runs: Sequence[SweepRun]) -> list[dict[str, Any]]:
    """Returns lines without those of models that have changed since, and with the names that models have now.

    If the model at the top of the folder is of one that has changed, no line is left: another is to take its place.
    """
    digests = {os.path.abspath(run.method): run.digest for run in runs if run.method not in CONTROLS}
    names = {run.name: run.method for run in runs}

    def is_outdated(line: Mapping[str, Any]) -> bool:
        digest = digests.get(os.path.abspath(line["method"]))
        return digest is not None and not line["run"].startswith(f"{Path(line['method']).name}-{digest}-")

    saved = max(filter(can_be_saved, lines), key=validation_rank, default=None)
    if saved is not None and is_outdated(saved):
        return []
    return [line | {"method": names.get(line["run"], line["method"])} for line in lines if not is_outdated(line)]


def validation_rank(result: Mapping[str, Any]) -> tuple[float, float]:
    """Returns what results are compared by: their share of the labels, then accuracy on validation, -1 if not known.

    A smaller share has fewer validation clips as well, other ones, on which a worse model can be more accurate.
    """
    accuracy = result["validation_accuracy"]  # of a table, NaN
    return result["label_fraction"], -1.0 if accuracy is None or math.isnan(accuracy) else accuracy


def _settings(args: FinetuneArguments, speech: LabeledSpeech) -> str:
    """Returns a digest of what a result depends on beside its run: recordings, labels, splits and arguments."""
    of_runs = {"model_name_or_path", "label_fraction", "seed"}
    values = {name: value for name, value in decisive(args).items() if name not in of_runs}
    values["label_map"] = read_label_map(args.label_map)  # of a file, what it holds
    words = f"{speech.fingerprint} {speech.labels_fingerprint()} {json.dumps(values, sort_keys=True)}"
    return hashlib.sha256(words.encode()).hexdigest()[:16]
