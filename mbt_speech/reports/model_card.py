"""README.md of a run, which is its model card on the Hub: what was done to what, with which result."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers import PreTrainedConfig

from mbt_speech.arguments import CONTROLS, SYNTHETIC
from mbt_speech.data.sources import source
from mbt_speech.run_arguments import RunArguments
from mbt_speech.training.sparsity import EncoderCost
from modeling_mbt import MBTConfig

from .label_curves import short_names
from .plain_text import plain
from .results import TRAINED, can_be_saved, validation_rank
from .software import software_versions
from .tables import markdown_table

PAPER = "https://arxiv.org/abs/2309.03619"
METHOD = f"invariance and redundancy reduction between two distorted views of speech ([arXiv 2309.03619]({PAPER}))"
CPC_METHOD = "contrastive predictive coding ([arXiv 1807.03748](https://arxiv.org/abs/1807.03748))"
TAGS = ["mbt", "speech", "audio", "self-supervised-learning", "barlow-twins"]
TAGS_OF_OTHERS = ["speech", "audio"]
KEYS = ["method", "encoder", "label_fraction"]  # of results that differ in their seeds alone
DIAGNOSTICS = {
    "loss": "loss",
    "loss_floor": "lowest loss that is possible with this batch size and number of latents",
    "invariance_loss": "invariance term",
    "redundancy_loss": "redundancy term, unweighted",
    "mean_correlation": "mean of the diagonal of the cross-correlation of two views, C_ii (1: they agree)",
    "off_diagonal_rms": "root mean square of the off-diagonal, C_ij (0: no redundancy)",
    "effective_rank": "effective rank of the projections: how many dimensions are in use",
    "representation_effective_rank": "effective rank of the representations",
}
EMBED = """\
import numpy as np
from transformers import AutoFeatureExtractor, AutoModel

extractor = AutoFeatureExtractor.from_pretrained("{name}", trust_remote_code=True)
model = AutoModel.from_pretrained("{name}", trust_remote_code=True)
waveform = np.zeros({sampling_rate}, dtype=np.float32)  # mono, {sampling_rate} Hz
inputs = extractor(waveform, sampling_rate={sampling_rate}, return_tensors="pt")
embedding = model(**inputs).pooler_output  # (1, {pooled_size})"""
CLASSIFY = """\
import numpy as np
from transformers import pipeline

classify = pipeline("audio-classification", model="{name}", trust_remote_code=True)
waveform = np.zeros({sampling_rate}, dtype=np.float32)  # mono, {sampling_rate} Hz
print(classify(waveform))"""
CLASSIFY_OTHERS = CLASSIFY.replace(", trust_remote_code=True", "")  # classes that transformers has

CLASSIFY_FRAMES = """\
import torch
from mbt_speech.probing.frame_classifier import FrameClassifier

classifier = FrameClassifier.from_pretrained("{name}")
waveform = torch.zeros({sampling_rate})  # mono, {sampling_rate} Hz
classes = classifier([waveform]).argmax(-1)[0]
seconds = classifier.centers(len(classes)) / {sampling_rate}
print([(round(float(at), 3), classifier.label_names[k]) for at, k in zip(seconds, classes)])"""


