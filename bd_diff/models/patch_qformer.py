"""Features of a kernel's patches -> blur tokens, one for each patch."""

import torch
import torch.nn.functional as F
from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from torch import Tensor, nn

from bd_diff.blur.kernels import SIZE
from bd_diff.models.patches import WAVELENGTHS, patches_a_side, place_codes, places
from bd_diff.models.qformer import fade

NULL_TOKENS = patches_a_side(SIZE) ** 2  # that the UNet reads where "no blur" is the condition


class PatchQFormer(ModelMixin, ConfigMixin):
    """The Querying Transformer of BLIP-2 (Li et al. 2023, section 3.1) with a query for each patch of a kernel (ours).

    Queries are computed from their places, so that a larger kernel has more of them. Normalisation comes before each
    layer (Xiong et al. 2020) and not after, so that a token keeps the amplitude of what it read; and attention falls
    with distance, by a learned rate for each head (as in Press et al. 2022): from the start some heads read a query's
    own patch and some the whole kernel.
    """

    @register_to_config
    def __init__(
        self,
        feature_channels: int = 128,
        token_channels: int = 128,
        hidden_size: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
    ):
        super().__init__()
        self.to_hidden = nn.Linear(feature_channels, hidden_size)
        self.place_feature = PlaceCode(hidden_size)
        self.place_query = PlaceCode(hidden_size)
        self.layers = nn.ModuleList(Layer(hidden_size, num_heads) for _ in range(num_layers))
        self.to_tokens = nn.Linear(hidden_size, token_channels)
        self.null_tokens = nn.Parameter(torch.randn(1, 1, token_channels) * 0.02)

    def forward(self, features: Tensor, strength: float | Tensor = 1.0) -> Tensor:
        """Tokens `(B, N, D)` of features `(B, N, C)` of the n * n patches of kernels, faded to `strength`."""
        where = places(features.shape[1], features.device)
        codes = place_codes(where).to(features.dtype)
        squared = (where[:, None] - where).square().sum(-1)  # (N, N)
        read = self.to_hidden(features) + self.place_feature(codes)
        tokens = self.place_query(codes).expand(len(features), -1, -1)
        for layer in self.layers:
            tokens = layer(tokens, read, squared)
        return self.fade(self.to_tokens(tokens), strength)

    def fade(self, tokens: Tensor, strength: float | Tensor) -> Tensor:
        """From the null token, which means "no blur" everywhere, at `strength` 0, to `tokens` at 1; see `fade`."""
        return fade(self.null_tokens, tokens, strength)

    def no_blur(self, batch: int) -> Tensor:
        """The condition of deblurring `(batch, 49, D)`: the same null tokens for a kernel of any size."""
        return self.null_tokens.expand(batch, NULL_TOKENS, -1)


class PlaceCode(nn.Sequential):
    """Vectors `(N, C)` of places from their codes."""

    def __init__(self, channels: int):
        super().__init__(nn.Linear(4 * WAVELENGTHS, channels), nn.SiLU(), nn.Linear(channels, channels))


class Layer(nn.Module):
    """Queries look at each other, then at the features, then each goes on for itself."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.among, self.across = Attention(channels, heads), Attention(channels, heads)
        self.alone = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, 4 * channels), nn.SiLU(), nn.Linear(4 * channels, channels)
        )

    def forward(self, queries: Tensor, features: Tensor, squared: Tensor) -> Tensor:
        queries = queries + self.among(queries, None, squared)
        queries = queries + self.across(queries, features, squared)
        return queries + self.alone(queries)


class Attention(nn.Module):
    """Attention of queries `(B, N, C)` over features `(B, N, C)`, or over themselves, by squared distances `(N, N)`."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(channels)
        self.to_queries, self.leave = nn.Linear(channels, channels), nn.Linear(channels, channels)
        self.to_keys_and_values = nn.Linear(channels, 2 * channels)
        # Half of the heads read what is near, the others from further and further away.
        self.falls = nn.Parameter(torch.tensor([8.0, 1.0, 8.0, 0.03]).repeat(-(-heads // 4))[:heads].clone())

    def forward(self, queries: Tensor, features: Tensor | None, squared: Tensor) -> Tensor:
        queries = self.norm(queries)
        keys, values = self.to_keys_and_values(queries if features is None else features).chunk(2, -1)
        queries, keys, values = (
            x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_queries(queries), keys, values)
        )
        bias = (-self.falls.abs()[:, None, None] * squared).to(queries.dtype)[None]
        read = F.scaled_dot_product_attention(queries, keys, values, attn_mask=bias)
        return self.leave(read.transpose(1, 2).flatten(2))
