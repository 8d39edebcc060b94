"""The batches of pre-training: from the script's arguments to crops, the same ones whatever shares them out.

Axes: B crops of a micro-batch, S samples.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from torch.utils.data import DataLoader

from feature_extraction import MBTFeatureExtractor
from mbt_speech.arguments import PretrainArguments
from mbt_speech.presets import PRESETS

from .crops import CropDataset, collate_crops
from .loaders import keep_out_of_signals
from .sources import index_speech, open_unlabeled, report_bad_audio
from .step_sampler import StepSampler
from .streams import StreamedCrops

SAMPLE_CROPS = 512


def open_crops(args: PretrainArguments, accelerator: Accelerator, extractor: MBTFeatureExtractor) -> "CropBatches":
    """Opens the recordings that the arguments name, to be cut into crops, each read when its turn comes.

    Args:
        args: The run.
        accelerator: Of `create_accelerator`.
        extractor: Knows the sampling rate.

    Raises:
        ValueError: There is nothing to read.
        BadAudioError: A recording cannot be read, with `--on_bad_audio raise`.
    """
    recordings, audio_column = open_unlabeled(args, accelerator)
    settings = {
        "crop_seconds": args.crop_seconds or PRESETS[args.preset].crop_seconds,
        "sampling_rate": extractor.sampling_rate,
        "crops_per_item": 2 if chosen_views(args) == "two_crops" else 1,
        "seed": args.seed,
        "on_bad_audio": args.on_bad_audio,
    }
    if isinstance(recordings, IterableDataset):
        shares = {"num_processes": accelerator.num_processes, "process_index": accelerator.process_index}
        buffer_size = args.shuffle_buffer_size
        stream = StreamedCrops(recordings, audio_column, buffer_size=buffer_size, **shares, **settings)
        return StreamedCropBatches(args, accelerator, stream)
    index = index_speech(args, accelerator, recordings, audio_column, extractor.sampling_rate, decode=False)
    crops = CropDataset(index.dataset, audio_column, index.seconds, **settings)
    return IndexedCropBatches(args, accelerator, crops)


class CropBatches(ABC):
    """Recordings cut into crops, in batches; what a run's steps come from."""

    num_crops: int | None
    """Crops of an epoch; None where nobody knows."""

    def __init__(self, args: PretrainArguments, accelerator: Accelerator, crops: CropDataset | StreamedCrops):
        self.args, self.accelerator = args, accelerator
        self.extent, self.crop_seconds, self.views = crops.extent, crops.crop_seconds, chosen_views(args)

    def batches(self, start_step: int, max_steps: int) -> Iterator[dict]:
        """Yields this process's micro-batches of the steps from `start_step` on: `waveforms` (B, S) and the like."""
        for batch in self._load(start_step, max_steps):
            report_bad_audio(self.args, batch.pop("bad"))
            yield batch

    @abstractmethod
    def names(self, step: int) -> list[str]:
        """Returns the names of the recordings in this process's batch of a step, as far as they are known."""

    def draw_sample(self) -> dict:
        """Returns some crops, the same at the start and the end of a run."""
        batch = collate_crops(self._sampled())
        batch.pop("bad")
        return batch

    @abstractmethod
    def _sampled(self) -> list[Any]: ...

    @abstractmethod
    def _load(self, start_step: int, max_steps: int) -> Iterable[dict]: ...

    def _settings(self) -> dict[str, Any]:
        """Returns the settings of a data loader."""
        return {
            "num_workers": self.args.dataloader_num_workers,
            "collate_fn": collate_crops,
            "pin_memory": self.accelerator.device.type == "cuda",
            "worker_init_fn": keep_out_of_signals,
            "generator": torch.Generator(),  # or else it draws from the global one, which a resumed run has restored
        }


def chosen_views(args: PretrainArguments) -> str:
    """Returns `--views`, or the preset's own."""
    return args.views or PRESETS[args.preset].views


class IndexedCropBatches(CropBatches):
    """Crops of recordings whose lengths are known: any step can be read at once, and so a run resumes exactly."""

    def __init__(self, args: PretrainArguments, accelerator: Accelerator, crops: CropDataset):
        super().__init__(args, accelerator, crops)
        self.crops, self.num_crops = crops, len(crops)

    def names(self, step: int) -> list[str]:
        """Returns the names of the recordings in this process's batch of a step."""
        return [self.crops.name(item) for batch in self._sampler(step, step + 1) for _, item in batch]

    def _sampled(self) -> list[Any]:
        number = min(SAMPLE_CROPS, len(self.crops))
        items = np.random.default_rng(self.args.seed).choice(len(self.crops), number, replace=False)
        return [self.crops[0, int(item)] for item in items]

    def _load(self, start_step: int, max_steps: int) -> Iterable[dict]:
        return DataLoader(self.crops, batch_sampler=self._sampler(start_step, max_steps), **self._settings())

    def _sampler(self, start_step: int, max_steps: int) -> StepSampler:
        """Returns the sampler of this process's micro-batches."""
        return StepSampler(
            len(self.crops),
            self.args.per_device_train_batch_size,
            seed=self.args.seed,
            start_step=start_step,
            max_steps=max_steps,
            micro_batches=self.args.gradient_accumulation_steps,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
        )


class StreamedCropBatches(CropBatches):
    """Crops of recordings that come one after the other, nobody knows how many."""

    num_crops = None

    def __init__(self, args: PretrainArguments, accelerator: Accelerator, crops: StreamedCrops):
        super().__init__(args, accelerator, crops)
        self.crops = crops

    def names(self, step: int) -> list[str]:
        """Returns no names: a stream does not tell them."""
        return []

    def _sampled(self) -> list[Any]:
        return list(islice(self.crops, 2 * self.args.per_device_train_batch_size))

    def _load(self, start_step: int, max_steps: int) -> Iterable[dict]:
        if start_step > 0:
            self.accelerator.print(
                "A stream does not resume where it stopped: it goes on with recordings in a new order."
            )
        self.crops.start_at(start_step)
        loader = DataLoader(self.crops, self.args.per_device_train_batch_size, drop_last=True, **self._settings())
        return islice(loader, (max_steps - start_step) * self.args.gradient_accumulation_steps)
