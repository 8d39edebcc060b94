"""How good the representations are while they are learned: probes on a labeled set, its test split never touched."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
from accelerate import Accelerator
from accelerate.utils import broadcast
from sklearn.neighbors import KNeighborsClassifier

from feature_extraction import MBTFeatureExtractor
from mbt_speech.arguments import FinetuneArguments, PretrainArguments
from mbt_speech.data.label_fractions import select_label_fraction
from mbt_speech.data.labeled_speech import LabeledSpeech, load_labeled_speech
from modeling_mbt import MBTForPreTraining

from .embeddings import Embedder
from .encoders import MBTFrozenEncoder
from .linear_head import fit_linear_head

NUM_NEIGHBORS = 20
HELD_OUT = 0.2
BEST_NAME, RECORD_NAME = "best", "probe.json"


class OnlineProbe:
    """Fits classifiers on frozen representations of the training split and scores them on the validation split.

    `eval_frozen_knn20_accuracy`: the 20 nearest training clips by cosine vote, weighted by their distance.
    `eval_frozen_linear_accuracy`: a linear classifier, its kind chosen on a fifth of the training split or, where that
    is few clips, by cross-validation. The model with the best linear accuracy is kept in `best`.

    Args:
        args: The run.
        accelerator: Its processes share the clips.
        extractor: Of the model.
    """

    def __init__(self, args: PretrainArguments, accelerator: Accelerator, extractor: MBTFeatureExtractor):
        self.args, self.accelerator, self.extractor = args, accelerator, extractor
        self.speech = load_labeled_speech(probe_arguments(args), accelerator, extractor.sampling_rate)
        self.folder = Path(args.output_dir, BEST_NAME)

    def __call__(self, model: MBTForPreTraining, step: int) -> dict[str, float]:
        """Probes a model in training mode, and keeps it if it is the best so far; only process 0 gets values."""
        rows = np.concatenate([self.speech.rows["train"], self.speech.rows["validation"]])
        embedder = Embedder(
            self.accelerator,
            self.speech.clips,
            self.args.per_device_train_batch_size,
            self.args.dataloader_num_workers,
            "Probing",
        )
        broadcast(list(model.buffers()))  # running statistics are each process's own
        features = embedder.embed_clips(MBTFrozenEncoder(model.mbt, self.extractor), rows)
        model.train()
        if not self.accelerator.is_main_process:
            return {}
        values = score_probes(self.speech, features)
        self._keep_if_best(model, {"step": step, **values})
        return values

    def _keep_if_best(self, model: MBTForPreTraining, values: dict) -> None:
        if values["eval_frozen_linear_accuracy"] <= _best(self.folder)["eval_frozen_linear_accuracy"]:
            return
        partial = self.folder.with_name(f".{BEST_NAME}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        model.save_pretrained(partial)
        self.extractor.save_pretrained(partial)
        (partial / RECORD_NAME).write_text(json.dumps(values))
        shutil.rmtree(self.folder, ignore_errors=True)
        os.replace(partial, self.folder)


def discard_best(accelerator: Accelerator, output_dir: Path, step: int) -> None:
    """Deletes the best model if it is of a later step than that from which the run goes on, or of another run."""
    folder = output_dir / BEST_NAME
    if accelerator.is_main_process and _best(folder)["step"] > step:
        shutil.rmtree(folder, ignore_errors=True)


def _best(folder: Path) -> dict[str, float]:
    record = folder / RECORD_NAME
    if not record.is_file():
        return {"step": 0, "eval_frozen_linear_accuracy": -1.0}
    return json.loads(record.read_text())


def probe_arguments(args: PretrainArguments) -> FinetuneArguments:
    """Returns fine-tuning's arguments for the labeled recordings."""
    return FinetuneArguments(
        output_dir=args.output_dir,
        dataset_name=args.probe_dataset_name,
        dataset_config_name=args.probe_dataset_config_name,
        train_dir=args.probe_train_dir,
        label_column_name=args.probe_label_column_name,
        split_column_name=args.probe_split_column_name,
        model_name_or_path=[args.output_dir],
        allow_outside_paths=args.allow_outside_paths,
        hub_token=args.hub_token,
        on_bad_audio=args.on_bad_audio,
        seed=[args.seed],
    )


def score_probes(speech: LabeledSpeech, features: np.ndarray) -> dict[str, float]:
    """Scores both probes on the validation split, with features (N, H) of its and the training rows."""
    train, validation = speech.rows["train"], speech.rows["validation"]
    labels, num_classes = speech.clips.labels, len(speech.label_names)
    held_out = np.zeros(len(train), bool)
    held_out[select_label_fraction(labels[train], HELD_OUT, seed=0)] = True
    fit, choose = (train, train) if held_out.all() else (train[~held_out], train[held_out])
    head = fit_linear_head(features[fit], labels[fit], features[choose], labels[choose], num_classes)
    neighbors = KNeighborsClassifier(min(NUM_NEIGHBORS, len(train)), weights="distance", metric="cosine")
    neighbors.fit(features[train], labels[train])
    predictions = {"knn20": neighbors.predict(features[validation]), "linear": head.predict(features[validation])}
    return {
        f"eval_frozen_{name}_accuracy": float((found == labels[validation]).mean())
        for name, found in predictions.items()
    }
