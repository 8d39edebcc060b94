"""Pre-train an encoder on unlabeled speech: two views of each crop, one objective.

    accelerate launch run_pretrain.py --train_dir DIR --output_dir runs/mine
    accelerate launch run_pretrain.py recipes/librispeech_100.yaml --learning_rate 1e-3

Axes: B crops, S samples, T frames, M mel bins, D latents.
"""

from mbt_speech.arguments import PretrainArguments
from mbt_speech.command_line import changed_arguments, parse_arguments, parse_overrides, write_recipe
from mbt_speech.stopping import stop_in_one_line

if __name__ == "__main__":
    stop_in_one_line()
    parse_arguments(PretrainArguments)  # --help and mistakes are answered before the imports below take their seconds

import json
from dataclasses import fields
from inspect import signature
from pathlib import Path

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import broadcast

from feature_extraction import MBTAugmentation, MBTFeatureExtractor
from mbt_speech.closing_line import closing_line
from mbt_speech.data.crop_batches import CropBatches, open_crops
from mbt_speech.data.sources import source
from mbt_speech.data.step_sampler import derive_seed
from mbt_speech.presets import PRESETS
from mbt_speech.probing.online_probe import OnlineProbe, discard_best
from mbt_speech.reports.model_card import write_pretraining_card
from mbt_speech.reports.pictures import draw_cross_correlations, draw_losses
from mbt_speech.training.accumulation import Losses, Views, backpropagate_views
from mbt_speech.training.diagnostics import CollapseWatch, correlation_normalization, diagnose
from mbt_speech.training.estimate import cpu_multiplies_bfloat16, describe_duration, seconds_of_crop
from mbt_speech.training.hub_uploads import HubUploads
from mbt_speech.training.launch import create_accelerator, obey_launcher
from mbt_speech.training.loop import TrainingRun, count_steps, global_batch_size
from mbt_speech.training.optimization import shortened_warmup
from mbt_speech.training.run_log import last_step, read_log
from mbt_speech.training.sparsity import SparseTraining, encoder_cost
from mbt_speech.user_errors import explain_user_errors
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForPreTrainingOutput
from modeling_mbt.objectives_mbt import barlow_twins_floor, cross_correlation

# Fields of the config that more depends on than the model.
OPTIONS_OF_THEIR_OWN = {
    "objective": "--objective",
    "encoder_density": "--density and --sparsity_method",
    "num_mel_bins": "--feature_overrides '{\"feature_size\": 64}'",
}


def main(argv: list[str] | None = None) -> None:
    """Pre-trains, and leaves in `output_dir` what `from_pretrained` opens."""
    args = parse_arguments(PretrainArguments, argv)
    accelerator = create_accelerator(args, "pretrain", args.seed)
    uploads = HubUploads(args, accelerator)
    extractor, augmentation, model = build(args)
    crops = open_crops(args, accelerator, extractor)
    max_steps = count_steps(args, crops.num_crops, accelerator.num_processes)
    sparsity = sparsify(args, accelerator, model, max_steps)
    announce(args, accelerator, model, extractor, crops, max_steps)
    sample = crops.draw_sample()
    matrices = {"before": correlate(accelerator, model, extractor, augmentation, sample, args.seed)}
    probe = OnlineProbe(args, accelerator, extractor) if args.eval_steps > 0 else None
    run = TrainingRun(args, accelerator, model, extractor, max_steps, args.objective, sparsity, uploads)
    discard_best(accelerator, Path(args.output_dir), run.step)
    if run.resumed_from is not None and (changed := changed_arguments(args, run.resumed_from.parent)):
        accelerator.print(f"The run goes on with other arguments than it began with: {', '.join(changed)}.")
    write_recipe(args, accelerator.is_main_process)
    watch = CollapseWatch()
    for micro_batches in run.steps(crops):  # x
        views = distort(args, accelerator, micro_batches, extractor, augmentation, run.step)  # t(x), t'(x)
        output = backpropagate_views(accelerator, run.network, views)  # z = g(f(y)), the objective, its gradient
        run.update(measure(args, accelerator, model, output, run, watch))
        if probe is not None and run.is_due(args.eval_steps):
            run.log.evaluation(run.step, probe(model, run.step))
    matrices["after"] = correlate(accelerator, model, extractor, augmentation, sample, args.seed)
    if accelerator.is_main_process:
        save_run(args, accelerator, model, extractor, augmentation, crops, matrices)
    accelerator.wait_for_everyone()
    uploads.finish()
    accelerator.print(closing(args))
    accelerator.end_training()


