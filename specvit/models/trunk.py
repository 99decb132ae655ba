"""What stands in the place of a plain model's blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NoReturn

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from specvit.errors import ConfigError
from specvit.models.config import ATTRIBUTE as CONFIG_ATTRIBUTE
from specvit.seeding import derive_seed


class Trunk(nn.Module, ABC):
    """The blocks of a plain model under their names ``0``, ``1``, ..., called in another way.

    Shapes: B images, N tokens (R of them the prefix: [CLS] and registers), D channels.

    Not a ``nn.Sequential``: code that goes through the blocks one by one, such as timm's
    ``forward_intermediates``, would compute something other than the model does, so it gets an error.
    """

    def __init__(self, plain: VisionTransformer) -> None:
        """Take over the blocks of ``plain``."""
        super().__init__()
        self.num_prefix: int = plain.num_prefix_tokens
        self.depth = len(plain.blocks)
        for name, block in plain.blocks.named_children():
            self.add_module(name, block)

    @classmethod
    def install(cls, plain: VisionTransformer, *, seed: int, **shape: Any) -> VisionTransformer:
        """Put a trunk in the place of the blocks of ``plain``, in place.

        Args:
            plain: The model.
            seed: The trial's seed; new weights come from a stream of their own.
            **shape: What the trunk's constructor takes besides.

        Returns:
            ``plain``.
        """
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "comparator"))
            plain.set_submodule("blocks", cls(plain, **shape))
        # It describes a plain model: a file saved with it would be read back as one.
        vars(plain).pop(CONFIG_ATTRIBUTE, None)
        return plain

    @abstractmethod
    def forward(self, x: Tensor) -> Tensor:
        """Map tokens ``(B, N, D)`` to tokens ``(B, N, D)``."""

    def plain_blocks(self) -> list[Any]:
        """Return the blocks of the plain model."""
        return [self.get_submodule(str(index)) for index in range(self.depth)]

    def cls_sources(self) -> list[nn.Module]:
        """Return, for every block after which there is [CLS], the module that returns tokens with [CLS] first."""
        return self.plain_blocks()

    def __len__(self) -> int:
        return self.depth

    def __iter__(self) -> NoReturn:
        raise ConfigError(f"{type(self).__name__} runs as a whole; its blocks cannot be called one by one")

    def __getitem__(self, index: int | slice) -> NoReturn:
        self.__iter__()


def layer_scale_init(plain: VisionTransformer) -> float:
    """Return the value that the layer scales of a plain model start from; 0 = it has none."""
    gamma = getattr(plain.blocks[0].ls1, "gamma", None)
    return 0.0 if gamma is None else float(gamma.detach().flatten()[0])


def norm_eps(plain: VisionTransformer) -> float:
    """Return the epsilon of the final norm, which new norms take over."""
    norm: Any = plain.norm
    return float(norm.eps)
