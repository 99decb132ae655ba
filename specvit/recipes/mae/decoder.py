"""MAE's decoder: from the tokens of visible patches to the pixels of hidden ones. Settings: ``objectives.mae``.

Shapes: B images, P patches, V visible and M hidden ones (V + M = P), D channels of the backbone, E of the decoder,
O numbers to predict for a patch.
"""

from __future__ import annotations

from functools import partial

import torch
from timm.layers.pos_embed_sincos import build_sincos2d_pos_embed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from specvit.models.patches import take

NORM_EPS = 1e-6
TOKEN_STD = 0.02


class MaeDecoder(nn.Module):
    """A decoder: one learned token in the place of every hidden patch, positions, attention, prediction.

    Its blocks are called ``layers`` and its token ``hidden_token``, since the optimizer recognises a backbone's
    ``blocks`` and ``mask_token`` by name and would let them learn at the rate of the backbone's.

    Source: facebookresearch/mae, models_mae.py (``forward_decoder``). Deviation: the pixels of visible patches,
    which have no part in the loss, are not computed.
    """

    positions: Tensor

    def __init__(
        self, width: int, *, grid: tuple[int, int], decoder_width: int, depth: int, num_heads: int, num_outputs: int
    ) -> None:
        """Draw a decoder from torch's generator: linear layers by Xavier, the token from N(0, 0.02).

        Args:
            width: D.
            grid: Rows and columns of patches.
            decoder_width: E, a multiple of 4 and of ``num_heads``.
            depth: Number of blocks.
            num_heads: Heads of each.
            num_outputs: O.
        """
        super().__init__()
        norm = partial(nn.LayerNorm, eps=NORM_EPS)
        self.embed = nn.Linear(width, decoder_width)
        self.hidden_token = nn.Parameter(torch.empty(decoder_width))
        # [CLS] comes first and has no position.
        positions = build_sincos2d_pos_embed(list(grid), decoder_width)
        self.register_buffer("positions", torch.cat([torch.zeros(1, decoder_width), positions]), persistent=False)
        self.layers = nn.Sequential(
            *(Block(decoder_width, num_heads, qkv_bias=True, norm_layer=norm) for _ in range(depth))  # type: ignore[arg-type]
        )
        self.norm = norm(decoder_width)
        self.predict = nn.Linear(decoder_width, num_outputs)
        nn.init.normal_(self.hidden_token, std=TOKEN_STD)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, cls: Tensor, patches: Tensor, *, visible: Tensor, hidden: Tensor) -> Tensor:
        """Predict the hidden patches.

        Args:
            cls: ``(B, D)`` the backbone's [CLS].
            patches: ``(B, V, D)`` its visible patches.
            visible: ``(B, V)`` int64, which patches of the grid these are.
            hidden: ``(B, M)`` int64, the others.

        Returns:
            ``(B, M, O)``, in the order of ``hidden``.
        """
        seen = self.embed(torch.cat([cls.unsqueeze(1), patches], dim=1))
        num_images, width = len(seen), seen.shape[2]
        places = visible.unsqueeze(2).expand(-1, -1, width)
        grid = self.hidden_token.to(seen.dtype).expand(num_images, len(self.positions) - 1, width)
        x = torch.cat([seen[:, :1], grid.scatter(1, places, seen[:, 1:])], dim=1)
        x = self.layers(x + self.positions)
        predicted: Tensor = self.predict(self.norm(take(x[:, 1:], hidden)))
        return predicted
