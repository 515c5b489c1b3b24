"""Features -> tokens: learned queries that read an image's features, and the null tokens that mean "no blur"."""

import torch
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn
from transformers import Blip2QFormerConfig, Blip2QFormerModel


class QFormer(ModelMixin, ConfigMixin):
    """The Querying Transformer of BLIP-2 (Li et al. 2023, section 3.1) without its text half, and a projection.

    BD-Diff holds two: one reads structure, one reads blur (arXiv 2502.01522).
    """

    _supports_gradient_checkpointing = True

    @register_to_config
    def __init__(
        self,
        num_queries: int = 16,
        feature_channels: int = 128,
        token_channels: int = 128,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
    ):
        super().__init__()
        # Zeros would keep all queries identical for ever.
        self.queries = nn.Parameter(torch.randn(1, num_queries, hidden_size) * 0.02)
        self.reader = Blip2QFormerModel(
            Blip2QFormerConfig(
                hidden_size=hidden_size,
                num_hidden_layers=num_layers,
                num_attention_heads=num_heads,
                intermediate_size=4 * hidden_size,
                encoder_hidden_size=feature_channels,
                cross_attention_frequency=1,
                hidden_dropout_prob=0.0,
                attention_probs_dropout_prob=0.0,
            )
        )
        self.to_tokens = nn.Linear(hidden_size, token_channels)
        self.null_tokens = nn.Parameter(torch.randn(1, num_queries, token_channels) * 0.02)

    def forward(self, features: Tensor, strength: float | Tensor = 1.0) -> Tensor:
        """Tokens `(B, Q, D)` of features `(B, N, C)`, faded to `strength`."""
        queries = self.queries.expand(len(features), -1, -1)
        hidden = self.reader(query_embeds=queries, encoder_hidden_states=features).last_hidden_state
        return self.fade(self.to_tokens(hidden), strength)

    def fade(self, tokens: Tensor, strength: float | Tensor) -> Tensor:
        """From the null tokens, which mean "no blur" whatever the image, at `strength` 0, to `tokens` at 1 (`fade`)."""
        return fade(self.null_tokens, tokens, strength)

    def no_blur(self, batch: int) -> Tensor:
        """The condition of deblurring: the null tokens `(batch, Q, D)`."""
        return self.null_tokens.expand(batch, -1, -1)


def fade(null_tokens: Tensor, tokens: Tensor, strength: float | Tensor) -> Tensor:
    """Tokens `(B, Q, D)` between `null_tokens` `(1, 1 or Q, D)` at `strength` 0 and `tokens` at 1.

    `strength` is a number or `(B,)`. Fading instead of choosing keeps every parameter in the graph, so that processes
    with different tasks stay in step.
    """
    strength = torch.as_tensor(strength, dtype=null_tokens.dtype, device=null_tokens.device).reshape(-1, 1, 1)
    return null_tokens.lerp(tokens.to(null_tokens.dtype), strength)
