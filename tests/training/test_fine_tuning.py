"""What one network of a sweep learns from, and how it is tested."""

import re
from types import SimpleNamespace

import numpy as np
import soundfile as sf
import torch
from accelerate import Accelerator

import run_finetune
from mbt_speech.data.crops import Clip
from mbt_speech.training import fine_tuning
from mbt_speech.training.fine_tuning import predict, split_by_length, waveform_inputs
from mbt_speech.training.run_log import read_log
from tests.support.processes import run_in_two_processes, tell_accelerate
from tests.support.sounds import chirp


def test_a_seed_cuts_long_clips_alike_alone_and_in_a_sweep(speech_folder, tmp_path, capsys):
    def losses_of_seed_1(*seeds):
        words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--seed", *seeds]
        words += ["--output_dir", str(tmp_path / "-".join(seeds)), "--preset", "tiny", "--max_length_seconds", "0.3"]
        run_finetune.main([*words, "--max_steps", "2", "--logging_steps", "1", "--per_device_train_batch_size", "8"])
        return re.findall(r"seed 1, (.*: step \d).*? loss ([\d.]+)", capsys.readouterr().err)

    alone = losses_of_seed_1("1")
    assert len(alone) > 2
    assert losses_of_seed_1("0", "1") == alone


def test_accuracy_is_measured_on_the_way_only_on_clips_that_are_not_learned_from(speech_folder, tmp_path):
    words = ["--model_name_or_path", "supervised", "--train_dir", str(speech_folder), "--output_dir", str(tmp_path)]
    run_finetune.main([*words, "--preset", "tiny", "--max_steps", "2", "--eval_steps", "1"])
    measured = {
        path.parent.name: any("eval_accuracy" in line for line in read_log(path.parent))
        for path in tmp_path.rglob("train_log.jsonl")
    }
    assert measured == {"learning_rate_0.001": True, "learning_rate_0.003": True, "all_labels": False}


def test_parts_of_a_batch_lack_nothing_but_padding():
    lengths = torch.tensor([3, 9, 1, 5, 7, 2, 4])
    mask = (torch.arange(9) < lengths[:, None]).long()
    features = torch.randn(7, 9, 4, generator=torch.Generator().manual_seed(0)) * mask[..., None]
    parts = split_by_length(features, mask, labels=torch.arange(7), num_parts=3)
    assert [part[0].shape[1] for part in parts] == [9, 4, 2]
    for part_features, part_mask, labels in parts:
        assert part_mask.sum(dim=1).tolist() == lengths[labels].tolist()
        torch.testing.assert_close(part_features, features[labels, : part_mask.shape[1]])
    assert sorted(torch.cat([labels for *_, labels in parts]).tolist()) == list(range(7))


def test_batches_are_split_only_where_recordings_differ_much_in_length(tmp_path, monkeypatch):
    for split in ("train", "test"):
        for label, hertz in (("low", 120.0), ("high", 310.0)):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(6):
                sound = chirp(1.0 if number == 0 else 0.2, hertz, number)
                sf.write(tmp_path / split / label / f"{number}.wav", sound, 16000)
    seen = set()

    def split_batch(features, mask, labels, num_parts):
        seen.add((len(labels), num_parts))
        return split_by_length(features, mask, labels, num_parts)

    def clips_and_parts(method, max_length_seconds):
        seen.clear()
        words = ["--model_name_or_path", method, "--train_dir", str(tmp_path), "--preset", "tiny"]
        words += ["--output_dir", str(tmp_path / f"{method}{max_length_seconds}"), "--max_steps", "1"]
        words += ["--per_device_train_batch_size", "9", "--max_length_seconds", str(max_length_seconds)]
        run_finetune.main(words)
        return seen

    monkeypatch.setattr(fine_tuning, "split_by_length", split_batch)
    assert clips_and_parts("random", 20) == {(9, 2)}
    assert clips_and_parts("random", 0.2) == {(9, 1)}
    assert clips_and_parts("supervised", 20) == {(9, 1)}  # batch norm that has all to learn


class TenClips:
    """Constant clips of growing length and loudness."""

    seconds = np.arange(1.0, 11.0)

    def __getitem__(self, item):
        return Clip(np.full(item + 1, item, np.float32), item)


class BatchNormOfPeaks(torch.nn.Module):
    """A network whose logits depend on running statistics."""

    def __init__(self, mean):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(1)
        self.norm.running_mean.fill_(mean)

    def forward(self, waveforms, lengths):
        return SimpleNamespace(logits=self.norm(waveforms.amax(1, keepdim=True)))


def predict_in_process(rank, results):
    """Runs in two processes, whose networks have seen different clips."""
    tell_accelerate(rank)
    args = SimpleNamespace(per_device_train_batch_size=2, dataloader_num_workers=0)
    model = BatchNormOfPeaks(rank + 1.0)
    results[rank] = predict(args, Accelerator(cpu=True), model, waveform_inputs, TenClips(), np.arange(1, 10))


def test_two_processes_classify_with_the_running_statistics_of_the_first():
    for logits, labels in run_in_two_processes(predict_in_process).values():
        assert sorted(labels) == list(range(1, 10))
        np.testing.assert_allclose(logits[:, 0], labels - 1, rtol=1e-4)


def test_a_trained_network_is_scored_on_the_test_split():
    labels, asked = np.array([0, 1, 0, 1, 1]), []

    def logits_on(rows):
        asked.append(rows.tolist())
        return np.eye(2)[[1] * len(rows)], labels[rows]

    rows = {"train": np.array([0, 1]), "validation": np.array([2]), "test": np.array([3, 4])}
    speech = SimpleNamespace(rows=rows, clips=SimpleNamespace(labels=labels))
    training = SimpleNamespace(logits_on=logits_on, speech=speech, model=None, max_steps=5)
    found = fine_tuning.FullTraining.classifier(training, 0.5, 2, 0.0)
    assert asked == [[3, 4]]
    assert (found.accuracy, found.num_test, found.steps) == (1.0, 2, 5)
