"""What a trial occupies: the ``resources`` of a sweep file, for all scales and for each."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetJsonSchemaHandler, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema

from orchestrator.trials.resources import ResourceFloor, ResourceRequest
from specvit.errors import ConfigError
from specvit.models.scales import SCALES, ScaleName
from specvit.settings import NonNegativeFloat, PositiveInt, settings

LEAST_SHARE = 1e-4
"""Least share of a CPU core or of a GPU: Ray counts in ten-thousandths."""

_RAYS_OWN = ("CPU", "GPU", "memory", "object_store_memory")


def _check_gpus(gpus: float) -> float:
    if 0 < gpus < LEAST_SHARE:
        raise ConfigError(f"must be 0 or at least {LEAST_SHARE}, not {gpus}")
    if gpus > 1 and gpus != int(gpus):
        raise ConfigError(f"must be a whole number where it is above 1, not {gpus}")
    return gpus


def _check_custom(custom: dict[str, float]) -> dict[str, float]:
    for name in custom:
        if not name or name in _RAYS_OWN or name.startswith("node:"):
            raise ConfigError(f"must name resources of your own, not {name!r}")
    return custom


_Amount = Annotated[float, Field(strict=True, ge=LEAST_SHARE, allow_inf_nan=False)]
_Gpus = Annotated[NonNegativeFloat, AfterValidator(_check_gpus)]
_Custom = Annotated[dict[str, _Amount], AfterValidator(_check_custom)]
_Labels = dict[Annotated[str, Field(min_length=1)], str]


@settings
class ScaleResources:
    """What a trial of one scale occupies, where that differs from the other scales."""

    cpus: _Amount | None = None
    """CPU cores of each process."""
    gpus: _Gpus | None = None
    """GPUs of each process; a share such as 0.25 puts several trials on one."""
    processes: PositiveInt | None = None
    """Processes that train one trial together."""
    memory_gib: NonNegativeFloat | None = None
    """Memory of the machine that each process reserves, in GiB."""
    custom: _Custom | None = None
    """Ray's custom resources of each process: ``{fast_disk: 1}``."""
    labels: _Labels | None = None
    """Labels that a machine must have: ``{ray.io/accelerator-type: A100}``."""


@settings
class Resources:
    """What one trial occupies, by scale if need be. Takes no part in a trial's identity."""

    cpus: _Amount = 1
    """CPU cores."""
    gpus: _Gpus = 0
    """GPUs; a share such as 0.25 puts several trials on one."""
    processes: PositiveInt = 1
    """Processes that train one trial together, each with that many CPU cores and GPUs. It changes a result by rounding
    alone; ``objective.batch_size`` has to be a multiple of it."""
    memory_gib: NonNegativeFloat = 0
    """Memory of the machine that each process reserves, in GiB; 0 = none."""
    custom: _Custom = Field(default_factory=dict)
    """Ray's custom resources of each process: ``{fast_disk: 1}``."""
    labels: _Labels = Field(default_factory=dict)
    """Labels that a machine must have: ``{ray.io/accelerator-type: A100}``."""
    by_scale: dict[ScaleName, ScaleResources] = Field(default_factory=dict)
    """What trials of a scale occupy instead; what is not given is as for the others. A scale may also stand beside the
    other fields: ``{gpus: 1, large: {gpus: 4}}``."""

    @model_validator(mode="before")
    @classmethod
    def _read_scales(cls, given: Any) -> Any:
        """Read ``large: {..}`` as ``by_scale: {large: {..}}``."""
        if not isinstance(given, dict) or not isinstance(given.get("by_scale", {}), dict):
            return given
        beside = {scale: given[scale] for scale in SCALES if given.get(scale) is not None}
        by_scale = given.get("by_scale", {})
        for scale in beside.keys() & by_scale.keys():
            raise ConfigError(f"{scale} must not be given beside by_scale.{scale}")
        return {name: value for name, value in given.items() if name not in SCALES} | {"by_scale": by_scale | beside}

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        written = handler(schema)
        fields = handler.resolve_ref_schema(written)["properties"]
        of_scale = fields["by_scale"]["additionalProperties"]
        text = "What trials of this scale occupy instead; what is not given is as for the others."
        fields |= {s: {"anyOf": [of_scale, {"type": "null"}], "default": None, "description": text} for s in SCALES}
        return written


def share_of(resources: Resources, scale: str, larger: ResourceFloor | None = None) -> ResourceRequest:
    """Return what a trial of a scale occupies.

    Args:
        resources: What the sweep file says.
        scale: A row of the table of scales.
        larger: What trials of this scale get at least since one of them ran out of memory; None = none did.
    """
    own = resources.by_scale.get(scale)

    def of(name: str) -> Any:
        value = None if own is None else getattr(own, name)
        return getattr(resources, name) if value is None else value

    larger = larger or ResourceFloor()
    return ResourceRequest(
        cpus=float(of("cpus")),
        gpus=float(max(of("gpus"), larger.gpus)),
        processes=of("processes"),
        memory_gib=float(max(of("memory_gib"), larger.memory_gib)),
        custom=tuple(sorted(of("custom").items())),
        labels=tuple(sorted(of("labels").items())),
    )