def build(args: PretrainArguments) -> tuple[MBTFeatureExtractor, MBTAugmentation, MBTForPreTraining]:
    """Creates extractor, distortions and model from the preset and what overrides it."""
    preset = PRESETS[args.preset]
    settings = {*signature(MBTFeatureExtractor).parameters, "return_attention_mask"} - {"kwargs"}
    extractor = preset.extractor(**parse_overrides("feature_overrides", args.feature_overrides, settings))
    overrides = {"num_mel_bins": extractor.feature_size, "objective": args.objective}
    if args.redundancy_loss_weight is not None:
        overrides["redundancy_loss_weight"] = args.redundancy_loss_weight
    known = {one.name for one in fields(MBTConfig)} - OPTIONS_OF_THEIR_OWN.keys()
    given = parse_overrides("config_overrides", args.config_overrides)
    for name in given.keys() & OPTIONS_OF_THEIR_OWN.keys():
        raise ValueError(f"--config_overrides has an entry {name}: use {OPTIONS_OF_THEIR_OWN[name]} instead.")
    overrides |= parse_overrides("config_overrides", args.config_overrides, known)
    augmentation = preset.augmenter()
    if args.augmentation is not None:
        augmentation = MBTAugmentation.from_dict(parse_overrides("augmentation", args.augmentation))
    return extractor, augmentation, MBTForPreTraining(preset.config(**overrides))


def sparsify(
    args: PretrainArguments, accelerator: Accelerator, model: MBTForPreTraining, max_steps: int
) -> SparseTraining | None:
    """Takes weights out of the encoder, if a sparse one is asked for."""
    if args.sparsity_method is None:
        return None
    model.config.encoder_density = args.density
    return SparseTraining(
        model.to(accelerator.device), args.sparsity_method, args.density, max_steps=max_steps, seed=args.seed
    )


def distort(
    args: PretrainArguments,
    accelerator: Accelerator,
    micro_batches: list[dict],
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    step: int,
) -> list[Views]:
    """Returns the two views of each of this process's micro-batches of a step."""
    first = accelerator.process_index * len(micro_batches)
    seeds = [derive_seed(args.seed, step, first + number) for number in range(len(micro_batches))]
    return [
        make_views(accelerator, batch, extractor, augmentation, seed)
        for batch, seed in zip(micro_batches, seeds, strict=True)
    ]


