"""A checkpoint in PyTorch, as ONNX, and as ONNX in 8 bits: size, time, and what it does to the embeddings.

    python -m benchmarks.export --model_folder runs/demo/mbt0         # one CPU thread
    python -m benchmarks.export --preset strong                      # as it is initialized

All three take waveforms, front end included. They take turns, so that a busy machine slows down all of them, and the
fastest run of each is reported. Accuracies are those of one linear head, fitted on the embeddings of PyTorch, on the
embeddings of each: test split of the built-in **synthetic** corpus.
"""

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from datasets import Dataset

from benchmarks.features import fastest_seconds
from feature_extraction import to_waveform
from mbt_speech.corpora.synthetic.corpus import load_corpus
from mbt_speech.inference.export import WaveformModel, export_onnx, open_onnx
from mbt_speech.presets import PRESETS
from mbt_speech.probing.linear_fits import LinearHead
from mbt_speech.probing.linear_head import fit_linear_head
from modeling_mbt import MBTForSequenceClassification, MBTModel

EMBEDDED_AT_ONCE = 16
Contender = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    args = parse_args()
    torch.set_num_threads(args.num_threads)
    model = WaveformModel.from_pretrained(args.model_folder) if args.model_folder else initialized(args.preset)
    with tempfile.TemporaryDirectory() as folder:
        contenders, megabytes = make_contenders(model, Path(folder), args.num_threads)
    corpus = load_corpus(args.corpus)["labelled"]
    waveforms = read_clips(corpus, model.extractor.sampling_rate)
    embeddings = {name: embed(run, waveforms) for name, run in contenders.items()}
    batch = waveforms[: args.batch_size]
    seconds = fastest_seconds({name: lambda run=run: run(batch) for name, run in contenders.items()}, args.seconds)
    head, test, labels = fit_head(corpus, embeddings["PyTorch"], args.label)

    print(f"torch {torch.__version__}, {args.num_threads} CPU threads, {args.model_folder or args.preset}")
    print(f"{'':16}{'MB':>8}{f'ms for {args.batch_size} s':>14}{'ratio':>8}{'difference':>12}{args.label:>10} %")
    for name, values in embeddings.items():
        difference = np.linalg.norm(values - embeddings["PyTorch"]) / np.linalg.norm(embeddings["PyTorch"])
        accuracy = 100 * (head.predict(values[test]) == labels).mean()
        print(
            f"{name:16}{megabytes[name]:8.2f}{1000 * seconds[name]:14.1f}{seconds[name] / seconds['PyTorch']:8.2f}"
            f"{difference:12.1e}{accuracy:12.1f}"
        )
    print(f"difference: of {len(waveforms)} embeddings, relative to their norm; accuracy on {len(labels)} clips")


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures what exporting and quantising an MBT encoder changes.")
    parser.add_argument("--model_folder", help="a checkpoint; by default a preset as it is initialized")
    parser.add_argument("--preset", choices=sorted(PRESETS), default="strong")
    parser.add_argument("--corpus", default="small", help="size of the built-in corpus")
    parser.add_argument("--label", default="gender", help="gender or keyword: of the corpus")
    parser.add_argument("--batch_size", type=int, default=16, help="clips of one second in a timed batch")
    parser.add_argument("--num_threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20, help="for the times")
    return parser.parse_args()


def initialized(preset: str) -> WaveformModel:
    torch.manual_seed(0)
    return WaveformModel(MBTModel(PRESETS[preset].config()), PRESETS[preset].extractor()).eval()


def make_contenders(model: WaveformModel, folder: Path, num_threads: int) -> tuple[dict[str, Contender], dict]:
    """Returns for each contender a function from waveforms (B, S) to embeddings (B, H), and its size in MB."""
    if isinstance(model.model, MBTForSequenceClassification):
        model = WaveformModel(model.model.mbt, model.extractor).eval()
    extractor = model.extractor

    def pytorch(waveforms: np.ndarray) -> np.ndarray:
        features = extractor(waveforms, sampling_rate=extractor.sampling_rate, return_tensors="pt")
        with torch.inference_mode():
            return model.model(**features).pooler_output.numpy()

    contenders: dict[str, Contender] = {"PyTorch": pytorch}
    model.model.save_pretrained(folder)
    megabytes = {"PyTorch": (folder / "model.safetensors").stat().st_size / 1e6}
    for name, quantize in (("ONNX", False), ("ONNX, 8 bits", True)):
        path = folder / f"{name}.onnx"
        export_onnx(model, path, quantize=quantize)
        session = open_onnx(path, num_threads=num_threads)
        contenders[name] = lambda x, session=session: session.run(["pooler_output"], {"input_values": x})[0]
        megabytes[name] = path.stat().st_size / 1e6
    return contenders, megabytes


def read_clips(corpus: Dataset, sampling_rate: int) -> np.ndarray:
    """Waveforms (N, S) of one second."""
    clips = [to_waveform(audio, sampling_rate, duration_seconds=1.0) for audio in corpus["audio"]]
    return np.stack([np.pad(clip, (0, sampling_rate - len(clip))) for clip in clips])


def embed(run: Contender, waveforms: np.ndarray) -> np.ndarray:
    return np.concatenate(
        [run(waveforms[i : i + EMBEDDED_AT_ONCE]) for i in range(0, len(waveforms), EMBEDDED_AT_ONCE)]
    )


def fit_head(corpus: Dataset, embeddings: np.ndarray, label: str) -> tuple[LinearHead, np.ndarray, np.ndarray]:
    """Returns a head fitted on the training split, the rows of the test split, and their labels."""
    labels, splits = np.array(corpus[label]), np.array(corpus["split"])
    rows = {split: np.flatnonzero(splits == split) for split in ("train", "validation", "test")}
    head = fit_linear_head(
        embeddings[rows["train"]],
        labels[rows["train"]],
        embeddings[rows["validation"]],
        labels[rows["validation"]],
        corpus.features[label].num_classes,
    )
    return head, rows["test"], labels[rows["test"]]


if __name__ == "__main__":
    main()
