"""Pre-train an encoder on unlabelled speech: two views of each crop, one objective.

    accelerate launch run_pretrain.py --train_dir DIR --output_dir runs/mine
    accelerate launch run_pretrain.py recipes/librispeech_100.yaml --learning_rate 1e-3

Axes: B crops, S samples, T frames, M mel bins, D latents.
"""

import sys

from training_mbt.arguments import PretrainArguments, parse_arguments, parse_overrides

if __name__ == "__main__":
    parse_arguments(PretrainArguments)  # --help and mistakes are answered before the imports below take their seconds

import json
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from datasets import IterableDataset
from torch.utils.data import DataLoader

from feature_extraction import BadAudioError, MBTAugmentation, MBTFeatureExtractor
from feature_extraction.crops import CropDataset, collate_crops
from feature_extraction.streams import StreamedCrops
from modeling_mbt import MBTForPreTraining
from modeling_mbt.objectives_mbt import barlow_twins_floor, cross_correlation
from training_mbt.accumulation import Losses, backpropagate_views
from training_mbt.checkpoints import CheckpointError
from training_mbt.diagnostics import CollapseWatch, correlation_normalization, diagnose
from training_mbt.hub import HubUploads
from training_mbt.interruption import keep_out_of_signals
from training_mbt.launch import start_cpu_processes
from training_mbt.loop import count_steps, create_accelerator, global_batch_size, train
from training_mbt.model_card import source, write_pretraining_card
from training_mbt.pictures import draw_cross_correlations, draw_losses
from training_mbt.presets import PRESETS
from training_mbt.probe import OnlineProbe
from training_mbt.run_log import is_logged, read_log
from training_mbt.sparsity import SparseTraining, encoder_cost
from training_mbt.speech_data import index_speech, open_unlabelled, report_bad_audio
from training_mbt.step_sampler import StepSampler, derive_seed

CORRELATION_CROPS = 512


def main(argv: list[str] | None = None) -> None:
    """Pre-train, and leave in `output_dir` what `from_pretrained` opens."""
    args = parse_arguments(PretrainArguments, argv)
    accelerator = create_accelerator(args, "pretrain", args.seed)
    uploads = HubUploads(args, accelerator)
    extractor, augmentation, model = build(args)
    crops = load_crops(args, accelerator, extractor)
    num_crops = len(crops) if isinstance(crops, CropDataset) else None
    max_steps = count_steps(args, num_crops, accelerator.num_processes)
    sparsity = sparsify(args, accelerator, model, max_steps)
    announce(args, accelerator, model, crops, max_steps)
    sample = draw_sample(args, crops)
    matrices = {"before": correlate(accelerator, model, extractor, augmentation, sample, args.seed)}

    def batches(start_step: int) -> Iterator[dict]:
        for batch in crop_loader(args, accelerator, crops, start_step, max_steps):
            report_bad_audio(args, accelerator, batch.pop("bad"))
            yield batch

    watch = CollapseWatch()
    probe = OnlineProbe(args, accelerator, extractor) if args.eval_steps > 0 else None

    def backpropagate(network: torch.nn.Module, batches: list[dict], step: int) -> Losses:
        first = accelerator.process_index * len(batches)
        views = [
            partial(
                make_views, accelerator, batch, extractor, augmentation, derive_seed(args.seed, step, first + number)
            )
            for number, batch in enumerate(batches)
        ]
        output = backpropagate_views(accelerator, network, views)
        losses = {name: output[name] for name in ("loss", "invariance_loss", "redundancy_loss")}
        if is_logged(step + 1, args.logging_steps, max_steps) and losses["loss"].isfinite():
            losses |= diagnose(accelerator, model.config, output)
            if words := watch.look(step + 1, losses, global_batch_size(args, accelerator.num_processes)):
                accelerator.print(words)
        return losses

    def describe_step(step: int) -> list[str]:
        if not isinstance(crops, CropDataset):
            return []
        batches = step_sampler(args, accelerator, crops, step, step + 1)
        return [crops.name(item) for batch in batches for _, item in batch]

    model = train(
        args,
        accelerator,
        model,
        extractor,
        batches,
        backpropagate,
        output_dir=Path(args.output_dir),
        max_steps=max_steps,
        description=args.objective,
        sparsity=sparsity,
        eval_steps=args.eval_steps,
        evaluate=None if probe is None else lambda step: probe(model, step),
        describe_step=describe_step,
        uploads=uploads,
    )
    matrices["after"] = correlate(accelerator, model, extractor, augmentation, sample, args.seed)
    if accelerator.is_main_process:
        save_run(args, accelerator, model, extractor, augmentation, crops, matrices)
    accelerator.wait_for_everyone()
    uploads.finish()


