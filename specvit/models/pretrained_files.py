"""Finding the file behind the name of a checkpoint. Files cost no import of torch."""

from __future__ import annotations

from pathlib import Path

from specvit.errors import DataError

FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
HUB_PREFIX = "hf-hub:"

_HUB_FILE = "model.safetensors"


def find_checkpoint(text: str) -> Path:
    """Find the file of a checkpoint; one on the hub is fetched, once, into the hub's cache.

    Args:
        text: Path of a file; or a name of timm's with pretrained weights, e.g.
            ``vit_small_patch16_224.augreg_in21k``; or ``hf-hub:OWNER/REPOSITORY``.

    Raises:
        DataError: If there is no such file, or it cannot be fetched.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError as error:
        raise DataError(f"no such checkpoint file: {text!r} ({error})") from error
    if path.is_file():
        return path
    if text.startswith(HUB_PREFIX):
        return _fetch(text, text.removeprefix(HUB_PREFIX), _HUB_FILE)
    if path.suffix in FILE_SUFFIXES or path.exists() or len(path.parts) > 1:
        raise DataError(f"no such checkpoint file: {text!r}")
    from timm.models import get_pretrained_cfg

    known = get_pretrained_cfg(text, allow_unregistered=True)
    if known is None or not known.hf_hub_id:
        raise DataError(f"no such checkpoint: {text!r} is no file, and timm has no pretrained model of that name")
    return _fetch(text, known.hf_hub_id, known.hf_hub_filename or _HUB_FILE)


def _fetch(text: str, repository: str, filename: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.hf_hub_download(repository, filename))
    except (OSError, ValueError, RuntimeError) as error:  # the hub's errors derive from these
        summary = next(iter(str(error).splitlines()), type(error).__name__)
        raise DataError(f"checkpoint {text!r}: {filename} of {repository!r} cannot be fetched: {summary}") from error
