"""Classify speech with few labels: fine-tune encoders, or fit a linear head on them, and compare with controls.

    accelerate launch run_finetune.py --model_name_or_path runs/mine --train_dir DIR --label_column_name speaker \
        --output_dir runs/speaker --freeze_encoder
    python run_finetune.py --model_name_or_path runs/bt runs/mbt random stats --label_fraction 0.05 1 --seed 0 1 2 ...

Axes: N clips, H features of a representation, K classes.
"""

import sys

from training_mbt.arguments import CONTROLS, FinetuneArguments, parse_arguments, parse_overrides

if __name__ == "__main__":
    parse_arguments(FinetuneArguments)  # --help and mistakes are answered before the imports below take their seconds

import dataclasses
import hashlib
import json
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
from accelerate import Accelerator
from accelerate.utils import set_seed
from transformers import AutoFeatureExtractor

from feature_extraction import BadAudioError, MBTAugmentation, MBTFeatureExtractor
from modeling_mbt import MBTConfig, MBTForSequenceClassification
from training_mbt.checkpoints import CheckpointError
from training_mbt.classification import Classifier, fit_frozen, fit_full
from training_mbt.embeddings import cached_embeddings, embed_clips, model_fingerprint
from training_mbt.hub import HubUploads
from training_mbt.label_curves import report_sweep
from training_mbt.label_fractions import select_label_fraction
from training_mbt.labelled_speech import PARTS, LabelledSpeech, load_labelled_speech
from training_mbt.launch import start_cpu_processes
from training_mbt.loop import create_accelerator
from training_mbt.model_card import source, write_classifier_card
from training_mbt.pictures import draw_embedding_maps, draw_spectra
from training_mbt.presets import PRESETS

RESULTS_NAME = "results.jsonl"
# What leaves the label true: parts of the spectrogram are hidden (SpecAugment, arXiv 1904.08779).
AUGMENTATION = {"features": [{"name": "time_mask", "width": 0.2}, {"name": "frequency_mask", "width": 0.2}]}


@dataclass(frozen=True)
class Run:
    """One classifier: which encoder, how many labels, which seed."""

    method: str
    label_fraction: float
    seed: int

    @cached_property
    def name(self) -> str:
        """Folder name within a sweep; a model that was trained anew has another."""
        weights = Path(self.method, "model.safetensors")
        identity = weights.read_bytes() if weights.is_file() else self.method.encode()
        digest = hashlib.sha256(identity).hexdigest()[:8]
        return f"{Path(self.method).name}-{digest}-{self.label_fraction:g}-seed{self.seed}"


def main(argv: list[str] | None = None) -> None:
    """Fit every classifier asked for; leave the results and, at the top, the best model on validation."""
    args = parse_arguments(FinetuneArguments, argv)
    accelerator = create_accelerator(args, "finetune", args.seed[0])
    uploads = HubUploads(args, accelerator)
    extractors = load_extractors(args)
    speech = load_labelled_speech(args, accelerator, next(iter(extractors.values())).sampling_rate)
    announce(args, accelerator, speech)
    runs = [Run(m, f, s) for m in args.model_name_or_path for f in args.label_fraction for s in args.seed]
    names = {run.name for run in runs}  # before training, which may write into the folder of a model
    done = read_results(args, speech)
    for number, run in enumerate(runs):
        if any(line["run"] == run.name for line in done):
            continue
        set_seed(run.seed)
        output_dir = Path(args.output_dir) if len(runs) == 1 else Path(args.output_dir, "runs", run.name)
        classifier, num_train = classify(
            args, accelerator, speech, extractors[run.method], run, output_dir, uploads if len(runs) == 1 else None
        )
        accelerator.print(
            f"[{number + 1}/{len(runs)}] {run.method}, {run.label_fraction:.4g} of the labels ({num_train} clips), "
            f"seed {run.seed}: {args.label_column_name} accuracy {100 * classifier.accuracy:.1f} %"
        )
        if accelerator.is_main_process:
            save_if_best(args, extractors[run.method], classifier, done)
            done.append(write_result(args, speech, run, classifier, num_train))
    accelerator.wait_for_everyone()
    if args.freeze_encoder:
        draw_representations(args, accelerator, speech, extractors)
    if accelerator.is_main_process:
        results = [line for line in done if line["run"] in names]
        report(args, results)
        if any(line["method"] != "stats" for line in results):
            config = MBTConfig.from_pretrained(args.output_dir)
            write_classifier_card(args, config, results, next(iter(extractors.values())).sampling_rate)
    uploads.finish()


