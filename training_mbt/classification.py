"""Labelled speech, and the two ways to classify it: a linear head on frozen representations, or the whole network.

Axes: N clips, B clips of a batch, H features of a representation, K classes.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import evaluate
import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from feature_extraction.crops import ClipDataset, collate_clips
from modeling_mbt import MBTForSequenceClassification, MBTModel

from .accumulation import Losses, backpropagate_mean
from .arguments import RunArguments
from .examples import Examples
from .hub import HubUploads
from .interruption import keep_out_of_signals
from .labelled_speech import LabelledSpeech
from .linear_head import LinearHead, fit_linear_head
from .loop import train
from .sparsity import SparseTraining
from .step_sampler import StepSampler, derive_seed, steps_per_epoch

METRICS = ("top1_accuracy", "balanced_accuracy", "macro_f1")


@dataclass(frozen=True)
class Classifier:
    """A fitted classifier: how well it does, and what it is."""

    validation_accuracy: float
    test_scores: dict[str, float]
    """On the test part: accuracy, balanced_accuracy, macro_f1."""
    num_train: int
    """Clips or frames that it learnt from."""
    num_test: int
    chance: float
    """Test accuracy of always naming the most frequent class of the training part."""
    fitted: LinearHead | MBTForSequenceClassification
    """A head on frozen representations, or the whole network."""

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy on the test part."""
        return self.test_scores["accuracy"]


def fit_frozen(examples: Examples, train_rows: np.ndarray, num_classes: int) -> Classifier:
    """Fit a linear head on representations.

    Args:
        examples: What there is to learn.
        train_rows: Positions of those to learn from.
        num_classes: K.
    """
    features, labels, rows = examples.features, examples.labels, examples.rows
    train, validation = (features[train_rows], labels[train_rows]), features[rows["validation"]]
    head = fit_linear_head(*train, validation, labels[rows["validation"]], num_classes)
    return Classifier(
        validation_accuracy=score(head.predict(validation), labels[rows["validation"]])["accuracy"],
        test_scores=score(head.predict(features[rows["test"]]), labels[rows["test"]]),
        num_train=len(train_rows),
        num_test=len(rows["test"]),
        chance=chance(labels, rows),
        fitted=head,
    )


def chance(labels: np.ndarray, rows: Mapping[str, np.ndarray]) -> float:
    """Give the accuracy, on the test part of labels (N,), of naming the most frequent class of the training part."""
    return float((labels[rows["test"]] == np.bincount(labels[rows["train"]]).argmax()).mean())


def put_on(model: MBTModel, head: LinearHead, label_names: Sequence[str]) -> MBTForSequenceClassification:
    """Make an encoder and the head that was fitted on its pooled output one classifier of K classes."""
    config = copy.deepcopy(model.config)
    config.id2label = dict(enumerate(label_names))
    config.label2id = {name: number for number, name in enumerate(label_names)}
    classifier = MBTForSequenceClassification(config)
    classifier.mbt.load_state_dict(model.state_dict())
    with torch.no_grad():
        classifier.classifier.weight.copy_(torch.from_numpy(head.weight))
        classifier.classifier.bias.copy_(torch.from_numpy(head.bias))
    return classifier