def write_pretraining_card(
    args: RunArguments,
    config: MBTConfig,
    cost: EncoderCost,
    facts: Mapping[str, Any],
    last_step: Mapping[str, float],
    sampling_rate: int,
) -> None:
    """Writes the card of a pre-trained encoder into `output_dir`.

    Args:
        args: The run.
        config: The model's.
        cost: Of its encoder, for one crop.
        facts: Further rows of the table, name -> value, such as the hours of speech.
        last_step: Last line of `train_log.jsonl`.
        sampling_rate: In Hz, what the extractor expects.
    """
    encoder = f"{cost.num_dense_weights / 1e6:.2f} M weights, {cost.dense_flops / 1e6:.0f} MFLOP for a crop"
    if config.encoder_density < 1:
        encoder += (
            f"; {100 * cost.density:.1f} % of those that are pruned remain, in all {cost.num_weights / 1e6:.2f} M "
            f"weights and {cost.flops / 1e6:.0f} MFLOP ({100 * cost.flops / cost.dense_flops:.1f} %)"
        )
    rows = {"objective": config.objective, "encoder": encoder, **facts}
    measured = {words: f"{last_step[name]:.4g}" for name, words in DIAGNOSTICS.items() if name in last_step}
    sections = [
        f"A speech encoder, pre-trained without labels by {CPC_METHOD if config.objective == 'cpc' else METHOD}.",
        _snippet(EMBED, args, sampling_rate=sampling_rate, pooled_size=config.pooled_size),
        "## Training\n\n" + markdown_table(["", ""], {"data": source(args), **rows}.items()),
        f"## At step {last_step['step']}\n\n" + markdown_table(["", ""], measured.items()),
        _pictures(args, {"loss.png": "Losses", "cross_correlation.png": "Cross-correlation of the latents"}),
        _limits(
            f"It was trained only on {plain(source(args))}, at {sampling_rate} Hz, in the crops named above. It was "
            "not tested on other languages, rooms, microphones and lengths.",
            "Its representations can tell voices apart: if recordings are personal data, so are they.",
        ),
    ]
    _write(args, "feature-extraction", sections)


def write_classifier_card(
    args: RunArguments, config: PreTrainedConfig, results: Sequence[Mapping[str, Any]], sampling_rate: int
) -> None:
    """Writes the card of a classifier into `output_dir`.

    Args:
        args: The run.
        config: The model's.
        results: Lines of `results.jsonl`; the saved model is the one that ranks highest of those that can be saved.
        sampling_rate: In Hz, what the extractor expects.
    """
    table = pd.DataFrame(results)
    table["name"] = table["method"]
    names = short_names(list(table["name"].unique()))
    table["method"] = [names[name] for name in table["name"]]
    models = [row for row in table.to_dict("records") if can_be_saved(row)]
    best = max(models, key=validation_rank)
    of_best = [row["accuracy"] for row in models if all(row[key] == best[key] for key in KEYS)]
    labels = [name for _, name in sorted((config.id2label or {}).items())]
    shown = ", ".join(map(plain, labels[:20])) + (", ..." if len(labels) > 20 else "")
    of_frames, is_mbt = best["unit"] == "frames", config.model_type == MBTConfig.model_type
    code = CLASSIFY_FRAMES if of_frames else CLASSIFY if is_mbt else CLASSIFY_OTHERS
    sections = [
        f"Predicts the {plain(best['task'])} of {'every frame' if of_frames else 'a recording'} of speech: one of "
        f"{len(labels)} classes ({shown}). {_origin(best, config)}",
        _snippet(code, args, sampling_rate=sampling_rate),
        f"## Results\n\n{_explain_results(best, args)}\n\n" + _accuracy_table(table),
        _pictures(args, {"loss.png": "Losses"}),
        _limits(
            f"It predicts one of its {len(labels)} classes for every recording, even if none fits.",
            f"The accuracies are those on {plain(source(args))}. Other languages, rooms and microphones were not "
            "tested.",
        ),
    ]
    base_model = None if is_mbt or Path(best["name"]).exists() else best["name"]
    tags = TAGS if is_mbt else TAGS_OF_OTHERS
    pipeline_tag = "feature-extraction" if of_frames else "audio-classification"
    _write(args, pipeline_tag, sections, [_evaluation(best, of_best, args)], tags=tags, base_model=base_model)


def _explain_results(best: Mapping[str, Any], args: RunArguments) -> str:
    kind = "trained model" if best["encoder"] == TRAINED else "MBT model"
    return (
        f"Top-1 accuracy on the test split of {plain(source(args))} ({best['num_test']} {best['unit']}); "
        f"always predicting the most frequent class scores {100 * best['chance']:.1f} %. Mean and standard deviation "
        f"over seeds. The model in this repository is, of those with the most labels, the best {kind} on validation: "
        f"{plain(best['method'])}, "
        f"{100 * best['label_fraction']:g} % of the labels ({best['num_train']} {best['unit']}), seed {best['seed']}; "
        f"its own test accuracy is {100 * best['accuracy']:.1f} %.{_weights(best['alpha'])}"
    )


