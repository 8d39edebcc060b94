"""Pre-train an encoder on unlabelled speech: two views of each crop, one objective.

    accelerate launch run_pretrain.py --train_dir DIR --output_dir runs/mine
    accelerate launch run_pretrain.py recipes/librispeech_100.yaml --learning_rate 1e-3

Axes: B crops, S samples, T frames, M mel bins, D latents.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from torch.utils.data import DataLoader

from feature_extraction import BadAudioError, MBTAugmentation, MBTFeatureExtractor
from feature_extraction.crops import CropDataset, collate_crops
from modeling_mbt import MBTForPreTraining
from modeling_mbt.objectives_mbt import OWN_NORMALIZATIONS, barlow_twins_floor, cross_correlation
from training_mbt.arguments import RunArguments, parse_arguments, parse_overrides
from training_mbt.hub import push_to_hub
from training_mbt.loop import count_steps, create_accelerator, train
from training_mbt.pictures import draw_cross_correlations, draw_losses
from training_mbt.presets import PRESETS
from training_mbt.run_log import read_log
from training_mbt.speech_data import choose_part, index_speech, open_recordings, report_bad_audio
from training_mbt.step_sampler import StepSampler, derive_seed

CORRELATION_CROPS = 512


@dataclass
class PretrainArguments(RunArguments):
    """Arguments of pre-training."""

    preset: str = field(
        default="strong", metadata={"help": "Model, features and distortions.", "choices": sorted(PRESETS)}
    )
    objective: str = field(default="bt", metadata={"help": "Objective: bt, mbt, or another one of MBTConfig."})
    redundancy_loss_weight: float | None = field(
        default=None, metadata={"help": "lambda of bt and mbt; by default the preset's."}
    )
    views: str = field(
        default="same_crop",
        metadata={"help": "Two distortions of one crop, or of two crops of an utterance.",
                  "choices": ["same_crop", "two_crops"]},
    )  # fmt: skip
    crop_seconds: float | None = field(default=None, metadata={"help": "Length of a crop; by default the preset's."})
    config_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of further MBTConfig arguments."}
    )
    feature_overrides: str | None = field(
        default=None, metadata={"help": "JSON object of further MBTFeatureExtractor arguments."}
    )
    augmentation: str | None = field(
        default=None,
        metadata={"help": "JSON object of MBTAugmentation's arguments instead of the preset's distortions."},
    )
    seed: int = field(default=0, metadata={"help": "Seed of weights, data order and distortions."})


def main(argv: list[str] | None = None) -> None:
    """Pre-train, and leave in `output_dir` what `from_pretrained` opens."""
    args = parse_arguments(PretrainArguments, argv)
    accelerator = create_accelerator(args, "pretrain", args.seed)
    extractor, augmentation, model = build(args)
    crops = load_crops(args, accelerator, extractor)
    max_steps = count_steps(args, len(crops), accelerator.num_processes)
    announce(args, accelerator, model, crops, max_steps)
    matrices = {"before": correlate(accelerator, model, extractor, augmentation, crops, args.seed)}

    def batches(start_step: int) -> Iterator[dict]:
        for batch in crop_loader(args, accelerator, crops, start_step, max_steps):
            report_bad_audio(args, accelerator, batch.pop("bad"))
            yield batch

    def forward(network: torch.nn.Module, batch: dict, step: int) -> dict[str, torch.Tensor]:
        seed = derive_seed(args.seed, step, accelerator.process_index)
        view_a, view_b = make_views(batch, extractor, augmentation, torch.Generator().manual_seed(seed))
        output = network(view_a, view_b)
        return {name: output[name] for name in ("loss", "invariance_loss", "redundancy_loss")}

    model = train(
        args,
        accelerator,
        model,
        extractor,
        batches,
        forward,
        output_dir=Path(args.output_dir),
        max_steps=max_steps,
        description=args.objective,
    )
    matrices["after"] = correlate(accelerator, model, extractor, augmentation, crops, args.seed)
    if accelerator.is_main_process:
        save_run(args, model, extractor, augmentation, matrices)
        push_to_hub(args)
    accelerator.wait_for_everyone()


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


def load_crops(args: PretrainArguments, accelerator: Accelerator, extractor: MBTFeatureExtractor) -> CropDataset:
    """Find the recordings and cut them into crops, each read when its turn comes."""
    parts, audio_column = open_recordings(args, accelerator)
    recordings = choose_part(parts, "unlabelled", "train")
    index = index_speech(args, accelerator, recordings, audio_column, decode=False)
    return CropDataset(
        index.dataset,
        audio_column,
        index.seconds,
        crop_seconds=args.crop_seconds or PRESETS[args.preset].crop_seconds,
        sampling_rate=extractor.sampling_rate,
        crops_per_item=2 if args.views == "two_crops" else 1,
        seed=args.seed,
        on_bad_audio=args.on_bad_audio,
    )


def crop_loader(
    args: PretrainArguments, accelerator: Accelerator, crops: CropDataset, start_step: int, max_steps: int
) -> DataLoader:
    """Give this process's batches of the steps from `start_step` on."""
    sampler = StepSampler(
        len(crops),
        args.per_device_train_batch_size,
        seed=args.seed,
        start_step=start_step,
        max_steps=max_steps,
        num_processes=accelerator.num_processes,
        process_index=accelerator.process_index,
    )
    return DataLoader(
        crops,
        batch_sampler=sampler,
        num_workers=args.dataloader_num_workers,
        collate_fn=collate_crops,
        pin_memory=accelerator.device.type == "cuda",
    )


