"""Small untrained models of the families that the Hub has many of, with their feature extractors."""

import torch
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTModel,
    HubertConfig,
    HubertModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2Model,
    WavLMConfig,
    WavLMModel,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperModel,
)

WAV2VEC2 = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32,
    "conv_dim": [16] * 3, "conv_kernel": [10, 3, 3], "conv_stride": [5, 4, 4], "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 8, "num_conv_pos_embedding_groups": 2,
}  # fmt: skip
LAYER_NORM = {"feat_extract_norm": "layer", "do_stable_layer_norm": True}
AST = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
PATCHES = {"max_length": 128, "num_mel_bins": 32}
WHISPER = {
    "d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32, "max_source_positions": 100,
    "vocab_size": 8, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 1,
}  # fmt: skip
HUB_MODELS = {
    "wav2vec2": lambda: (
        Wav2Vec2Model(Wav2Vec2Config(**WAV2VEC2)),
        Wav2Vec2FeatureExtractor(return_attention_mask=False),
    ),
    "wav2vec2-layer-norm": lambda: (
        Wav2Vec2Model(Wav2Vec2Config(**WAV2VEC2, **LAYER_NORM)),
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
    ),
    "hubert": lambda: (HubertModel(HubertConfig(**WAV2VEC2)), Wav2Vec2FeatureExtractor(return_attention_mask=True)),
    "wavlm": lambda: (
        WavLMModel(WavLMConfig(**WAV2VEC2, **LAYER_NORM)),
        Wav2Vec2FeatureExtractor(return_attention_mask=True),
    ),
    "ast": lambda: (ASTModel(ASTConfig(**AST, **PATCHES)), ASTFeatureExtractor(**PATCHES)),
    "whisper": lambda: (WhisperModel(WhisperConfig(**WHISPER)), WhisperFeatureExtractor(chunk_length=2)),
}


def save_hub_model(folder, name):
    torch.manual_seed(0)
    model, extractor = HUB_MODELS[name]()
    model.save_pretrained(folder / name)
    extractor.save_pretrained(folder / name)
    return folder / name