def make_views(
    accelerator: Accelerator,
    batch: dict,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    seed: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes y_a = t(x), y_b = t'(x): views (B, T, M) of the crops (B, S), zeros after their ends included."""
    batch = {name: value.to(accelerator.device, non_blocking=True) for name, value in batch.items()}
    generator = torch.Generator().manual_seed(seed)
    view_a, _ = augmentation(batch["waveforms"], extractor, generator)
    view_b, _ = augmentation(batch.get("second_waveforms", batch["waveforms"]), extractor, generator)
    return view_a, view_b


def measure(
    args: PretrainArguments,
    accelerator: Accelerator,
    model: MBTForPreTraining,
    output: MBTForPreTrainingOutput,
    run: TrainingRun,
    watch: CollapseWatch,
) -> Losses:
    """Returns the losses of a step and, where they are logged, what the latents look like."""
    losses = {name: output[name] for name in ("loss", "invariance_loss", "redundancy_loss")}
    if run.is_logged and losses["loss"].isfinite():
        losses |= diagnose(accelerator, model.config, output)
        if news := watch.look(run.step + 1, losses, global_batch_size(args, accelerator.num_processes)):
            accelerator.print(news)
    return losses


def announce(
    args: PretrainArguments,
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    crops: CropBatches,
    max_steps: int,
) -> None:
    """Prints what is about to be trained, about how long it takes, and which loss is as low as it can get."""
    batch_size = global_batch_size(args, accelerator.num_processes)
    millions = sum(p.numel() for p in model.mbt.parameters()) / 1e6
    accelerator.print(
        f"Pre-training {args.objective} ({args.preset}, encoder of {millions:.2f} M parameters) on "
        f"{crops.extent}: {max_steps} steps of {batch_size} pairs."
    )
    if accelerator.device.type == "cpu":
        with accelerator.autocast():
            seconds_of_one = seconds_of_crop(model, frames_of_crop(crops, extractor))
        seconds = 2 * batch_size / accelerator.num_processes * seconds_of_one
        accelerator.print(
            f"Here the encoder takes about {describe_duration(seconds)} a step and "
            f"{describe_duration(max_steps * seconds)} in all; distortions and projector come on top of that."
        )
        if accelerator.mixed_precision == "no" and cpu_multiplies_bfloat16():
            accelerator.print("This CPU has instructions for bfloat16: --mixed_precision bf16 makes a step faster.")
    if args.objective in ("bt", "mbt"):
        floor = barlow_twins_floor(batch_size, model.config.projector_sizes[-1], model.config.redundancy_loss_weight)
        if floor > 0:
            accelerator.print(
                f"The floor of the loss is {floor:.4g}: no network gets below it with this batch and projector."
            )


@torch.no_grad()
def correlate(
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    sample: dict,
    seed: int,
) -> np.ndarray:
    """Cross-correlates the latents of two views of some crops, normalized as the objective does: (D, D) float32.

    The same in every process.
    """
    model.eval().to(accelerator.device)
    broadcast(list(model.buffers()))  # running statistics are each process's own
    views = make_views(accelerator, sample, extractor, augmentation, seed)
    z_a, z_b = (torch.cat([model.project(part) for part in view.split(64)]) for view in views)
    return cross_correlation(z_a, z_b, *correlation_normalization(model.config)).cpu().numpy()


def save_run(
    args: PretrainArguments,
    accelerator: Accelerator,
    model: MBTForPreTraining,
    extractor: MBTFeatureExtractor,
    augmentation: MBTAugmentation,
    crops: CropBatches,
    matrices: dict,
) -> None:
    """Leaves model, extractor, recipe, pictures and card in `output_dir`."""
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
    last = last_step(read_log(output_dir))
    facts = {
        "speech": crops.extent,
        "crops": f"{crops.crop_seconds:g} s, {crops.views.replace('_', ' ')}",
        "steps": f"{last['step']} of {batch_size} pairs",
        "learning rate": f"{args.learning_rate:g}, {shortened_warmup(args.warmup_steps, last['step'])} steps of "
        "warm-up, cosine",
        "precision": accelerator.mixed_precision,
        "seed": args.seed,
    }
    if args.sparsity_method is not None:
        facts["sparse training"] = f"{args.sparsity_method}, density {args.density:g}"
    cost = encoder_cost(model.mbt, frames_of_crop(crops, extractor))
    write_pretraining_card(args, model.config, cost, facts, last, extractor.sampling_rate)


def closing(args: PretrainArguments) -> str:
    """Returns the last line: where the encoder is, and how to fine-tune it."""
    words = ("--model_name_or_path", args.output_dir, "--train_dir", "LABELED_FOLDER")
    words += ("--freeze_encoder", "--output_dir", f"{Path(args.output_dir)}-labels")
    return closing_line(f"The encoder is in {args.output_dir}", "python", "run_finetune.py", *words)


def frames_of_crop(crops: CropBatches, extractor: MBTFeatureExtractor) -> int:
    """Returns the number of feature frames of a crop."""
    return 1 + round(crops.crop_seconds * extractor.sampling_rate) // extractor.hop_length


if __name__ == "__main__":
    obey_launcher()
    with explain_user_errors():
        main()
