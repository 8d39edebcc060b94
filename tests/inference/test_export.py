"""Checkpoints outside eager PyTorch: as one graph, compiled, and as ONNX from the waveform on.

Axes: B clips, S samples, T frames, M mel bins.
"""

import json
import sys

import pytest
import torch

from feature_extraction import MBTFeatureExtractor
from mbt_speech.__main__ import main
from mbt_speech.inference.export import WaveformFrontEnd, WaveformModel, export_onnx, largest_difference, open_onnx
from mbt_speech.presets import PRESETS
from modeling_mbt import MBTConfig, MBTForPreTraining, MBTForSequenceClassification, MBTModel
from tests.support.models import SMALL_BOTTLENECK, TINY, stir
from tests.support.sounds import chirp

LINEAR = {"feature_size": 101, "n_fft": 400, "frequency_scale": "linear", "min_frequency": 0, "max_frequency": 4000}
EXTRACTORS = {
    "mel": {},
    "mel, short hop": {"feature_size": 20, "hop_length": 100, "win_length": 320},
    "linear": LINEAR,
    "data set statistics": {"mean": -40.0, "std": 12.5},
    "statistics of each band": {"feature_size": 3, "mean": [-40.0, -30.0, -20.0], "std": [9.0, 10.0, 11.0]},
    "dB": {"do_normalize": False},
}
# torch's exporter copies its own deprecated tree specifications, and its compiler imports torch.jit.
pytestmark = [
    pytest.mark.filterwarnings("ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated:DeprecationWarning"),
]


def voices(num_clips: int, num_samples: int) -> torch.Tensor:
    """Waveforms (B, S): wavering tones, the first half of the last clip silent."""
    clips = torch.stack([torch.tensor(chirp(num_samples / 16000, 110 + 37 * i, i)) for i in range(num_clips)])
    clips[-1, : num_samples // 2] = 0
    return clips


def classifier() -> MBTForSequenceClassification:
    config = PRESETS["tiny"].config(id2label={0: "no", 1: "yes", 2: "other"}, label2id={"no": 0, "yes": 1, "other": 2})
    return stir(MBTForSequenceClassification(config))


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """A pre-trained and a fine-tuned checkpoint with their extractor, as the scripts leave them."""
    folders = {}
    for name, model in (("embedding", stir(MBTForPreTraining(PRESETS["tiny"].config()))), ("logits", classifier())):
        folders[name] = tmp_path_factory.mktemp(name)
        model.save_pretrained(folders[name])
        PRESETS["tiny"].extractor().save_pretrained(folders[name])
    return folders


@pytest.fixture(scope="module")
def exported(checkpoints, tmp_path_factory):
    """The same checkpoints, opened, beside their ONNX files."""
    pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    folder = tmp_path_factory.mktemp("onnx")
    pairs = {}
    for name, checkpoint in checkpoints.items():
        model = WaveformModel.from_pretrained(checkpoint)
        export_onnx(model, folder / f"{name}.onnx")
        pairs[name] = model, folder / f"{name}.onnx"
    return pairs


@pytest.mark.parametrize("settings", EXTRACTORS.values(), ids=EXTRACTORS)
def test_the_exported_front_end_computes_the_extractors_features(settings):
    extractor = MBTFeatureExtractor(**settings)
    waveforms = voices(3, 9_037)
    expected = extractor(list(waveforms), sampling_rate=16000, return_tensors="pt")["input_features"]
    torch.testing.assert_close(WaveformFrontEnd(extractor)(waveforms), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TINY, SMALL_BOTTLENECK], ids=["plain", "bottleneck"])
@pytest.mark.parametrize("model_class", [MBTModel, MBTForSequenceClassification])
def test_one_exported_graph_serves_every_batch_size_length_and_padding(settings, model_class):
    model = stir(model_class(MBTConfig(**settings)))
    free = torch.export.Dim.DYNAMIC
    axes = {0: free, 1: free}
    arguments = (torch.randn(2, 40, settings["num_mel_bins"]), torch.ones(2, 40, dtype=torch.long))
    graph = torch.export.export(
        model, arguments, dynamic_shapes={"input_features": axes, "attention_mask": axes}
    ).module()
    for num_clips, num_frames in ((2, 40), (3, 17), (5, 64)):
        features = torch.randn(num_clips, num_frames, settings["num_mel_bins"])
        mask = (torch.arange(num_frames) < torch.arange(num_frames - num_clips, num_frames)[:, None]).long()
        for name, value in model(features, mask).items():
            torch.testing.assert_close(graph(features, mask)[name], value)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [TINY, SMALL_BOTTLENECK], ids=["plain", "bottleneck"])
