"""Toy vision towers of both libraries."""

TOWERS = {
    "transformers": {
        "image_size": 32,
        "patch_size": 8,
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    },
    "open_clip": {"image_size": 32, "patch_size": 8, "width": 16, "head_width": 8, "layers": 2},
}