def load_extractors(args: FinetuneArguments) -> dict[str, MBTFeatureExtractor]:
    """Load every model's own extractor; the controls hear what the first model hears, or else the preset.

    Raises:
        ValueError: The models hear at different sampling rates.
    """
    pretrained = {
        method: AutoFeatureExtractor.from_pretrained(method, token=args.hub_token)
        for method in args.model_name_or_path
        if method not in CONTROLS
    }
    of_controls = next(iter(pretrained.values()), None) or PRESETS[args.preset].extractor()
    extractors = {method: pretrained.get(method, of_controls) for method in args.model_name_or_path}
    if len({extractor.sampling_rate for extractor in extractors.values()}) > 1:
        raise ValueError("The models hear at different sampling rates: compare them in calls of their own.")
    return extractors


def announce(args: FinetuneArguments, accelerator: Accelerator, speech: LabelledSpeech) -> None:
    """Say what is to be learnt from what."""
    sizes = ", ".join(f"{len(speech.rows[part])} {part}" for part in PARTS)
    accelerator.print(
        f"Classifying {args.label_column_name}: {len(speech.label_names)} classes, {sizes} clips; always naming the "
        f"most frequent class scores {100 * speech.chance():.1f} %."
    )


def classify(
    args: FinetuneArguments,
    accelerator: Accelerator,
    speech: LabelledSpeech,
    extractor: MBTFeatureExtractor,
    run: Run,
    output_dir: Path,
    uploads: HubUploads | None,
) -> tuple[Classifier, int]:
    """Fit one classifier; gives it and the number of its training clips."""
    train_rows = speech.rows["train"]
    chosen = select_label_fraction(speech.clips.labels[train_rows], run.label_fraction, run.seed)
    train_rows = train_rows[chosen]
    model = None if run.method == "stats" else load_model(args, run, speech.label_names)
    if args.freeze_encoder:
        features = represent(args, accelerator, speech, extractor, model)
        return fit_frozen(speech, features, train_rows, model), len(train_rows)
    assert model is not None
    output_dir.mkdir(parents=True, exist_ok=True)
    classifier = fit_full(
        args,
        accelerator,
        speech,
        train_rows,
        model,
        extractor,
        MBTAugmentation.from_dict(parse_overrides("augmentation", args.augmentation) or AUGMENTATION),
        output_dir=output_dir,
        seed=run.seed,
        eval_steps=args.eval_steps,
        description=f"{run.method} seed {run.seed}",
        uploads=uploads,
    )
    accelerator.free_memory()
    return classifier, len(train_rows)


def load_model(args: FinetuneArguments, run: Run, label_names: list[str]) -> MBTForSequenceClassification:
    """Load a pre-trained encoder under a new classifier, or initialise one of the same architecture."""
    labels = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: number for number, name in enumerate(label_names)},
    }
    if run.method not in CONTROLS:
        model, loading = MBTForSequenceClassification.from_pretrained(  # pyright: ignore[reportGeneralTypeIssues]
            run.method, output_loading_info=True, token=args.hub_token, **labels
        )
        if missing := sorted(name for name in loading["missing_keys"] if not name.startswith("classifier.")):
            raise ValueError(f"{run.method} holds no MBT encoder: it lacks {missing[0]}.")
        return model
    pretrained = [name for name in args.model_name_or_path if name not in CONTROLS]
    if pretrained:
        config = MBTConfig.from_pretrained(pretrained[0], token=args.hub_token, **labels, encoder_density=1.0)
        return MBTForSequenceClassification(config)
    return MBTForSequenceClassification(PRESETS[args.preset].config(**labels))


def represent(
    args: FinetuneArguments,
    accelerator: Accelerator,
    speech: LabelledSpeech,
    extractor: MBTFeatureExtractor,
    model: MBTForSequenceClassification | None,
) -> np.ndarray:
    """Represent all clips by the frozen encoder, (N, H), from the cache if this was done before."""
    key = {
        "audio": speech.fingerprint,
        "max_length_seconds": args.max_length_seconds,
        "extractor": extractor.to_dict(),
        "model": None if model is None else model_fingerprint(model.mbt),
    }
    return cached_embeddings(
        key,
        lambda: embed_clips(
            accelerator,
            None if model is None else model.mbt,
            extractor,
            speech.clips,
            batch_size=args.per_device_train_batch_size,
            num_workers=args.dataloader_num_workers,
            description="Representing the clips",
        ),
    )


