"""Attentive pooling: learned queries that read frozen tokens, each with a linear classifier behind, side by side.

Shapes: N images, T tokens, D channels, G heads (each a whole classifier), H heads of a classifier's attention,
E = D / H channels of each, K classes seen in fitting.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from specvit.probes.minibatches import minibatches, num_steps

if TYPE_CHECKING:
    from torch import Tensor

    from specvit.probes.base import ProbeSplit

_INIT_STD = 0.02
_BETAS = (0.9, 0.95)
_EPS = 1e-8
_WARMUP = 0.1
"""Share of all steps in which the learning rate rises."""
_SCALED_TO = 256
"""Images of the batch that learning rates are given for."""
_CHUNK_VALUES = 1 << 24
"""Numbers held at a time, of tokens and attention weights; a larger set of images is classified in chunks."""


def num_attention_heads(width: int, head_dim: int) -> int:
    """Return the largest number of heads of ``head_dim`` or more channels that divides ``width``, or 1."""
    return max(number for number in range(1, max(1, width // head_dim) + 1) if width % number == 0)


@dataclass(frozen=True)
class Tokens:
    """The tokens of a split, and by what they are centred and scaled: the patches of the training split.

    Attributes:
        cls: ``(N, D)`` [CLS], or None.
        patches: ``(N, P, D)``.
        mean: ``(D,)`` mean of the training split's patch tokens.
        scale: ``()`` their standard deviation over all channels together, infinite if it is 0. One for each channel
            would blow up those in which patches are alike but [CLS] is not.
    """

    cls: Tensor | None
    patches: Tensor
    mean: Tensor
    scale: Tensor

    @classmethod
    def of_split(cls, part: ProbeSplit, train: ProbeSplit, *, with_cls: bool) -> Tokens:
        """Return the tokens of ``part``; [CLS] only if it is as wide as a patch token (raw pixels have none)."""
        import torch

        std, mean = torch.std_mean(train.patches, dim=(0, 1), correction=0)
        scale = std.square().mean().sqrt()
        # Below this the spread is the rounding of float32, not a signal to be blown up.
        scale = scale.where(scale > 1e-6 * mean.abs().amax(), torch.inf)
        with_cls = with_cls and part.cls.shape[1] == part.patches.shape[2]
        return cls(part.cls if with_cls else None, part.patches, mean, scale)

    def standardised(self, images: Tensor) -> Tensor:
        """Return the ``(M, T, D)`` tokens of M images, centred and scaled."""
        import torch

        images = images.to(self.patches.device)
        tokens = self.patches[images]
        if self.cls is not None:
            tokens = torch.cat([self.cls[images][:, None], tokens], dim=1)
        return (tokens - self.mean) / self.scale


@dataclass(frozen=True)
class AttentiveHeads:
    """G classifiers: attention of one query, then a linear map.

    Keys have no bias: it adds the same to the logit of every token, which the softmax takes off again.

    Attributes:
        query: ``(G, H, E)``.
        key: ``(G, H, E, D)`` map from a token to its key.
        value: ``(G, H, E, D)`` map from a token to its value.
        value_bias: ``(G, H, E)``.
        weight: ``(G, K, D)`` linear map from the pooled token to scores.
        bias: ``(G, K)``.
        classes: ``(K,)`` int64 the classes seen in fitting, ascending; the others are never predicted.
    """

    query: Tensor
    key: Tensor
    value: Tensor
    value_bias: Tensor
    weight: Tensor
    bias: Tensor
    classes: Tensor

    @classmethod
    def initial(cls, num_heads: int, tokens: Tokens, *, head_dim: int, classes: Tensor, seed: int) -> AttentiveHeads:
        """Return initial weights, the same for all G: truncated normal of std 0.02, biases 0."""
        import torch

        from specvit.seeding import torch_stream

        like, generator = tokens.mean, torch_stream(seed, "attentive heads")
        width, num_classes = len(like), len(classes)
        attention_heads = num_attention_heads(width, head_dim)
        each = (attention_heads, width // attention_heads)

        def drawn(*shape: int) -> Tensor:
            values = torch.nn.init.trunc_normal_(torch.empty(shape), std=_INIT_STD, generator=generator)
            return values.to(like).repeat(num_heads, *(1 for _ in shape))

        query, key, value, weight = drawn(*each), drawn(*each, width), drawn(*each, width), drawn(num_classes, width)
        value_bias, bias = like.new_zeros(num_heads, *each), like.new_zeros(num_heads, num_classes)
        return cls(query, key, value, value_bias, weight, bias, classes)

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """Return what decays: everything trained but the biases."""
        return self.query, self.key, self.value, self.weight

    @property
    def biases(self) -> tuple[Tensor, ...]:
        """Return what is trained and does not decay."""
        return self.value_bias, self.bias

    def scores(self, tokens: Tensor) -> Tensor:
        """Return the ``(N, G, K)`` scores of ``(N, T, D)`` tokens."""
        import torch

        num_heads, attention_heads, channels, width = self.key.shape
        # Query times key matrix first, and values of the pooled token only: no key or value of any token is made.
        readers = torch.einsum("ghe,ghed->ghd", self.query, self.key) * channels**-0.5
        weights = (tokens @ readers.view(-1, width).T).softmax(dim=1)
        pooled = (weights.transpose(1, 2) @ tokens).view(-1, num_heads, attention_heads, width)
        values = torch.einsum("nghd,ghed->nghe", pooled, self.value) + self.value_bias
        return torch.einsum("ngd,gkd->ngk", values.flatten(2), self.weight) + self.bias

    def predict(self, tokens: Tokens, images: Tensor) -> Tensor:
        """Return the ``(G, M)`` int64 likeliest classes of M images."""
        import torch

        values_per_image = (tokens.patches.shape[1] + 1) * (self.key[:, :, 0, 0].numel() + tokens.patches.shape[2])
        with torch.no_grad():
            chunks = torch.split(images, max(1, _CHUNK_VALUES // values_per_image))
            indices = torch.cat([self.scores(tokens.standardised(chunk)).argmax(2) for chunk in chunks])
        return self.classes[indices.T]


def fit_attentive_heads(
    tokens: Tokens,
    labels: Tensor,
    images: Tensor,
    *,
    lrs: Sequence[float],
    weight_decays: Sequence[float],
    head_dim: int,
    epochs: int,
    batch_size: int,
    seed: int,
) -> AttentiveHeads:
    """Train attentive classifiers on the same batches, each as if it were alone.

    Mean cross-entropy over the classes that occur; AdamW with betas (0.9, 0.95), no decay of biases, the learning
    rate rising over a tenth of the steps and falling to 0 by a cosine.

    Args:
        tokens: Frozen tokens of N images.
        labels: ``(N,)`` int64.
        images: ``(M,)`` int64, the images to train on.
        lrs: G peak learning rates for batches of 256 images.
        weight_decays: G weight decays.
        head_dim: Least number of channels of a head of the attention.
        epochs: How often the images are gone through.
        batch_size: Images of a batch, at most M are taken.
        seed: Decides initial weights and the order of images.

    Returns:
        The classifiers after the last step.

    Source: facebookresearch/capi, eval_classification.py (``AttnPoolClassifier``).
    """
    import torch

    from specvit.training.optimizer import warmup_cosine

    images = images.to(labels.device)
    classes = labels[images].bincount().nonzero().flatten()
    targets = torch.searchsorted(classes, labels.clamp(max=int(classes[-1])))
    heads = AttentiveHeads.initial(len(lrs), tokens, head_dim=head_dim, classes=classes, seed=seed)
    batch_size = min(batch_size, len(images))
    rates, decays = (tokens.mean.new_tensor(values) for values in (lrs, weight_decays))
    rates = rates * (batch_size / _SCALED_TO)
    solver = AdamW(heads.weights, heads.biases, rates=rates, decays=decays)
    steps = num_steps(len(images), batch_size=batch_size, epochs=epochs)
    for step, batch in enumerate(minibatches(len(images), steps=steps, batch_size=batch_size, seed=seed)):
        chosen = images[batch.to(labels.device)]
        scores = heads.scores(tokens.standardised(chosen))
        # The sum over heads, so that the gradient of each is that of its own loss.
        log_shares = scores.log_softmax(2)
        losses = -log_shares.gather(2, targets[chosen].view(-1, 1, 1).expand(-1, scores.shape[1], 1))
        solver.step(losses.sum() / batch_size, pace=warmup_cosine(step / steps, peak=1.0, end=0.0, warmup=_WARMUP))
    solver.release()
    return heads


class AdamW:
    """Train tensors whose first dimension runs over models that have a learning rate and weight decay each."""

    def __init__(
        self, weights: Sequence[Tensor], biases: Sequence[Tensor], *, rates: Tensor, decays: Tensor
    ) -> None:
        """Begin.

        Args:
            weights: Tensors ``(G, ...)`` that decay.
            biases: Tensors ``(G, ...)`` that do not.
            rates: ``(G,)`` peak learning rates.
            decays: ``(G,)`` weight decays.
        """
        import torch

        self.tensors = [tensor.requires_grad_() for tensor in (*weights, *biases)]
        self.rates = rates
        self.decays = [decays] * len(weights) + [torch.zeros_like(decays)] * len(biases)
        self.means, self.squares = ([torch.zeros_like(tensor) for tensor in self.tensors] for _ in range(2))
        self.num_steps = 0

    def step(self, loss: Tensor, *, pace: float) -> None:
        """Move every model against the gradient of ``loss`` by ``pace`` times its learning rate."""
        import torch

        self.num_steps += 1
        gradients = torch.autograd.grad(loss, self.tensors)
        corrections = [1 - beta**self.num_steps for beta in _BETAS]
        with torch.no_grad():
            for tensor, gradient, decay, mean, square in zip(
                self.tensors, gradients, self.decays, self.means, self.squares, strict=True
            ):
                rates, decay = ((x.view(-1, *(1 for _ in tensor.shape[1:]))) for x in (self.rates * pace, decay))
                mean.lerp_(gradient, 1 - _BETAS[0])
                square.mul_(_BETAS[1]).addcmul_(gradient, gradient, value=1 - _BETAS[1])
                tensor.mul_(1 - rates * decay)
                tensor.sub_(rates * (mean / corrections[0]) / ((square / corrections[1]).sqrt() + _EPS))

    def release(self) -> None:
        """Stop recording gradients of the tensors."""
        for tensor in self.tensors:
            tensor.requires_grad_(False)
