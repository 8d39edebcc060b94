"""Classify speech with few labels: fine-tune encoders, or fit a linear head on them, and compare with controls.

    accelerate launch run_finetune.py --model_name_or_path runs/mine --train_dir DIR --label_column_name speaker \
        --output_dir runs/speaker --freeze_encoder
    python run_finetune.py --model_name_or_path runs/bt runs/mbt stats --freeze_encoder --label_fraction 0.05 1 ...

Axes: N clips, H features of a representation, K classes.
"""

from mbt_speech.arguments import RANDOM, SUPERVISED, FinetuneArguments
from mbt_speech.command_line import parse_arguments, parse_overrides, write_recipe
from mbt_speech.stopping import stop_in_one_line

if __name__ == "__main__":
    stop_in_one_line()
    parse_arguments(FinetuneArguments)  # --help and mistakes are answered before the imports below take their seconds

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoConfig

from feature_extraction import MBTAugmentation
from mbt_speech.closing_line import closing_line
from mbt_speech.data.label_fractions import select_label_fraction
from mbt_speech.data.labeled_speech import SPLITS, LabeledSpeech, load_labeled_speech
from mbt_speech.data.sources import source
from mbt_speech.presets import CHANNELS
from mbt_speech.probing.classification import Classifier, chance, fit_frozen
from mbt_speech.probing.encoders import MBTFrozenEncoder
from mbt_speech.probing.examples import Examples, represent
from mbt_speech.probing.frame_classifier import FrameClassifier
from mbt_speech.probing.hub_classifiers import HubClassifier
from mbt_speech.probing.linear_fits import LinearHead
from mbt_speech.probing.methods import Methods
from mbt_speech.reports.label_curves import short_names
from mbt_speech.reports.model_card import write_classifier_card
from mbt_speech.reports.pictures import draw_embedding_maps, draw_spectra
from mbt_speech.reports.results import Results, SweepRun
from mbt_speech.training.checkpoints import whole_checkpoint
from mbt_speech.training.fine_tuning import FullTraining, LogMelInputs, Pace, waveform_inputs
from mbt_speech.training.head_first import (
    ENCODER_LEARNING_RATE,
    FROM_PROBE,
    FROM_SCRATCH,
    HUB_ENCODER_LEARNING_RATE,
    describe_weights,
    fine_tune_head_first,
    train_from_scratch,
)
from mbt_speech.training.hub_uploads import HubUploads
from mbt_speech.training.launch import create_accelerator, obey_launcher
from mbt_speech.user_errors import explain_user_errors
from modeling_mbt import MBTConfig, MBTForSequenceClassification

# From scratch, clips are distorted by what leaves the label true: another microphone or line, and hidden parts of the
# spectrogram (SpecAugment, arXiv 1904.08779). Pre-trained encoders do best without (docs/finetuning_experiments.md).
FROM_SCRATCH_AUGMENTATION = {"features": [step for step in CHANNELS["features"] if step["name"] != "mixup"]}


def main(argv: list[str] | None = None) -> None:
    """Fits every classifier asked for; leaves the results and, at the top, the best model with the most labels."""
    args = parse_arguments(FinetuneArguments, argv)
    if args.resume_from_checkpoint not in (None, "auto"):
        whole_checkpoint(args.resume_from_checkpoint)
    accelerator = create_accelerator(args, "finetune", args.seed[0])
    uploads = HubUploads(args, accelerator)
    methods = Methods(args)
    speech = load_labeled_speech(args, accelerator, methods.sampling_rate)
    announce(args, accelerator, speech)
    digests = {method: methods.digest(method) for method in args.model_name_or_path}
    runs = [SweepRun(m, f, s, digests[m]) for m in digests for f in args.label_fraction for s in args.seed]
    results = Results(args, speech, runs)
    task = Task(args, accelerator, methods, speech, uploads, results.settings, alone=len(runs) == 1)
    task.check_named_checkpoint(runs)
    write_recipe(args, accelerator.is_main_process)
    if accelerator.is_main_process:
        results.begin()
    for number, run in enumerate(runs):
        if run in results:
            continue
        classifier = task.fit(run)
        accelerator.print(
            f"[{number + 1}/{len(runs)}] {run.method}, {100 * run.label_fraction:.4g} % of the labels "
            f"({classifier.num_train} {speech.unit}), seed {run.seed}: {args.label_column_name} accuracy "
            f"{100 * classifier.accuracy:.1f} %"
        )
        if accelerator.is_main_process:
            line = results.line(run, methods.model_type(run.method), classifier)
            if results.is_best(line):
                task.save(run, classifier)
            results.add(line)
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        report(args, methods, results)
    if args.freeze_encoder and speech.unit == "clips":
        task.draw_representations()
    uploads.finish()
    accelerator.print(closing(args, speech, results.saved_line))
    accelerator.end_training()