@pytest.mark.parametrize("model_class", [MBTModel, MBTForSequenceClassification])
def test_the_whole_model_is_traced_without_a_graph_break(settings, model_class):
    model = stir(model_class(MBTConfig(**settings)))
    traced = torch.compile(model, fullgraph=True, backend="aot_eager")
    features = torch.randn(3, 30, settings["num_mel_bins"])
    gradients = []
    for network in (model, traced):
        model.zero_grad()
        output = network(features, attention_mask=torch.ones(3, 30, dtype=torch.long))[-1]
        output.square().sum().backward()
        gradients.append([p.grad.clone() for p in model.parameters()])
    for eager, compiled in zip(*gradients, strict=True):
        torch.testing.assert_close(compiled, eager, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_the_compiled_classifier_gives_the_logits_of_the_eager_one():
    model = classifier()
    features = torch.randn(3, 30, model.config.num_mel_bins)
    compiled = torch.compile(model, fullgraph=True)(features).logits
    torch.testing.assert_close(compiled, model(features).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["embedding", "logits"])
def test_onnx_equals_extractor_and_model_for_every_batch_size_and_length(kind, exported, checkpoints):
    _, path = exported[kind]
    model_class = MBTForSequenceClassification if kind == "logits" else MBTForPreTraining
    model = model_class.from_pretrained(checkpoints[kind]).eval()
    extractor = MBTFeatureExtractor.from_pretrained(checkpoints[kind])
    names = ["logits"] if kind == "logits" else ["pooler_output", "last_hidden_state"]
    session = open_onnx(path, num_threads=1)
    assert [output.name for output in session.get_outputs()] == names
    for num_clips, num_samples in ((1, 400), (1, 16_000), (2, 8_000), (5, 12_345), (3, 33_333)):
        waveforms = voices(num_clips, num_samples)
        features = extractor(list(waveforms), sampling_rate=16000, return_tensors="pt")
        with torch.no_grad():
            expected = model(**features) if kind == "logits" else model.mbt(**features)
        values = session.run(names, {"input_values": waveforms.numpy()})
        for name, value in zip(names, values, strict=True):
            torch.testing.assert_close(torch.tensor(value), expected[name], atol=1e-4, rtol=1e-4)


@pytest.mark.slow
def test_a_file_says_its_rate_and_the_names_of_its_classes(exported):
    metadata = open_onnx(exported["logits"][1]).get_modelmeta().custom_metadata_map
    assert metadata["sampling_rate"] == "16000"
    assert json.loads(metadata["id2label"]) == {"0": "no", "1": "yes", "2": "other"}
    assert "id2label" not in open_onnx(exported["embedding"][1]).get_modelmeta().custom_metadata_map


@pytest.mark.slow
def test_quantization_reaches_every_layer_but_not_the_front_end(exported, tmp_path):
    onnx = pytest.importorskip("onnx")
    model, path = exported["logits"]
    export_onnx(model, tmp_path / "eight_bits.onnx", quantize=True)
    operators = [node.op_type for node in onnx.load(tmp_path / "eight_bits.onnx").graph.node]
    config = model.model.config
    assert operators.count("ConvInteger") == sum(config.depths)
    assert operators.count("MatMulInteger") == len(config.frame_hidden_sizes) + 1
    assert operators.count("MatMul") == 1  # the filterbank
    assert (tmp_path / "eight_bits.onnx").stat().st_size < path.stat().st_size
    waveforms = voices(4, 16_000)
    session = open_onnx(tmp_path / "eight_bits.onnx", num_threads=1)
    scale = model(waveforms)[0].abs().max().item()
    # 8 bits resolve 1 / 255 of the range; errors of three convolutions and two matrices add up.
    assert 0 < largest_difference(model, session, waveforms) < 0.05 * scale
    assert session.get_modelmeta().custom_metadata_map["sampling_rate"] == "16000"


@pytest.mark.slow
def test_the_command_writes_a_file_and_says_what_it_takes_and_gives(exported, checkpoints, tmp_path, capsys):
    main(["export", str(checkpoints["embedding"]), "--output", str(tmp_path / "new" / "model.onnx")])
    assert (tmp_path / "new" / "model.onnx").is_file()
    said = capsys.readouterr().out
    assert "input_values (batch, samples at 16000 Hz) -> pooler_output, last_hidden_state" in said


def test_without_the_extra_the_error_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    model = WaveformModel(stir(MBTModel(PRESETS["tiny"].config())), PRESETS["tiny"].extractor())
    with pytest.raises(ImportError, match=r"Export needs onnxscript.*pip install \"mbt-speech\[export\]\""):
        export_onnx(model, tmp_path / "model.onnx")