def _accuracy_table(table: pd.DataFrame) -> str:
    """Returns mean and spread over the seeds, a line for each method, encoder and share of labels."""
    accuracy = table.groupby(KEYS, sort=False)["accuracy"].agg(["mean", "std", "count"]).reset_index()
    rows = []
    for row in accuracy.to_dict("records"):
        spread = "" if pd.isna(row["std"]) else f" ± {100 * row['std']:.1f}"
        mean = f"{100 * row['mean']:.1f}{spread}"
        share = f"{100 * row['label_fraction']:g} %"
        rows.append([row["method"], row["encoder"], share, mean, row["count"]])
    return markdown_table(["encoder", "frozen or trained", "share of labels", "test accuracy in %", "seeds"], rows)


def _evaluation(best: Mapping[str, Any], accuracies: Sequence[float], args: RunArguments) -> EvalResult:
    """Returns what the Hub shows beside the model: the mean over the seeds of its method."""
    return EvalResult(
        task_type="audio-classification",
        task_name=str(best["task"]),
        dataset_type=_name_on_hub(args) or "audiofolder",
        dataset_name=source(args),
        dataset_split="test",
        metric_type="accuracy",
        metric_name=f"accuracy, mean of {len(accuracies)} seeds" if len(accuracies) > 1 else "accuracy",
        metric_value=sum(accuracies) / len(accuracies),
    )


def _origin(best: Mapping[str, Any], config: PreTrainedConfig) -> str:
    if best["method"] in CONTROLS:
        return f"Its encoder, `{best['method']}`, was not pre-trained: the model is a control, for comparison."
    if config.model_type == MBTConfig.model_type:
        return f"The encoder was pre-trained without labels ([arXiv 2309.03619]({PAPER}))."
    return f"The encoder, a {config.model_type} model, is {plain(best['method'])}, fine-tuned."


def _weights(alpha: float | None) -> str:
    if alpha is None or pd.isna(alpha):
        return ""
    if alpha == 0:
        return " Validation did not show that fine-tuned weights are better: the encoder is the frozen one."
    return f" Its weights are {alpha:g} of the way from the frozen encoder (0) to the fine-tuned network (1)."


def _name_on_hub(args: RunArguments) -> str | None:
    """Returns the data set's name, unless it is a folder of this machine."""
    return args.dataset_name if args.dataset_name and not Path(args.dataset_name).exists() else None


def _name(args: RunArguments) -> str:
    return args.hub_model_id or Path(args.output_dir).resolve().name


def _snippet(code: str, args: RunArguments, **values: Any) -> str:
    name = json.dumps(_name(args), ensure_ascii=False)[1:-1].replace("`", "\\x60")  # inside of quotes
    return f"## Use\n\n```python\n{code.format(name=name, **values)}\n```"


def _limits(*sentences: str) -> str:
    return "## Limits\n\n" + "\n".join(f"* {sentence}" for sentence in sentences)


def _pictures(args: RunArguments, names: Mapping[str, str]) -> str:
    there = {name: words for name, words in names.items() if Path(args.output_dir, name).is_file()}
    return "\n\n".join(f"![{words}]({name})" for name, words in there.items())


def _write(
    args: RunArguments,
    pipeline_tag: str,
    sections: Sequence[str],
    evaluations: list[EvalResult] | None = None,
    tags: Sequence[str] = TAGS,
    base_model: str | None = None,
) -> None:
    name = _name(args).split("/")[-1]
    on_hub = _name_on_hub(args)
    data = ModelCardData(
        license=args.hub_license,
        library_name="transformers",
        pipeline_tag=pipeline_tag,
        tags=list(tags),
        base_model=base_model,
        datasets=None if on_hub in (None, SYNTHETIC) else [on_hub],
        model_name=name if evaluations else None,
        eval_results=evaluations,
    )
    software = "## Software\n\n" + ", ".join(map(" ".join, software_versions().items()))
    body = "\n\n".join(section for section in (f"# {plain(name)}", *sections, software) if section)
    ModelCard(f"---\n{data.to_yaml()}\n---\n\n{body}\n").save(Path(args.output_dir, "README.md"))