def fit_full(
    args: RunArguments,
    accelerator: Accelerator,
    speech: LabelledSpeech,
    train_rows: np.ndarray,
    model: MBTForSequenceClassification,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    *,
    output_dir: Path,
    seed: int,
    eval_steps: int,
    description: str,
    uploads: HubUploads | None = None,
) -> Classifier:
    """Train encoder and classifier together on some training clips.

    Args:
        args: The run: steps, batch size, learning rate and the like.
        accelerator: Of `create_accelerator`.
        speech: The task.
        train_rows: Positions of the clips to learn from.
        model: Trained in place.
        extractor: Of the model.
        augmentation: Distortions of the training clips.
        output_dir: Folder of log and checkpoints.
        seed: Of data order and distortions.
        eval_steps: Steps between two measurements on validation; 0 measures at the end only.
        description: Words in front of the progress bar.
        uploads: Is shown every checkpoint.
    """
    shares = args.gradient_accumulation_steps * accelerator.num_processes
    batch_size = min(args.per_device_train_batch_size, max(1, len(train_rows) // shares))
    epoch_steps = steps_per_epoch(len(train_rows), batch_size * shares)
    max_steps = args.max_steps if args.max_steps > 0 else max(1, round(args.num_train_epochs * epoch_steps))

    def items(start_step: int, end_step: int) -> list[list[tuple[int, int]]]:
        sampler = StepSampler(
            len(train_rows),
            batch_size,
            seed=seed,
            start_step=start_step,
            max_steps=end_step,
            micro_batches=args.gradient_accumulation_steps,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
        )
        return [[(epoch, int(train_rows[index])) for epoch, index in batch] for batch in sampler]

    def batches(start_step: int) -> Iterator[dict]:
        loader = DataLoader(
            speech.training_clips,
            batch_sampler=items(start_step, max_steps),
            num_workers=args.dataloader_num_workers,
            collate_fn=collate_clips,
            worker_init_fn=keep_out_of_signals,
            generator=torch.Generator(),  # or else it draws from the global one, which a resumed run has just restored
        )
        for batch in loader:
            batch.pop("bad")
            yield batch

    def backpropagate(network: torch.nn.Module, batches: list[dict], step: int) -> Losses:
        def forward(batch: dict, number: int) -> Losses:
            batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
            share = accelerator.process_index * len(batches) + number
            generator = torch.Generator().manual_seed(derive_seed(seed, step, share))
            features, mask = augmentation(batch["waveforms"], extractor, generator, batch["lengths"])
            output = network(features, mask, labels=batch["labels"])
            return {"loss": output.loss, "accuracy": (output.logits.argmax(1) == batch["labels"]).float().mean()}

        return backpropagate_mean(accelerator, network, batches, forward)

    def scores_on(part: str) -> dict[str, float]:
        return score(*predict(args, accelerator, model, extractor, speech.clips, speech.rows[part]))

    model = train(
        args,
        accelerator,
        model,
        extractor,
        batches,
        backpropagate,
        output_dir=output_dir,
        max_steps=max_steps,
        description=description,
        sparsity=SparseTraining.keep_zeros(model.to(accelerator.device)) if model.config.encoder_density < 1 else None,
        eval_steps=eval_steps,
        evaluate=lambda step: {"eval_accuracy": scores_on("validation")["accuracy"]},
        describe_step=lambda step: [speech.clips.name(row) for batch in items(step, step + 1) for _, row in batch],
        uploads=uploads,
    )
    return Classifier(
        validation_accuracy=scores_on("validation")["accuracy"],
        test_scores=scores_on("test"),
        num_train=len(train_rows),
        num_test=len(speech.rows["test"]),
        chance=chance(speech.clips.labels, speech.rows),
        fitted=model,
    )


@torch.no_grad()
def predict(
    args: RunArguments,
    accelerator: Accelerator,
    model: MBTForSequenceClassification,
    extractor: MBTFeatureExtractor,
    clips: ClipDataset,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Classify some clips, shared by the processes: predicted and true class ids, (N,) each, the same everywhere."""
    own = rows[np.argsort(-clips.seconds[rows], kind="stable")][accelerator.process_index :: accelerator.num_processes]
    batch_size = args.per_device_train_batch_size
    batches = [own[i : i + batch_size].tolist() for i in range(0, len(own), batch_size)]
    pairs = []
    training = model.training
    model.eval()
    for batch in DataLoader(
        clips,
        batch_sampler=batches,
        num_workers=args.dataloader_num_workers,
        collate_fn=collate_clips,
        generator=torch.Generator(),
    ):
        waveforms, lengths = (batch[name].to(accelerator.device) for name in ("waveforms", "lengths"))
        features, mask = extractor.extract(waveforms, lengths)
        logits = model(extractor.normalize(features, mask), mask).logits
        pairs += list(zip(logits.argmax(1).tolist(), batch["labels"].tolist(), strict=True))
    model.train(training)
    pairs = gather_object(pairs) if accelerator.num_processes > 1 else pairs
    predictions, references = np.array(pairs).T
    return predictions, references


def score(predictions: np.ndarray, references: np.ndarray) -> dict[str, float]:
    """Compare predicted and true class ids, (N,) each: accuracy, balanced_accuracy and macro_f1."""
    values: dict[str, float] = {}
    for name in METRICS:
        metric = evaluate.load(str(Path(__file__).parent / "metrics" / f"{name}.py"))
        values |= metric.compute(predictions=predictions, references=references) or {}
    return values
