"""The whole network trained on labelled clips: encoder and classifier together.

Axes: N clips, B clips of a batch.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import gather_object
from torch.utils.data import DataLoader

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from mbt_speech.arguments import FinetuneArguments
from mbt_speech.data.crops import ClipDataset, collate_clips
from mbt_speech.data.labelled_speech import LabelledSpeech
from mbt_speech.data.loaders import keep_out_of_signals, load_by_length
from mbt_speech.data.step_sampler import StepSampler, derive_seed, steps_per_epoch
from mbt_speech.probing.classification import Classifier, chance, score
from modeling_mbt import MBTForSequenceClassification

from .accumulation import Losses, backpropagate_mean
from .hub_uploads import HubUploads
from .loop import TrainingRun
from .sparsity import SparseTraining


@dataclass(frozen=True)
class FullTraining:
    """A network that learns from some training clips of a task."""

    args: FinetuneArguments
    """Steps, batch size, learning rate and the like."""
    accelerator: Accelerator
    """Of `create_accelerator`."""
    speech: LabelledSpeech
    train_rows: np.ndarray
    """Positions of the clips to learn from."""
    model: MBTForSequenceClassification
    """Trained in place."""
    extractor: MBTFeatureExtractor
    """Of the model."""
    augmentation: MBTAugmentation
    """Distortions of the training clips."""
    seed: int
    """Of data order and distortions."""

    @property
    def batch_size(self) -> int:
        """Clips of a micro-batch, fewer than asked for where there are too few."""
        return min(self.args.per_device_train_batch_size, max(1, len(self.train_rows) // self._shares))

    @property
    def max_steps(self) -> int:
        """Optimizer steps."""
        epoch_steps = steps_per_epoch(len(self.train_rows), self.batch_size * self._shares)
        by_epochs = max(1, round(self.args.num_train_epochs * epoch_steps))
        return self.args.max_steps if self.args.max_steps > 0 else by_epochs

    def run(self, output_dir: Path, description: str, uploads: HubUploads | None = None) -> Classifier:
        """Train, and measure on validation and test.

        Args:
            output_dir: Folder of log and checkpoints.
            description: Words in front of the progress bar.
            uploads: Is shown every checkpoint.
        """
        is_sparse = self.model.config.encoder_density < 1
        run = TrainingRun(
            self.args,
            self.accelerator,
            self.model,
            self.extractor,
            self.max_steps,
            description,
            output_dir=output_dir,
            sparsity=SparseTraining.keep_zeros(self.model.to(self.accelerator.device)) if is_sparse else None,
            uploads=uploads,
        )
        for micro_batches in run.steps(self):
            run.update(self.backpropagate(run.network, micro_batches, run.step))
            if run.is_due(self.args.eval_steps):
                run.log.evaluation(run.step, {"eval_accuracy": self.scores_on("validation")["accuracy"]})
        return Classifier(
            validation_accuracy=self.scores_on("validation")["accuracy"],
            test_scores=self.scores_on("test"),
            num_train=len(self.train_rows),
            num_test=len(self.speech.rows["test"]),
            chance=chance(self.speech.clips.labels, self.speech.rows),
            fitted=self.model,
        )

    def batches(self, start_step: int, max_steps: int) -> Iterator[dict]:
        """Read this process's micro-batches from a step on."""
        loader = DataLoader(
            self.speech.training_clips,
            batch_sampler=self._items(start_step, max_steps),
            num_workers=self.args.dataloader_num_workers,
            collate_fn=collate_clips,
            worker_init_fn=keep_out_of_signals,
            generator=torch.Generator(),  # or else it draws from the global one, which a resumed run has just restored
        )
        for batch in loader:
            batch.pop("bad")
            yield batch

    def backpropagate(self, network: torch.nn.Module, batches: list[dict], step: int) -> Losses:
        """Add the gradient of the micro-batches of a step; gives their mean loss and accuracy."""

        def forward(batch: dict, number: int) -> Losses:
            batch = {name: value.to(self.accelerator.device, non_blocking=True) for name, value in batch.items()}
            share = self.accelerator.process_index * len(batches) + number
            generator = torch.Generator().manual_seed(derive_seed(self.seed, step, share))
            features, mask = self.augmentation(batch["waveforms"], self.extractor, generator, batch["lengths"])
            output = network(features, mask, labels=batch["labels"])
            return {"loss": output.loss, "accuracy": (output.logits.argmax(1) == batch["labels"]).float().mean()}

        return backpropagate_mean(self.accelerator, network, batches, forward)

    def scores_on(self, part: str) -> dict[str, float]:
        """Measure on a part."""
        clips, rows = self.speech.clips, self.speech.rows[part]
        return score(*predict(self.args, self.accelerator, self.model, self.extractor, clips, rows))

    def names(self, step: int) -> list[str]:
        """Name the recordings of this process's batch of a step."""
        return [self.speech.clips.name(row) for batch in self._items(step, step + 1) for _, row in batch]

    @property
    def _shares(self) -> int:
        """Micro-batches that make a step."""
        return self.args.gradient_accumulation_steps * self.accelerator.num_processes

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


@torch.no_grad()
def predict(
    args: FinetuneArguments,
    accelerator: Accelerator,
    model: MBTForSequenceClassification,
    extractor: MBTFeatureExtractor,
    clips: ClipDataset,
    rows: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Classify some clips, shared by the processes: predicted and true class ids, (N,) each, the same everywhere."""
    batch_size, workers = args.per_device_train_batch_size, args.dataloader_num_workers
    _, loader = load_by_length(accelerator, clips, rows, batch_size, workers)
    pairs = []
    training = model.training
    model.eval()
    for batch in loader:
        waveforms, lengths = (batch[name].to(accelerator.device) for name in ("waveforms", "lengths"))
        features, mask = extractor.extract(waveforms, lengths)
        logits = model(extractor.normalize(features, mask), mask).logits
        pairs += list(zip(logits.argmax(1).tolist(), batch["labels"].tolist(), strict=True))
    model.train(training)
    pairs = gather_object(pairs) if accelerator.num_processes > 1 else pairs
    predictions, references = np.array(pairs).T
    return predictions, references
