"""Pre-train and fine-tune MBT with transformers' own Trainer, on a folder of labeled recordings.

    python examples/trainer.py labeled --output_dir runs/trainer

Sub-folders are classes; every fifth recording of a class is for evaluation. Audio is decoded item by item, features
and views are computed batch by batch in the collator. `run_pretrain.py` and `run_finetune.py` do more: objectives of
the whole batch over processes and micro-batches, exact resuming, a choice among heads on validation.

Axes: B clips, S samples, T frames, M mel bins.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import Trainer, TrainingArguments, set_seed

from feature_extraction import MBTAugmentation, MBTFeatureExtractor, to_waveform
from feature_extraction.sound_sources import AUDIO_SUFFIXES
from mbt_speech.presets import PRESETS
from mbt_speech.user_errors import explain_user_errors
from modeling_mbt import MBTForPreTraining, MBTForSequenceClassification


class Recordings(Dataset):
    """Waveforms and class ids; the labels may be ignored."""

    def __init__(self, files: list[Path], label_names: list[str]):
        self.files, self.label_names = files, label_names

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict:
        label = self.label_names.index(self.files[index].parent.name)
        return {"waveform": to_waveform(self.files[index]), "label": label}


class ViewCollator:
    """Two distorted crops of each recording: the arguments of `MBTForPreTraining.forward`."""

    def __init__(self, extractor: MBTFeatureExtractor, augmentation: MBTAugmentation, crop_seconds: float, seed: int):
        self.extractor, self.augmentation = extractor, augmentation
        self.crop_samples = round(crop_seconds * extractor.sampling_rate)
        self.generator = torch.Generator().manual_seed(seed)

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """Returns features (B, T, M) and masks (B, T) of both views."""
        (view_a, mask_a), (view_b, mask_b) = (self.view([item["waveform"] for item in items]) for _ in "ab")
        return {
            "input_features": view_a,
            "attention_mask": mask_a,
            "input_features_b": view_b,
            "attention_mask_b": mask_b,
        }

    def view(self, waveforms: list[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Cuts a crop of each, shorter where the recording is, and distorts it."""
        crops = torch.zeros(len(waveforms), self.crop_samples)
        lengths = torch.tensor([min(len(waveform), self.crop_samples) for waveform in waveforms])
        for crop, waveform, length in zip(crops, waveforms, lengths.tolist(), strict=True):
            start = int(torch.randint(len(waveform) - length + 1, (1,), generator=self.generator))
            crop[:length] = torch.from_numpy(waveform[start : start + length])
        return self.augmentation(crops, self.extractor, self.generator, lengths)


class ClipCollator:
    """Whole recordings and their labels: the arguments of `MBTForSequenceClassification.forward`."""

    def __init__(self, extractor: MBTFeatureExtractor):
        self.extractor = extractor

    def __call__(self, items: list[dict]) -> dict[str, torch.Tensor]:
        """Returns features (B, T, M), masks (B, T) and labels (B,)."""
        waveforms = [item["waveform"] for item in items]
        rate = self.extractor.sampling_rate
        inputs = self.extractor(waveforms, sampling_rate=rate, return_attention_mask=True, return_tensors="pt")
        return {**inputs, "labels": torch.tensor([item["label"] for item in items])}


def main() -> None:
    """Pre-trains without the labels, then trains a classifier with them."""
    args = parse_args()
    set_seed(0)  # of the first weights, too, which are drawn before a Trainer takes its seed
    train, test = split(args.folder)
    if len(train) < args.batch_size:
        raise ValueError(
            f"{args.folder} has {len(train)} recordings to learn from, fewer than --batch_size: lower it."
        )
    if not len(test):
        raise ValueError(f"{args.folder} has no class with five recordings, of which one would be tested: add some.")
    preset = PRESETS[args.preset]
    extractor = preset.extractor()
    encoder_dir, classifier_dir = args.output_dir / "encoder", args.output_dir / "classifier"

    collator = ViewCollator(extractor, preset.augmenter(), preset.crop_seconds, seed=0)
    trainer = Trainer(
        MBTForPreTraining(preset.config(objective=args.objective)),
        arguments(args, encoder_dir, drop_last=True),
        data_collator=collator,
        train_dataset=train,
        processing_class=extractor,
    )
    trainer.train()
    trainer.save_model()

    labels = {"id2label": dict(enumerate(train.label_names))}
    labels["label2id"] = {name: index for index, name in labels["id2label"].items()}
    trainer = Trainer(
        MBTForSequenceClassification.from_pretrained(encoder_dir, **labels),
        arguments(args, classifier_dir),
        data_collator=ClipCollator(extractor),
        train_dataset=train,
        eval_dataset=test,
        processing_class=extractor,
        compute_metrics=lambda prediction: {
            "accuracy": float((prediction.predictions.argmax(1) == prediction.label_ids).mean())
        },
    )
    trainer.train()
    trainer.save_model()
    print(f"accuracy {trainer.evaluate()['eval_accuracy']:.3f} on {len(test)} recordings; saved in {args.output_dir}")


def parse_args() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Trains MBT with transformers' Trainer.")
    parser.add_argument("folder", type=Path, help="a sub-folder of recordings for each class")
    parser.add_argument("--output_dir", type=Path, required=True)
    parser.add_argument("--preset", choices=sorted(PRESETS), default="strong")
    parser.add_argument("--objective", default="mbt")
    parser.add_argument("--max_steps", type=int, default=100, help="of each of both trainings")
    parser.add_argument("--batch_size", type=int, default=32)
    return parser.parse_args()


def split(folder: Path) -> tuple[Recordings, Recordings]:
    """Divides every class into four fifths to learn from and one, of five recordings or more, to evaluate on."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    files = {
        path.name: sorted(file for file in path.iterdir() if file.suffix.lower() in AUDIO_SUFFIXES) for path in classes
    }
    label_names = [name for name, paths in files.items() if paths]
    train = [path for paths in files.values() for index, path in enumerate(paths) if index % 5 != 4]
    test = [path for paths in files.values() for path in paths[4::5]]
    return Recordings(train, label_names), Recordings(test, label_names)


def arguments(args: argparse.Namespace, output_dir: Path, drop_last: bool = False) -> TrainingArguments:
    """Returns what both trainings share; objectives compare the clips of a batch, and want whole ones."""
    return TrainingArguments(
        output_dir=str(output_dir),
        max_steps=args.max_steps,
        per_device_train_batch_size=args.batch_size,
        learning_rate=1e-3,
        dataloader_drop_last=drop_last,
        remove_unused_columns=False,  # waveforms are no argument of the model: the collator turns them into some
        save_strategy="no",
        report_to="none",
        logging_steps=10,
        seed=0,
    )


if __name__ == "__main__":
    with explain_user_errors():
        main()
