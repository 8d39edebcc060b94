"""Write a checkpoint as one ONNX file that takes waveforms, front end included, for runtimes without PyTorch.

    mbt export runs/mine --output mine.onnx

The input of the file is `input_values` (B, S): a batch of B clips of S samples each, at the extractor's sampling rate.
The output is `logits` (B, K) for K classes if the checkpoint is a classifier, and otherwise `pooler_output` (B, H) and
`last_hidden_state` (B, T', H) with T' frames. The metadata contain `sampling_rate` and, for a classifier, `id2label`.

Axes: B clips, S samples, T frames, F bins of the Fourier transform, M mel bins, T' output frames, H hidden size,
K classes.
"""

import json
import shutil
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from feature_extraction import MBTFeatureExtractor
from feature_extraction.spectrogram_mbt import mel_filterbank, power_spectrogram
from mbt_speech.closing_line import closing_line
from mbt_speech.user_errors import require
from modeling_mbt import MBTForSequenceClassification, MBTModel

from .output_files import check_output, write_whole
from .speech_encoder import SpeechEncoder

EXTRA, PURPOSE = "export", "Export"
EXAMPLE_SHAPE = (2, 8000)  # any two sizes above one: both axes stay free
QUANTIZED_OPERATORS = ["Conv", "MatMul"]


class WaveformFrontEnd(nn.Module):
    """What the extractor does to whole clips, (B, S) -> (B, T, M), in operations that ONNX has.

    The extractor itself cuts batches into chunks and its filterbank into blocks, for the sake of a CPU's caches.
    """

    filterbank: Tensor

    def __init__(self, extractor: MBTFeatureExtractor):
        super().__init__()
        self.extractor = extractor
        self.register_buffer("filterbank", torch.tensor(_filterbank(extractor), dtype=torch.float32))

    def forward(self, input_values: Tensor) -> Tensor:
        """Returns the features, normalized."""
        extractor = self.extractor
        power = power_spectrogram(input_values, extractor.n_fft, extractor.win_length, extractor.hop_length)
        decibels = 10 * (power @ self.filterbank).clamp(min=extractor.power_floor).log10()
        return extractor.normalize(decibels, torch.ones_like(decibels[..., 0]))


