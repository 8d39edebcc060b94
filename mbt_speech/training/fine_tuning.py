"""The whole network trained on labeled clips: encoder and classifier together.

Axes: N clips, B clips of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast, gather_object
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import FeatureExtractionMixin

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from mbt_speech.arguments import FinetuneArguments
from mbt_speech.data.crops import ClipDataset, collate_clips
from mbt_speech.data.labeled_speech import LabeledSpeech
from mbt_speech.data.loaders import keep_out_of_signals, load_by_length
from mbt_speech.data.step_sampler import StepSampler, derive_seed, steps_per_epoch
from mbt_speech.probing.classification import Classifier, chance, score
from mbt_speech.probing.hub_classifiers import HubClassifier
from modeling_mbt import MBTForSequenceClassification

from .accumulation import ClipBatch, Losses, backpropagate_mean
from .hub_uploads import HubUploads
from .loop import TrainingRun
from .sparsity import SparseTraining

CLIPS_OF_PART = 8  # at most: fewer need less padding, but give batch norm fewer clips to normalize over
LITTLE_PADDING = 0.5  # mean length of clips over the longest, above which batches are run whole


class Pace(NamedTuple):
    """How long a network trains if it is not told: so many passes over its clips, within bounds in steps."""

    epochs: float
    min_steps: int
    max_steps: int


class Inputs(Protocol):
    """What makes the arguments of a network from waveforms (B, S) and their lengths (B,) in samples."""

    def __call__(
        self, waveforms: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns the two arguments, with a generator those to train on, which may be distorted."""
        ...


