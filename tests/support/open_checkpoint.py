"""Open a checkpoint by every Auto class and compare it with what was saved; also a script that knows no MBT.

Axes: S samples.
"""

import json
import sys

import torch
from safetensors.torch import load_file
from transformers import AutoFeatureExtractor, AutoModel, AutoModelForAudioClassification, AutoModelForPreTraining

AUTO_CLASSES = (AutoModel, AutoModelForPreTraining, AutoModelForAudioClassification)
OUTPUTS = {"MBTForPreTraining": "projections", "MBTForSequenceClassification": "logits"}


def tensors(model):
    """Returns every parameter and buffer, those that are not saved included."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def describe(model, extractor, waveform):
    """Returns all that a checkpoint must keep of a model: tensors, features of a waveform (S,), outputs."""
    features = extractor(waveform.numpy(), sampling_rate=16000, return_tensors="pt")
    base, head = getattr(model, "mbt", model), OUTPUTS.get(type(model).__name__)
    with torch.no_grad():
        kept = {"features": features["input_features"], "pooled": base(**features).pooler_output}
        if head is not None:
            kept[head] = model(**features)[head]
    prefix = "" if head else "mbt."
    return {**kept, **{prefix + name: tensor.detach().clone() for name, tensor in tensors(model).items()}}


def differences(name, expected_path, **options):
    """Lists what differs in the checkpoint `name`, and the classes that opened it."""
    expected, wrong, classes = load_file(expected_path), [], []
    waveform, saved_class = expected.pop("waveform"), "logits" if "logits" in expected else "projections"
    extractor = AutoFeatureExtractor.from_pretrained(name, **options)
    for auto_class in AUTO_CLASSES:
        model = auto_class.from_pretrained(name, **options).eval()
        found = describe(model, extractor, waveform)
        classes.append(type(model).__name__)
        # A head that was not saved is new.
        shared = expected if saved_class in found else {k: expected[k] for k in expected if k.startswith("mbt.")}
        shared = {**shared, "features": expected["features"], "pooled": expected["pooled"]}
        wrong += [f"{classes[-1]}: {k}" for k in shared if k not in found or not torch.equal(shared[k], found[k])]
    return wrong, classes


if __name__ == "__main__":
    print(json.dumps([differences(name, path, trust_remote_code=True) for name, path in json.loads(sys.argv[1])]))
    assert not {"modeling_mbt", "feature_extraction"} & set(sys.modules)