def draw_representations(
    args: FinetuneArguments,
    accelerator: Accelerator,
    speech: LabelledSpeech,
    extractors: dict[str, MBTFeatureExtractor],
) -> None:
    """Draw maps of the test clips and the spectrum of every representation."""
    features, rows = {}, speech.rows["test"]
    for method, name in short_names(args.model_name_or_path).items():
        set_seed(args.seed[0])
        model = None if method == "stats" else load_model(args, Run(method, 1.0, args.seed[0]), speech.label_names)
        features[name] = represent(args, accelerator, speech, extractors[method], model)[rows]
    if accelerator.is_main_process:
        folder, title = Path(args.output_dir), f"{args.label_column_name}, {source(args)}, test clips"
        draw_embedding_maps(folder / "embeddings.png", features, speech.clips.labels[rows], speech.label_names, title)
        draw_spectra(folder / "spectra.png", features, f"Covariance of the representations\n{title}")


def settings(args: FinetuneArguments, speech: LabelledSpeech) -> str:
    """Digest what a result depends on beside its run: the recordings and the arguments."""
    neutral = {"model_name_or_path", "label_fraction", "seed", "output_dir", "resume_from_checkpoint", "report_to"}
    values = {name: value for name, value in asdict(args).items() if name not in neutral and "hub" not in name}
    return hashlib.sha256(f"{speech.fingerprint} {json.dumps(values, sort_keys=True)}".encode()).hexdigest()[:16]


def read_results(args: FinetuneArguments, speech: LabelledSpeech) -> list[dict]:
    """Read the results of earlier calls with the same settings: what is there is not done again."""
    path = Path(args.output_dir, RESULTS_NAME)
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    current = settings(args, speech)
    return [line for line in lines if line["settings"] == current]


def write_result(
    args: FinetuneArguments, speech: LabelledSpeech, run: Run, classifier: Classifier, num_train: int
) -> dict:
    """Add a line to results.jsonl."""
    line = {
        "run": run.name,
        "settings": settings(args, speech),
        "task": args.label_column_name,
        **dataclasses.asdict(run),
        "encoder": "frozen" if args.freeze_encoder else "trained",
        "num_train": num_train,
        "num_test": len(speech.rows["test"]),
        "chance": speech.chance(),
        "validation_accuracy": classifier.validation_accuracy,
        **classifier.test_scores,
    }
    with Path(args.output_dir, RESULTS_NAME).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return line


def save_if_best(
    args: FinetuneArguments, extractor: MBTFeatureExtractor, classifier: Classifier, done: list[dict]
) -> None:
    """Save model and extractor at the top of `output_dir` if none before was better on validation."""
    best = max((line["validation_accuracy"] for line in done if line["method"] != "stats"), default=-1.0)
    if classifier.model is not None and classifier.validation_accuracy > best:
        classifier.model.save_pretrained(args.output_dir)
        extractor.save_pretrained(args.output_dir)


def report(args: FinetuneArguments, lines: list[dict]) -> None:
    """Write results.csv, and table and picture over shares, methods and seeds; print the table."""
    table = pd.DataFrame(lines).drop(columns=["run", "settings"])
    table.to_csv(Path(args.output_dir, "results.csv"), index=False)
    names = short_names(args.model_name_or_path)
    lines = [{**line, "method": names[line["method"]]} for line in lines]
    pretrained = [names[method] for method in args.model_name_or_path if method not in CONTROLS]
    print(f"\n{report_sweep(lines, pretrained, Path(args.output_dir), source(args))}")


def short_names(methods: list[str]) -> dict[str, str]:
    """Name models by their folders alone, or by their paths where that is not clear."""
    names = {method: Path(method).name for method in methods}
    return names if len(set(names.values())) == len(names) else {method: method for method in methods}


if __name__ == "__main__":
    start_cpu_processes()
    try:
        main()
    except (BadAudioError, CheckpointError, FloatingPointError) as error:  # what to do, without a page of traceback
        sys.exit(f"{error}")
