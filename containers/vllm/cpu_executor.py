"""A model executor of vLLM for machines without a GPU and with few cores: it runs in the engine's own process and
applies adapters by matrix products.

Stock vLLM 0.32 on CPU runs the worker in a second process, and the engine spins on shared memory while it waits, which
costs one core of two. Its torch LoRA copies the adapter's weights once for each token. For tokens without an adapter it
reads the last adapter slot, so that the base model answers with an adapter's weights once every slot is used.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.nn.functional import linear
from vllm.lora.layers import LoRAMapping
from vllm.lora.punica_wrapper.punica_cpu import PunicaWrapperCPU
from vllm.model_executor.layers.linear import LinearBase
from vllm.platforms.cpu import CpuPlatform
from vllm.v1.executor.uniproc_executor import UniProcExecutor

Rows = list[tuple[int, torch.Tensor | None]]


def group_rows(slots: torch.Tensor) -> Rows:
    """The rows of a batch that use each adapter slot, as (slot, row indices or `None` for all rows). `slots` has a slot
    for each row; rows of slot -1 use no adapter and are left out."""
    used_slots = [slot for slot in slots.unique().tolist() if slot >= 0]
    if len(used_slots) == 1 and bool((slots == used_slots[0]).all()):
        return [(used_slots[0], None)]
    return [(slot, (slots == slot).nonzero().flatten()) for slot in used_slots]


class GroupedLora(PunicaWrapperCPU):
    """Adds each adapter's low-rank product to the rows that use it: two products per adapter in the batch, and nothing
    for other rows."""

    token_rows: Rows
    sampler_rows: Rows

    def update_metadata(
        self, mapping: LoRAMapping, lora_index_to_id: list[int | None], max_loras: int, vocab_size: int, **kwargs: object
    ) -> None:
        """Group the step's rows by adapter, once for all layers."""
        super().update_metadata(mapping, lora_index_to_id, max_loras, vocab_size, **kwargs)
        self.token_rows = group_rows(self.token_lora_indices)
        self.sampler_rows = group_rows(self.sampler_indices)

    def add_lora_linear(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: tuple[torch.Tensor, ...],
        lora_b_stacked: tuple[torch.Tensor, ...],
        scale: float,
        output_slices: tuple[int, ...],
        *,
        buffer: tuple[torch.Tensor, ...] | None = None,
        **kwargs: object,
    ) -> None:
        """`y[:, slice] += scale * x A^T B^T`, in place, for each of a merged layer's slices. A has the shape (slots, 1,
        rank, in), B (slots, 1, out, rank)."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.token_rows:
            inputs = x if rows is None else x[rows]
            start = 0
            for a, b, width in zip(lora_a_stacked, lora_b_stacked, output_slices, strict=True):
                add_product(y[:, start : start + width], inputs, a[slot, 0], b[slot, 0], scale, rows)
                start += width

    def add_lora_logits(
        self,
        y: torch.Tensor,
        x: torch.Tensor,
        lora_a_stacked: torch.Tensor,
        lora_b_stacked: torch.Tensor,
        scale: float,
        *,
        buffer: torch.Tensor | None = None,
        **kwargs: object,
    ) -> None:
        """The same for the output head, whose rows are those that a token is sampled from."""
        y, x = y.view(-1, y.shape[-1]), x.view(-1, x.shape[-1])
        for slot, rows in self.sampler_rows:
            add_product(y, x if rows is None else x[rows], lora_a_stacked[slot, 0], lora_b_stacked[slot, 0], scale, rows)


def add_product(y: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scale: float, rows: torch.Tensor | None) -> None:
    """`y[rows] += scale * x A^T B^T`, in place. Shapes: y (all rows, out), x (rows, in), a (rank, in), b (out, rank);
    `rows` are indices, `None` means all."""
    low = linear(x, a)
    if rows is None:
        y.addmm_(low, b.T, alpha=scale)
    else:
        y.index_add_(0, rows, linear(low, b), alpha=scale)


def pack_weights(model: torch.nn.Module) -> None:
    """Pack each float32 linear layer's weight once in oneDNN's layout. For the few rows of decoding that is over twice
    as fast as plain rows.

    vLLM 0.32 tries a packed layout of its own, which fails on processors without AVX-512 and falls back to plain rows.
    """
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if "cpu_linear" in vars(layer) and isinstance(weight, torch.Tensor) and weight.dim() == 2 and weight.dtype == torch.float32:
            layer.cpu_linear = make_packed_linear(weight.data)
            if isinstance(layer, LinearBase):
                weight.data = torch.empty(0)


def make_packed_linear(weight: torch.Tensor) -> Callable[[torch.Tensor, torch.Tensor, torch.Tensor | None], torch.Tensor]:
    """A function like `linear` that uses a packed copy of `weight` in place of the weight it is called with."""
    packed_weight = torch.ops.mkldnn._reorder_linear_weight(weight)

    def packed_product(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return torch.ops.mkldnn._linear_pointwise(x, packed_weight, bias, "none", [], "")

    return packed_product


class InlineExecutor(UniProcExecutor):
    """The worker inside the engine's process, with packed weights and `GroupedLora`."""

    def _init_executor(self) -> None:
        CpuPlatform.get_punica_wrapper = classmethod(lambda cls: f"{__name__}.{GroupedLora.__name__}")
        super()._init_executor()
        pack_weights(self.driver_worker.get_model())