def announce(args: FinetuneArguments, accelerator: Accelerator, speech: LabeledSpeech) -> None:
    """Prints what is to be learned from what."""
    sizes = ", ".join(f"{len(speech.rows[split])} {split}" for split in SPLITS)
    words = f"Classifying {args.label_column_name}: {len(speech.label_names)} classes, {sizes} clips"
    if speech.unit == "frames":
        accelerator.print(f"{words}, whose frames are classified.")
    else:
        share = 100 * chance(speech.clips.labels, speech.rows)
        accelerator.print(f"{words}; always predicting the most frequent class scores {share:.1f} %.")


@dataclass(frozen=True)
class Task:
    """What there is to learn, and the ways to learn it."""

    args: FinetuneArguments
    accelerator: Accelerator
    methods: Methods
    speech: LabeledSpeech
    uploads: HubUploads
    settings: str
    """Digest of what all results depend on."""
    alone: bool
    """Whether one classifier is fitted, and not a sweep."""
    _examples: dict[tuple[str, int], Examples] = field(default_factory=dict)

    def fit(self, run: SweepRun) -> Classifier:
        """Fits one classifier on its share of the labels."""
        set_seed(run.seed)
        rows = {split: self.labeled_rows(split, run) for split in ("train", "validation")}
        if not self.args.freeze_encoder:
            return self.train(run, rows)
        examples = self.represent(run.method, run.seed)
        chosen = {split: examples.choose(split, own, run.seed) for split, own in rows.items()}
        return fit_frozen(examples, chosen, len(self.speech.label_names), run.seed)

    def labeled_rows(self, split: str, run: SweepRun) -> np.ndarray:
        """Returns the positions of the clips of a split whose labels are given."""
        rows = self.speech.rows[split]
        return rows[select_label_fraction(self.speech.clips.labels[rows], run.label_fraction, run.seed)]

    def represent(self, method: str, seed: int) -> Examples:
        """Represents all clips, or their frames, by a frozen encoder, from the cache if this was done before."""
        made = (method, seed if method == RANDOM else 0)  # no seed changes a pre-trained encoder, or statistics
        if made not in self._examples:
            encoder = self.methods.clip_encoder(method, seed)
            self._examples[made] = represent(self.args, self.accelerator, self.speech, encoder)
        return self._examples[made]

    def folder(self, run: SweepRun) -> Path:
        """Returns the folder of the networks that are trained for a classifier."""
        return Path(self.args.output_dir, *(() if self.alone else ("runs", run.name)))

    def check_named_checkpoint(self, runs: Sequence[SweepRun]) -> None:
        """Makes sure that one of the networks that this run trains can go on from the checkpoint that is named.

        Raises:
            ValueError: It is not in a folder of theirs.
        """
        named = self.args.resume_from_checkpoint
        if named in (None, "auto"):
            return
        place, folders = Path(named).resolve().parent, {self.folder(run).resolve() for run in runs}
        if not folders & {place, place.parent}:
            raise ValueError(
                f"{named} is of no network that this run trains below {self.args.output_dir}: each goes on in the "
                "folder in which it began. Name another --output_dir, or --resume_from_checkpoint auto."
            )

    def train(self, run: SweepRun, rows: dict[str, np.ndarray]) -> Classifier:
        """Trains an encoder with its classifier: from scratch, or from the head that fits it as it is."""
        args, output_dir = self.args, self.folder(run)
        output_dir.mkdir(parents=True, exist_ok=True)
        description, uploads = f"{run.method} seed {run.seed}", self.uploads if self.alone else None
        if run.method == SUPERVISED:
            classifier = train_from_scratch(
                partial(self.training_from_scratch, run),
                args.supervised_learning_rates,
                rows,
                output_dir,
                description,
                uploads,
            )
        else:
            examples, num_classes = self.represent(run.method, run.seed), len(self.speech.label_names)
            start = partial(self.training_from_head, run)
            classifier = fine_tune_head_first(
                start, examples, rows, num_classes, run.seed, output_dir, description, uploads
            )
            self.accelerator.print(f"{description}: kept {describe_weights(classifier.alpha)}.")
        self.accelerator.free_memory()
        return classifier

    def training_from_head(self, run: SweepRun, head: LinearHead, rows: np.ndarray) -> FullTraining:
        """Returns the training of an encoder from a head that was fitted on it."""
        set_seed(run.seed)
        model = self.methods.with_head(run.method, run.seed, head, self.speech.label_names)
        rate = self.args.encoder_learning_rate
        if rate is None:
            rate = ENCODER_LEARNING_RATE if self.methods.is_mbt(run.method) else HUB_ENCODER_LEARNING_RATE
        return self.training(run, rows, model, FROM_PROBE, self.args, rate, {})

    def training_from_scratch(self, run: SweepRun, learning_rate: float, rows: np.ndarray) -> FullTraining:
        """Returns the training of a new network."""
        set_seed(run.seed)
        model = self.methods.new_classifier(self.speech.label_names)
        args = replace(self.args, learning_rate=learning_rate)
        return self.training(run, rows, model, FROM_SCRATCH, args, learning_rate, FROM_SCRATCH_AUGMENTATION)

    def training(
        self,
        run: SweepRun,
        rows: np.ndarray,
        model: MBTForSequenceClassification | HubClassifier,
        pace: Pace,
        args: FinetuneArguments,
        encoder_learning_rate: float,
        distortions: dict[str, Any],
    ) -> FullTraining:
        """Returns the training of a network; the distortions are the default ones."""
        extractor, is_mbt = self.methods.extractors[run.method], self.methods.is_mbt(run.method)
        if args.augmentation is not None:
            distortions = parse_overrides("augmentation", args.augmentation)
        return FullTraining(
            args,
            self.accelerator,
            self.speech,
            rows,
            model,
            extractor,
            LogMelInputs(extractor, MBTAugmentation.from_dict(distortions)) if is_mbt else waveform_inputs,
            f"{run.name} {self.settings}",
            run.seed,
            pace,
            encoder_learning_rate,
            # Other models take care of padding themselves; batch norm that has all to learn needs whole batches.
            in_parts=is_mbt and run.method != SUPERVISED,
        )

    def save(self, run: SweepRun, classifier: Classifier) -> None:
        """Saves a model and its extractor at the top of `output_dir`."""
        fitted: Any = classifier.fitted
        extractor = self.methods.extractors[run.method]
        if isinstance(fitted, LinearHead) and self.speech.unit == "frames":
            encoder = self.methods.frozen_encoder(run.method, run.seed)
            assert isinstance(encoder, MBTFrozenEncoder)
            fitted = FrameClassifier.from_head(encoder.model, extractor, fitted, self.speech.label_names)
        elif isinstance(fitted, LinearHead):
            fitted = self.methods.with_head(run.method, run.seed, fitted, self.speech.label_names)
        elif isinstance(fitted, HubClassifier):
            fitted = fitted.hub
            for code in Path(self.args.output_dir).glob("*_mbt.py"):  # of the model that was the best before
                code.unlink()
        fitted.save_pretrained(self.args.output_dir)
        extractor.save_pretrained(self.args.output_dir)

    def draw_representations(self) -> None:
        """Draws maps of the test clips and the spectrum of every representation."""
        args, speech, rows = self.args, self.speech, self.speech.rows["test"]
        names = short_names(args.model_name_or_path)
        features = {name: self.represent(method, args.seed[0]).features[rows] for method, name in names.items()}
        if self.accelerator.is_main_process:
            folder, title = Path(args.output_dir), f"{args.label_column_name}, {source(args)}, test clips"
            labels = speech.clips.labels[rows]
            draw_embedding_maps(folder / "embeddings.png", features, labels, speech.label_names, title)
            draw_spectra(folder / "spectra.png", features, f"Covariance of the representations\n{title}")


def report(args: FinetuneArguments, methods: Methods, results: Results) -> None:
    """Writes tables and pictures and, where a model was saved, its card."""
    results.report()
    if results.saved_line is not None:
        config = AutoConfig.from_pretrained(args.output_dir)
        write_classifier_card(args, config, results.lines, methods.sampling_rate)


def closing(args: FinetuneArguments, speech: LabeledSpeech, saved: Mapping[str, Any] | None) -> str:
    """Returns the last line: where the results are, and how to use the classifier if an MBT one of clips was saved."""
    if speech.unit == "clips" and saved is not None and saved["model_type"] == MBTConfig.model_type:
        words = ("predict", args.output_dir, "RECORDING")
        return closing_line(f"The classifier and its results are in {args.output_dir}", "mbt", *words)
    runs_dir = Path(args.output_dir).parent
    return closing_line(f"The results are in {args.output_dir}", "mbt", "report", "--runs_dir", runs_dir)


if __name__ == "__main__":
    obey_launcher()
    with explain_user_errors():
        main()