@dataclass(frozen=True)
class LogMelInputs:
    """Features and their mask, which MBT models read."""

    extractor: MBTFeatureExtractor
    augmentation: MBTAugmentation
    """Distortions of the training clips."""

    def __call__(
        self, waveforms: Tensor, lengths: Tensor, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Returns features (B, T, M) and mask (B, T)."""
        if generator is not None:
            return self.augmentation(waveforms, self.extractor, generator, lengths)
        features, mask = self.extractor.extract(waveforms, lengths)
        return self.extractor.normalize(features, mask), mask


def waveform_inputs(
    waveforms: Tensor, lengths: Tensor, generator: torch.Generator | None = None
) -> tuple[Tensor, Tensor]:
    """Returns the waveforms as they are: a `HubClassifier` has its own extractor and masks by itself."""
    return waveforms, lengths


@dataclass(frozen=True)
class FullTraining:
    """A network that learns from some clips of a task."""

    args: FinetuneArguments
    """Batch size, and the number of steps if it is given."""
    accelerator: Accelerator
    """Of `create_accelerator`."""
    speech: LabeledSpeech
    train_rows: np.ndarray
    """Positions of the clips to learn from."""
    model: MBTForSequenceClassification | HubClassifier
    """Trained in place."""
    extractor: FeatureExtractionMixin
    """Of the model, saved beside it."""
    inputs: Inputs
    """What the model takes."""
    identity: str
    """Tells this training from others whose checkpoints may be in the same folder."""
    seed: int
    """Of data order, distortions, and where long clips are cut."""
    pace: Pace
    encoder_learning_rate: float
    in_parts: bool
    """Whether batches of recordings of very different lengths are run in parts."""

    @property
    def batch_size(self) -> int:
        """Clips of a micro-batch, fewer than asked for where there are too few."""
        return min(self.args.per_device_train_batch_size, max(1, len(self.train_rows) // self._shares))

    @property
    def max_steps(self) -> int:
        """Returns the number of optimizer steps."""
        if self.args.max_steps > 0:
            return self.args.max_steps
        epoch_steps = steps_per_epoch(len(self.train_rows), self.batch_size * self._shares)
        if self.args.num_train_epochs > 0:
            return max(1, round(self.args.num_train_epochs * epoch_steps))
        return int(np.clip(round(self.pace.epochs * epoch_steps), self.pace.min_steps, self.pace.max_steps))

    def run(self, output_dir: Path, description: str, uploads: HubUploads | None = None) -> None:
        """Trains; measures on the way, if asked to, on those validation clips that it does not learn from.

        Args:
            output_dir: Folder of log and checkpoints.
            description: Words in front of the progress bar.
            uploads: Is shown every checkpoint.
        """
        output_dir.mkdir(parents=True, exist_ok=True)
        sparsity = None
        if isinstance(self.model, MBTForSequenceClassification) and self.model.config.encoder_density < 1:
            sparsity = SparseTraining.keep_zeros(self.model.to(self.accelerator.device))
        run = TrainingRun(
            replace(
                self.args,
                resume_from_checkpoint=self._own_checkpoint(output_dir),
                per_device_train_batch_size=self.batch_size,
            ),
            self.accelerator,
            self.model,
            self.extractor,
            self.max_steps,
            description,
            output_dir=output_dir,
            sparsity=sparsity,
            uploads=uploads,
            encoder_learning_rate=self.encoder_learning_rate,
            identity=self.identity,
        )
        held_out = np.setdiff1d(self.speech.rows["validation"], self.train_rows)
        for micro_batches in run.steps(self):
            run.update(self.backpropagate(run.network, micro_batches, run.step))
            if len(held_out) and run.is_due(self.args.eval_steps):
                run.log.evaluation(run.step, {"eval_accuracy": self.accuracy_on(held_out)})

    def batches(self, start_step: int, max_steps: int) -> Iterator[dict]:
        """Reads this process's micro-batches from a step on."""
        loader = DataLoader(
            self.speech.clips.cut_at_random(self.seed),
            batch_sampler=self._items(start_step, max_steps),
            num_workers=self.args.dataloader_num_workers,
            collate_fn=collate_clips,
            worker_init_fn=keep_out_of_signals,
            generator=torch.Generator(),  # or else it draws from the global one, which a resumed run has just restored
        )
        yield from loader

    def backpropagate(self, network: torch.nn.Module, batches: list[dict], step: int) -> Losses:
        """Adds the gradient of the micro-batches of a step; returns their mean loss and accuracy."""
        num_clips, num_parts = sum(len(batch["labels"]) for batch in batches), self._num_parts

        def parts() -> Iterator[ClipBatch]:
            for number, batch in enumerate(batches):
                batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in batch.items()}
                share = self.accelerator.process_index * len(batches) + number
                generator = torch.Generator().manual_seed(derive_seed(self.seed, step, share))
                values, mask = self.inputs(batch["waveforms"], batch["lengths"], generator)
                yield from split_by_length(values, mask, batch["labels"], num_parts)

        def forward(part: ClipBatch) -> Losses:
            *inputs, labels = part
            output = network(*inputs, labels=labels)
            return {"loss": output.loss, "accuracy": (output.logits.argmax(1) == labels).float().mean()}

        return backpropagate_mean(self.accelerator, network, parts(), num_clips, forward)

    def accuracy_on(self, rows: np.ndarray) -> float:
        """Classifies clips at some positions; returns the share of correct ones."""
        logits, labels = self.logits_on(rows)
        return float((logits.argmax(axis=1) == labels).mean())

    def logits_on(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the logits (N, K) of clips at some positions, and their labels, (N,), in an order of its own."""
        self.model.to(self.accelerator.device)
        return predict(self.args, self.accelerator, self.model, self.inputs, self.speech.clips, rows)

    def classifier(
        self, validation_accuracy: float | None, num_train: int, minutes: float, alpha: float | None = None
    ) -> Classifier:
        """Tests the network as it is; returns it with its results."""
        logits, labels = self.logits_on(self.speech.rows["test"])
        return Classifier(
            validation_accuracy=validation_accuracy,
            test_scores=score(logits.argmax(axis=1), labels),
            num_train=num_train,
            num_test=len(self.speech.rows["test"]),
            chance=chance(self.speech.clips.labels, self.speech.rows),
            fitted=self.model,
            alpha=alpha,
            steps=0 if alpha == 0 else self.max_steps,
            minutes=minutes,
        )

    def _own_checkpoint(self, output_dir: Path) -> str | None:
        """Returns what to resume from: of a task that trains several networks, one owns the folder named."""
        named = self.args.resume_from_checkpoint
        is_own = named in (None, "auto") or Path(named).resolve().parent == output_dir.resolve()
        return named if is_own else "auto"

    def names(self, step: int) -> list[str]:
        """Returns the names of the recordings of this process's batch of a step."""
        return [self.speech.clips.name(row) for batch in self._items(step, step + 1) for _, row in batch]

    @property
    def _shares(self) -> int:
        """Returns the number of micro-batches that make a step."""
        return self.args.gradient_accumulation_steps * self.accelerator.num_processes

    @property
    def _num_parts(self) -> int:
        """Returns the number of parts in which a micro-batch is run, the same for all of them and in every process."""
        seconds = self.speech.clips.seconds[self.train_rows].clip(max=self.args.max_length_seconds)
        is_padding_little = seconds.mean() > LITTLE_PADDING * seconds.max()
        return 1 if is_padding_little or not self.in_parts else -(-self.batch_size // CLIPS_OF_PART)

    def _items(self, start_step: int, end_step: int) -> list[list[tuple[int, int]]]:
        sampler = StepSampler(
            len(self.train_rows),
            self.batch_size,
            seed=self.seed,
            start_step=start_step,
            max_steps=end_step,
            micro_batches=self.args.gradient_accumulation_steps,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
        )
        return [[(epoch, int(self.train_rows[index])) for epoch, index in batch] for batch in sampler]


def split_by_length(features: Tensor, mask: Tensor, labels: Tensor, num_parts: int) -> list[ClipBatch]:
    """Sorts a batch by length and splits it, so that not all clips are padded to the longest of all.

    A batch of recordings of very different lengths is mostly padding. Batch norm normalizes over each part.

    Args:
        features: (B, T, M).
        mask: 1 for real frames, 0 for padding, (B, T).
        labels: (B,).
        num_parts: At most B; of one part, the batch comes back as it is.

    Returns:
        Features, mask and labels of each part, of B / `num_parts` clips, all of them cut at the end of the longest.
    """
    if num_parts == 1:
        return [(features, mask, labels)]
    num_frames = mask.sum(dim=1)
    parts = num_frames.argsort(descending=True).tensor_split(num_parts)
    ends = [int(num_frames[rows].max()) for rows in parts]
    return [(features[rows, :end], mask[rows, :end], labels[rows]) for rows, end in zip(parts, ends, strict=True)]


@torch.no_grad()
def predict(
    args: FinetuneArguments,
    accelerator: Accelerator,
    model: MBTForSequenceClassification | HubClassifier,
    inputs: Inputs,
    clips: ClipDataset,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Classifies some clips, shared by the processes: logits (N, K) and true class ids (N,), the same everywhere."""
    batch_size, workers = args.per_device_train_batch_size, args.dataloader_num_workers
    _, loader = load_by_length(accelerator, clips, rows, batch_size, workers)
    pairs = []
    training = model.training
    model.eval()
    broadcast(list(model.buffers()))  # running statistics are each process's own
    for batch in loader:
        waveforms, lengths = (batch[name].to(accelerator.device) for name in ("waveforms", "lengths"))
        logits = model(*inputs(waveforms, lengths)).logits.float().cpu().numpy()
        pairs += zip(logits, batch["labels"].tolist(), strict=True)
    model.train(training)
    pairs = gather_object(pairs) if accelerator.num_processes > 1 else pairs
    logits, labels = zip(*pairs, strict=True)
    return np.stack(logits), np.array(labels)