def make_views(
    batch: dict, extractor: MBTFeatureExtractor, augmentation: MBTAugmentation, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """y_a = t(x), y_b = t'(x): two views (B, T, M) of the batch's crops (B, S), zeros after their ends included."""
    waveforms_b = batch.get("second_waveforms", batch["waveforms"])
    view_a, _ = augmentation(batch["waveforms"], extractor, generator)
    view_b, _ = augmentation(waveforms_b, extractor, generator)
    return view_a, view_b


def announce(
    args: PretrainArguments, accelerator: Accelerator, model: MBTForPreTraining, crops: CropDataset, max_steps: int
) -> None:
    """Say what is about to be trained, and which loss is as low as it can get."""
    batch_size = args.per_device_train_batch_size * accelerator.num_processes
    millions = sum(p.numel() for p in model.mbt.parameters()) / 1e6
    accelerator.print(
        f"Pre-training {args.objective} ({args.preset}, encoder of {millions:.2f} M parameters) on "
        f"{crops.seconds.sum() / 3600:.2f} h in {len(crops.seconds)} recordings: {max_steps} steps of {batch_size} "
        "pairs."
    )
    if args.objective in ("bt", "mbt"):
        floor = barlow_twins_floor(batch_size, model.config.projector_sizes[-1], model.config.redundancy_loss_weight)
        accelerator.print(
            f"The floor of the loss is {floor:.4g}: no network gets below it with this batch and projector."
        )


@torch.no_grad()
def correlate(
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    crops: CropDataset,
    seed: int,
) -> np.ndarray:
    """Cross-correlate the latents of two views of some crops, normalised as the objective does: (D, D) float32.

    The same in every process.
    """
    items = np.random.default_rng(seed).choice(len(crops), min(CORRELATION_CROPS, len(crops)), replace=False)
    batch = collate_crops([crops[0, int(item)] for item in items])
    generator = torch.Generator().manual_seed(seed)
    model.eval().to(accelerator.device)
    batch = {name: value.to(accelerator.device) for name, value in batch.items() if name != "bad"}
    views = make_views(batch, extractor, augmentation, generator)
    latents = [torch.cat([model.project(part) for part in view.split(64)]) for view in views]
    config = model.config
    normalization = config.latent_normalization or OWN_NORMALIZATIONS.get(config.objective, "batch")
    if normalization == "none":  # a correlation is standardised along the batch
        normalization = "batch"
    matrix = cross_correlation(latents[0], latents[1], normalization, float(config.latent_normalization_strength))
    return matrix.cpu().numpy()


def save_run(
    args: PretrainArguments,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    matrices: dict,
) -> None:
    """Leave model, extractor, recipe and pictures in `output_dir`."""
    output_dir = Path(args.output_dir)
    model.save_pretrained(output_dir)
    extractor.save_pretrained(output_dir)
    (output_dir / "augmentation.json").write_text(json.dumps(augmentation.to_dict(), indent=2))
    (output_dir / "training_args.json").write_text(json.dumps(asdict(args), indent=2))
    np.savez_compressed(output_dir / "cross_correlation.npz", **matrices)
    source = args.train_dir or f"{args.dataset_name} {args.dataset_config_name or ''}".strip()
    draw_losses(output_dir / "loss.png", {args.objective: read_log(output_dir)}, f"Pre-training on {source}")
    draw_cross_correlations(
        output_dir / "cross_correlation.png",
        matrices,
        f"Cross-correlation of the latents, {args.objective} on {source}",
    )


if __name__ == "__main__":
    try:
        main()
    except BadAudioError as error:  # the file and its fault, without a page of traceback
        sys.exit(f"{error}")
