"""What a training costs: its time and its memory, without probes on the way and the saving of states."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from specvit.memory import GIB, peak_memory, reset_peak_memory

if TYPE_CHECKING:
    from specvit.device import Device

_KEY = "training"
"""Name under which a state's notes hold the seconds and the peaks up to then."""


@dataclass(frozen=True)
class TrainingCost:
    """What the training of a trial took, probes not included.

    Attributes:
        seconds: Wall time of its optimizer steps, with the fetching of their images; also of those before an
            interruption that are part of its result.
        images_per_s: Images that the steps learnt from, per second of this time.
        peak_memory_gib: The most memory that the process held while it trained (resident set: with libraries, and pages
            of files that it read); of several processes the main one. None where the system does not tell.
        peak_gpu_memory_gib: The most memory that torch had allocated on the GPU; None on a CPU.
    """

    seconds: float
    images_per_s: float
    peak_memory_gib: float | None = None
    peak_gpu_memory_gib: float | None = None


class CostMeter:
    """Measures a training: told of every step, and of what is done between steps and is no part of it.

    On a GPU the time of a step ends with its loss, which waits for the forward and backward passes; what is left of the
    update counts for the next step.
    """

    def __init__(self, device: Device, *, notes: dict[str, Any]) -> None:
        """Begin to measure.

        Args:
            device: Where the training takes place.
            notes: Kept with the state of the training, so that another process goes on counting.
        """
        self._device = device
        self._notes = notes
        self._notes[_KEY] = {"seconds": 0.0, "peak": 0, "gpu_peak": 0}
        self._can_measure = False
        self.resume()

    def resume(self) -> None:
        """Go on after what is no part of the training."""
        self._can_measure = reset_peak_memory()
        if self._device.is_cuda:
            import torch

            torch.cuda.reset_peak_memory_stats(self._device.torch_device)

    def step(self, seconds: float) -> None:
        """Count a step that took so long; nothing is counted on top of a state that says nothing of its cost."""
        if _KEY in self._notes:
            self._notes[_KEY]["seconds"] += seconds

    def pause(self) -> None:
        """Note the peaks so far, before what is no part of the training."""
        found = self._notes.get(_KEY)
        if found is None:
            return
        peak = peak_memory() if self._can_measure else None
        # Once unknown, always unknown.
        found["peak"] = None if peak is None or found["peak"] is None else max(found["peak"], peak)
        if self._device.is_cuda:
            import torch

            found["gpu_peak"] = max(found["gpu_peak"], torch.cuda.max_memory_allocated(self._device.torch_device))

    def cost(self, *, num_images: int) -> TrainingCost | None:
        """Return what the training took, in which ``num_images`` were learnt from; None if a part is not known."""
        self.pause()
        found = self._notes.get(_KEY)
        if found is None or not found["seconds"]:
            return None
        return TrainingCost(
            seconds=found["seconds"],
            images_per_s=num_images / found["seconds"],
            peak_memory_gib=None if found["peak"] is None else found["peak"] / GIB,
            peak_gpu_memory_gib=found["gpu_peak"] / GIB if self._device.is_cuda else None,
        )