def build(args: PretrainArguments) -> tuple[MBTFeatureExtractor, MBTAugmentation, MBTForPreTraining]:
    """Create extractor, distortions and model from the preset and what overrides it."""
    preset = PRESETS[args.preset]
    extractor = preset.extractor(**parse_overrides("feature_overrides", args.feature_overrides))
    overrides = {"num_mel_bins": extractor.feature_size, "objective": args.objective}
    if args.redundancy_loss_weight is not None:
        overrides["redundancy_loss_weight"] = args.redundancy_loss_weight
    overrides |= parse_overrides("config_overrides", args.config_overrides)
    augmentation = preset.augmenter()
    if args.augmentation is not None:
        augmentation = MBTAugmentation.from_dict(parse_overrides("augmentation", args.augmentation))
    return extractor, augmentation, MBTForPreTraining(preset.config(**overrides))


def sparsify(
    args: PretrainArguments, accelerator: Accelerator, model: MBTForPreTraining, max_steps: int
) -> SparseTraining | None:
    """Take weights out of the encoder, if a sparse one is asked for."""
    if args.sparsity_method is None:
        return None
    model.config.encoder_density = args.density
    return SparseTraining(
        model.to(accelerator.device), args.sparsity_method, args.density, max_steps=max_steps, seed=args.seed
    )


def load_crops(
    args: PretrainArguments, accelerator: Accelerator, extractor: MBTFeatureExtractor
) -> CropDataset | StreamedCrops:
    """Find the recordings and cut them into crops, each read when its turn comes."""
    recordings, audio_column = open_unlabelled(args, accelerator)
    settings = {
        "crop_seconds": args.crop_seconds or PRESETS[args.preset].crop_seconds,
        "sampling_rate": extractor.sampling_rate,
        "crops_per_item": 2 if args.views == "two_crops" else 1,
        "seed": args.seed,
        "on_bad_audio": args.on_bad_audio,
    }
    if isinstance(recordings, IterableDataset):
        return StreamedCrops(
            recordings,
            audio_column,
            buffer_size=args.shuffle_buffer_size,
            num_processes=accelerator.num_processes,
            process_index=accelerator.process_index,
            **settings,
        )
    index = index_speech(args, accelerator, recordings, audio_column, decode=False)
    return CropDataset(index.dataset, audio_column, index.seconds, **settings)


def step_sampler(
    args: PretrainArguments, accelerator: Accelerator, crops: CropDataset, start_step: int, max_steps: int
) -> StepSampler:
    """Give the items of this process's micro-batches."""
    return StepSampler(
        len(crops),
        args.per_device_train_batch_size,
        seed=args.seed,
        start_step=start_step,
        max_steps=max_steps,
        micro_batches=args.gradient_accumulation_steps,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
    )


def crop_loader(
    args: PretrainArguments,
    accelerator: Accelerator,
    crops: CropDataset | StreamedCrops,
    start_step: int,
    max_steps: int,
) -> Iterable[dict]:
    """Give this process's batches of the steps from `start_step` on."""
    settings: dict[str, Any] = {
        "num_workers": args.dataloader_num_workers,
        "collate_fn": collate_crops,
        "pin_memory": accelerator.device.type == "cuda",
        "worker_init_fn": keep_out_of_signals,
        "generator": torch.Generator(),  # or else it draws from the global one, which a resumed run has just restored
    }
    if isinstance(crops, CropDataset):
        return DataLoader(
            crops, batch_sampler=step_sampler(args, accelerator, crops, start_step, max_steps), **settings
        )
    if start_step > 0:
        accelerator.print("A stream does not resume where it stopped: it goes on with recordings in a new order.")
    crops.start_at(start_step)
    loader = DataLoader(crops, batch_size=args.per_device_train_batch_size, drop_last=True, **settings)
    return islice(loader, (max_steps - start_step) * args.gradient_accumulation_steps)


