"""The batches of pre-training, from the script's arguments."""

import pytest
from accelerate import Accelerator

from mbt_speech.arguments import PretrainArguments
from mbt_speech.data.crop_batches import open_crops
from mbt_speech.presets import PRESETS


@pytest.mark.parametrize("views", [None, "same_crop", "two_crops"])
@pytest.mark.parametrize("preset", ["strong", "tiny"])
def test_the_views_are_those_of_the_arguments_or_of_the_preset(speech_folder, tmp_path, preset, views):
    args = PretrainArguments(
        output_dir=str(tmp_path), train_dir=str(speech_folder), preset=preset, views=views,
        per_device_train_batch_size=2,
    )  # fmt: skip
    crops = open_crops(args, Accelerator(cpu=True), PRESETS[preset].extractor())
    batch = next(crops.batches(0, 1))
    assert crops.views == (views or PRESETS[preset].views)
    assert ("second_waveforms" in batch) == (crops.views == "two_crops")
    assert len(crops.names(0)) == len(batch["waveforms"]) == 2
