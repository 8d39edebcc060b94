"""The batches of pre-training: from the script's arguments to crops, the same ones whatever shares them out.

Axes: B crops of a micro-batch, S samples.
"""

from collections.abc import Iterator
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
from .sources import index_speech, open_unlabelled, report_bad_audio
from .step_sampler import StepSampler
from .streams import StreamedCrops

SAMPLE_CROPS = 512


class CropBatches:
    """Recordings cut into crops, each read when its turn comes.

    Args:
        args: The run.
        accelerator: Of `create_accelerator`.
        extractor: Knows the sampling rate.

    Raises:
        ValueError: There is nothing to read.
        BadAudioError: A recording cannot be read, with `--on_bad_audio raise`.
    """

    def __init__(self, args: PretrainArguments, accelerator: Accelerator, extractor: MBTFeatureExtractor):
        self.args, self.accelerator = args, accelerator
        self.views = args.views or PRESETS[args.preset].sound.views
        recordings, audio_column = open_unlabelled(args, accelerator)
        settings = {
            "crop_seconds": args.crop_seconds or PRESETS[args.preset].crop_seconds,
            "sampling_rate": extractor.sampling_rate,
            "crops_per_item": 2 if self.views == "two_crops" else 1,
            "seed": args.seed,
            "on_bad_audio": args.on_bad_audio,
        }
        if isinstance(recordings, IterableDataset):
            self.crops = StreamedCrops(
                recordings,
                audio_column,
                buffer_size=args.shuffle_buffer_size,
                num_processes=accelerator.num_processes,
                process_index=accelerator.process_index,
                **settings,
            )
        else:
            index = index_speech(args, accelerator, recordings, audio_column, decode=False)
            self.crops = CropDataset(index.dataset, audio_column, index.seconds, **settings)

    @property
    def num_crops(self) -> int | None:
        """Crops of an epoch; a stream does not tell."""
        return len(self.crops) if isinstance(self.crops, CropDataset) else None

    @property
    def extent(self) -> str:
        """Say how much speech there is."""
        return self.crops.extent

    @property
    def crop_seconds(self) -> float:
        """Give the length of a crop."""
        return self.crops.crop_seconds

    def batches(self, start_step: int, max_steps: int) -> Iterator[dict]:
        """Give this process's micro-batches of the steps from `start_step` on: `waveforms` (B, S) and the like."""
        for batch in self._loader(start_step, max_steps):
            report_bad_audio(self.args, self.accelerator, batch.pop("bad"))
            yield batch

    def names(self, step: int) -> list[str]:
        """Name the recordings in this process's batch of a step; a stream does not tell."""
        if not isinstance(self.crops, CropDataset):
            return []
        return [self.crops.name(item) for batch in self._sampler(step, step + 1) for _, item in batch]

    def draw_sample(self) -> dict:
        """Take some crops, the same at the start and the end of a run."""
        if isinstance(self.crops, CropDataset):
            number = min(SAMPLE_CROPS, len(self.crops))
            items = np.random.default_rng(self.args.seed).choice(len(self.crops), number, replace=False)
            batch = collate_crops([self.crops[0, int(item)] for item in items])
        else:
            batch = collate_crops(list(islice(self.crops, 2 * self.args.per_device_train_batch_size)))
        batch.pop("bad")
        return batch

    def _loader(self, start_step: int, max_steps: int) -> Iterator[dict]:
        settings: dict[str, Any] = {
            "num_workers": self.args.dataloader_num_workers,
            "collate_fn": collate_crops,
            "pin_memory": self.accelerator.device.type == "cuda",
            "worker_init_fn": keep_out_of_signals,
            "generator": torch.Generator(),  # or else it draws from the global one, which a resumed run has restored
        }
        if isinstance(self.crops, CropDataset):
            return iter(DataLoader(self.crops, batch_sampler=self._sampler(start_step, max_steps), **settings))
        if start_step > 0:
            self.accelerator.print(
                "A stream does not resume where it stopped: it goes on with recordings in a new order."
            )
        self.crops.start_at(start_step)
        loader = DataLoader(self.crops, self.args.per_device_train_batch_size, drop_last=True, **settings)
        return islice(loader, (max_steps - start_step) * self.args.gradient_accumulation_steps)

    def _sampler(self, start_step: int, max_steps: int) -> StepSampler:
        """Give the items of this process's micro-batches."""
        assert self.num_crops is not None
        return StepSampler(
            self.num_crops,
            self.args.per_device_train_batch_size,
            seed=self.args.seed,
            start_step=start_step,
            max_steps=max_steps,
            micro_batches=self.args.gradient_accumulation_steps,
            num_processes=self.accelerator.num_processes,
            process_index=self.accelerator.process_index,
        )