class WaveformModel(SpeechEncoder):
    """Front end and model, an encoder's or a classifier's: (B, S) -> the tensors that `output_names` lists."""

    def __init__(self, model: MBTModel | MBTForSequenceClassification, extractor: MBTFeatureExtractor):
        super().__init__(model, extractor)
        self.front_end = WaveformFrontEnd(extractor)
        self.is_classifier = isinstance(model, MBTForSequenceClassification)
        self.output_names = ["logits"] if self.is_classifier else ["pooler_output", "last_hidden_state"]

    @staticmethod
    def _take(model: MBTModel | MBTForSequenceClassification, name: str | Path) -> Any:
        return model

    def forward(self, input_values: Tensor) -> tuple[Tensor, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Returns the outputs in the order of `output_names`."""
        output = self.model(self.front_end(input_values), return_dict=True)
        return tuple(output[name] for name in self.output_names)

    def metadata(self) -> dict[str, str]:
        """Returns what a file needs to say beside its weights."""
        metadata = {"sampling_rate": str(self.sampling_rate)}
        if self.is_classifier:
            metadata["id2label"] = json.dumps(self.model.config.id2label)
        return metadata


def export_onnx(model: WaveformModel, output: str | Path, *, quantize: bool = False) -> None:
    """Writes a model as one ONNX file with free batch and time axes.

    Args:
        model: Of `WaveformModel.from_pretrained`.
        output: The file; its folder is made.
        quantize: Store the weights of the network in 8 bits, and multiply in 8 bits too (dynamic
            quantization: activations are scaled batch by batch). The front end stays in float32.

    Raises:
        ImportError: The `export` extra is not installed.
        ValueError: The file cannot be written; what was there before is untouched.
    """
    require("onnxscript", EXTRA, PURPOSE)
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    example = torch.randn(EXAMPLE_SHAPE, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        program: Any = torch.onnx.export(
            model.eval(),
            (example,),
            dynamo=True,
            verbose=False,
            input_names=["input_values"],
            output_names=model.output_names,
            dynamic_shapes={"input_values": {0: "batch", 1: "samples"}},
        )
    program.model.metadata_props.update(model.metadata())
    with tempfile.TemporaryDirectory() as name:
        written = Path(name) / "float32.onnx"
        program.save(written, external_data=False)
        if quantize:
            written = _quantize(written)
        with written.open("rb") as whole:
            write_whole(output, lambda file: shutil.copyfileobj(whole, file))


def open_onnx(path: str | Path, *, num_threads: int = 0) -> Any:
    """Opens a file in onnxruntime on the CPU.

    Args:
        path: Of the file.
        num_threads: Of one operator; 0 lets onnxruntime choose.

    Returns:
        An `onnxruntime.InferenceSession`: `run(None, {"input_values": waveforms})` gives a list of arrays.

    Raises:
        ImportError: The `export` extra is not installed.
    """
    onnxruntime = require("onnxruntime", EXTRA, PURPOSE)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = num_threads
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def largest_difference(model: WaveformModel, session: Any, waveforms: Tensor) -> float:
    """Returns the largest absolute difference of any output between PyTorch and an opened file, on waveforms."""
    with torch.no_grad():
        expected = model(waveforms)
    outputs = session.run(model.output_names, {"input_values": waveforms.numpy()})
    return max(float(np.abs(a.numpy() - b).max()) for a, b in zip(expected, outputs, strict=True))


def add_arguments(parser: ArgumentParser) -> None:
    """Adds the command's arguments."""
    parser.add_argument("model_name_or_path", help="the model: a folder, or a name on the Hub")
    parser.add_argument("--output", default="model.onnx", help="file to write (default: model.onnx)")
    parser.add_argument(
        "--quantize",
        action="store_true",
        help="store weights in 8 bits: about a third of the size, but slower and less exact",
    )


def main(args: Namespace) -> None:
    """Exports, and prints what the file takes, gives, weighs, and by how much it differs."""
    Path(args.output).parent.mkdir(parents=True, exist_ok=True)
    check_output(Path(args.output), (".onnx",))
    model = WaveformModel.from_pretrained(args.model_name_or_path)
    export_onnx(model, args.output, quantize=args.quantize)
    noise = 0.1 * torch.randn(3, model.sampling_rate, generator=torch.Generator().manual_seed(0))
    result = (
        f"{args.output}: {Path(args.output).stat().st_size / 1e6:.2f} MB, input_values (batch, samples at "
        f"{model.sampling_rate} Hz) -> {', '.join(model.output_names)}; differs from PyTorch on noise by at most "
        f"{largest_difference(model, open_onnx(args.output), noise):.1e}"
    )
    silence = f'{{"input_values": numpy.zeros((1, {model.sampling_rate}), "float32")}}'
    code = f"print(onnxruntime.InferenceSession({json.dumps(args.output)}).run(None, {silence}))"
    print(closing_line(result, "python", "-c", f"import numpy, onnxruntime; {code}"))


def _filterbank(extractor: MBTFeatureExtractor) -> np.ndarray:
    """Weights (F, M) of the mel bands, or of the Fourier bins that are kept."""
    low, high = extractor.min_frequency, extractor.max_frequency
    if extractor.frequency_scale == "mel":
        return mel_filterbank(extractor.feature_size, extractor.n_fft, extractor.sampling_rate, low, high)
    return np.eye(extractor.n_fft // 2 + 1)[:, extractor.kept_bins()]


def _quantize(path: Path) -> Path:
    """Quantizes a model, the front end aside; returns the path of the result, beside it.

    Weights are unsigned: onnxruntime's signed 8-bit convolutions take twice as long on x86.
    """
    quantization = require("onnxruntime.quantization", EXTRA, PURPOSE)
    onnx = require("onnx", EXTRA, PURPOSE)
    shapes, output = path.with_name("shapes.onnx"), path.with_name("uint8.onnx")
    quantization.quant_pre_process(path, shapes, skip_optimization=True, skip_symbolic_shape=True)
    nodes = onnx.load(shapes).graph.node
    quantization.quantize_dynamic(
        shapes,
        output,
        op_types_to_quantize=QUANTIZED_OPERATORS,
        weight_type=quantization.QuantType.QUInt8,
        nodes_to_exclude=[node.name for node in nodes if "front_end" in _module_path(node)],
    )
    return output


def _module_path(node: Any) -> str:
    """Returns where in the PyTorch model a node of the graph comes from, as the exporter noted it."""
    return next((entry.value for entry in node.metadata_props if entry.key == "pkg.torch.onnx.name_scopes"), "")