def make_views(
    accelerator: Accelerator,
    batch: dict,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """y_a = t(x), y_b = t'(x): two views (B, T, M) of the batch's crops (B, S), zeros after their ends included."""
    batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
    generator = torch.Generator().manual_seed(seed)
    view_a, _ = augmentation(batch["waveforms"], extractor, generator)
    view_b, _ = augmentation(batch.get("second_waveforms", batch["waveforms"]), extractor, generator)
    return view_a, view_b


def announce(
    args: PretrainArguments,
    accelerator: Accelerator,
    model: MBTForPreTraining,
    crops: CropDataset | StreamedCrops,
    max_steps: int,
) -> None:
    """Say what is about to be trained, and which loss is as low as it can get."""
    batch_size = global_batch_size(args, accelerator.num_processes)
    millions = sum(p.numel() for p in model.mbt.parameters()) / 1e6
    accelerator.print(
        f"Pre-training {args.objective} ({args.preset}, encoder of {millions:.2f} M parameters) on "
        f"{crops.extent}: {max_steps} steps of {batch_size} pairs."
    )
    if args.objective in ("bt", "mbt"):
        floor = barlow_twins_floor(batch_size, model.config.projector_sizes[-1], model.config.redundancy_loss_weight)
        accelerator.print(
            f"The floor of the loss is {floor:.4g}: no network gets below it with this batch and projector."
        )


def draw_sample(args: PretrainArguments, crops: CropDataset | StreamedCrops) -> dict:
    """Take some crops to correlate the latents of, the same at the start and the end of a run."""
    if isinstance(crops, CropDataset):
        number = min(CORRELATION_CROPS, len(crops))
        items = np.random.default_rng(args.seed).choice(len(crops), number, replace=False)
        batch = collate_crops([crops[0, int(item)] for item in items])
    else:
        batch = collate_crops(list(islice(crops, 2 * args.per_device_train_batch_size)))
    batch.pop("bad")
    return batch


@torch.no_grad()
def correlate(
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    sample: dict,
    seed: int,
) -> np.ndarray:
    """Cross-correlate the latents of two views of some crops, normalised as the objective does: (D, D) float32.

    The same in every process.
    """
    model.eval().to(accelerator.device)
    views = make_views(accelerator, sample, extractor, augmentation, seed)
    z_a, z_b = (torch.cat([model.project(part) for part in view.split(64)]) for view in views)
    return cross_correlation(z_a, z_b, *correlation_normalization(model.config)).cpu().numpy()


def save_run(
    args: PretrainArguments,
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    crops: CropDataset | StreamedCrops,
    matrices: dict,
) -> None:
    """Leave model, extractor, recipe, pictures and card in `output_dir`."""
    output_dir = Path(args.output_dir)
    model.save_pretrained(output_dir)
    extractor.save_pretrained(output_dir)
    (output_dir / "augmentation.json").write_text(json.dumps(augmentation.to_dict(), indent=2))
    np.savez_compressed(output_dir / "cross_correlation.npz", **matrices)
    draw_losses(output_dir / "loss.png", {args.objective: read_log(output_dir)}, f"Pre-training on {source(args)}")
    draw_cross_correlations(
        output_dir / "cross_correlation.png",
        matrices,
        f"Cross-correlation of the latents, {args.objective} on {source(args)}",
    )
    batch_size = global_batch_size(args, accelerator.num_processes)
    log = read_log(output_dir)
    facts = {
        "speech": crops.extent,
        "crops": f"{crops.crop_seconds:g} s, {args.views.replace('_', ' ')}",
        "steps": f"{log[-1]['step']} of {batch_size} pairs",
        "learning rate": f"{args.learning_rate:g}, {args.warmup_steps} steps of warm-up, cosine",
        "precision": accelerator.mixed_precision,
        "seed": args.seed,
    }
    if args.sparsity_method is not None:
        facts["sparse training"] = f"{args.sparsity_method}, density {args.density:g}"
    num_frames = 1 + round(crops.crop_seconds * extractor.sampling_rate) // extractor.hop_length
    cost = encoder_cost(model.mbt, num_frames)
    write_pretraining_card(args, model.config, cost, facts, log[-1], extractor.sampling_rate)


if __name__ == "__main__":
    start_cpu_processes()
    try:
        main()
    except (BadAudioError, CheckpointError, FloatingPointError) as error:  # what to do, without a page of traceback
        sys.exit(f"{error}")
