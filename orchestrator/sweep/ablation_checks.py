"""Rules of what is ablated: whether places, modes, tokens and comparators fit the models and recipes of a sweep."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

from orchestrator.sweep.problems import FieldPath, Problem
from orchestrator.sweep.resolved import Group, Sweep
from orchestrator.sweep.schema import MAX_TRIALS, Ablation
from specvit.errors import ConfigError
from specvit.models.config import parse_high_norm
from specvit.models.scales import SCALES, Scale
from specvit.specialization.language import check_specialization, parse_specialization, resolve_range
from specvit.specialization.modes import FULL, Mode, parse_mode


def check_ablation(sweep: Sweep) -> list[Problem]:
    """Check ``ablate`` against every group.

    Args:
        sweep: The sweep, each field of it valid.

    Returns:
        The problems; one may come several times.
    """
    shapes = dict.fromkeys((group.model.scale, group.objective.layer_scale > 0) for group in sweep.groups)
    problems: list[Problem] = []
    for group in sweep.groups:
        problems += [*_check_placebo(sweep, group), *_check_comparators(sweep, group)]
    problems += _check_crossed(sweep.file.ablate) or _check_specializations(sweep, tuple(shapes))
    return [*problems, *_check_registers(sweep)]


def _check_crossed(ablate: Ablation) -> list[Problem]:
    """Check how many specializations there are, before any of them is looked at."""
    num_modes, num_ranges = len(set(ablate.modes)), len(set(ablate.blocks or ("all",)))
    products = {
        "components, blocks and modes": len(set(ablate.components or ())) * num_ranges * num_modes,
        "specialize and modes": len(set(ablate.specialize or ())) * num_modes,
    }
    return [
        Problem(("ablate",), f"{axes} must make at most {MAX_TRIALS} arms, not {number}")
        for axes, number in products.items()
        if number > MAX_TRIALS
    ]


def _check_specializations(sweep: Sweep, shapes: tuple[tuple[str, bool], ...]) -> Iterator[Problem]:
    """Check every text under ``ablate`` against all scales, each with or without layer scales."""
    ablate = sweep.file.ablate
    if ablate.blocks is not None and ablate.components is None:
        yield Problem(("ablate", "blocks"), "needs ablate.components, to which it gives block ranges")
    modes: list[Mode] = []
    for index, text in enumerate(ablate.modes):
        try:
            modes.append(parse_mode(text))
        except ConfigError as error:
            yield Problem(("ablate", "modes", index), str(error))
    told: set[tuple[FieldPath, str]] = set()
    for name, layer_scale in shapes:
        scale = SCALES[name]
        for path, check in _texts(ablate, modes or [FULL], scale, layer_scale=layer_scale):
            try:
                check()
            except ConfigError as error:
                if (path, str(error)) not in told:
                    yield Problem(path, _with_scale(error, name))
                told.add((path, str(error)))


def _texts(
    ablate: Ablation, modes: Sequence[Mode], scale: Scale, *, layer_scale: bool
) -> Iterator[tuple[FieldPath, Callable[[], object]]]:
    """Yield the place of every text under ``ablate``, and what checks it against a scale."""

    def check(text: str, mode: Mode, blocks: str) -> None:
        specialization = parse_specialization(
            text, scale.depth, layer_scale=layer_scale, default_range=blocks, default_mode=mode
        )
        check_specialization(specialization, depth=scale.depth, width=scale.width, layer_scale=layer_scale)

    modes = list(dict.fromkeys(modes))
    ranges = [text for text in dict.fromkeys(ablate.blocks or ("all",)) if _resolves(text, scale.depth)]
    for (text, index), mode, blocks in itertools.product(_first(ablate.components), modes, ranges):
        yield ("ablate", "components", index), partial(check, text, mode, blocks)
    for (text, index), mode in itertools.product(_first(ablate.specialize), modes):
        yield ("ablate", "specialize", index), partial(check, text, mode, "all")
    for text, index in _first(ablate.blocks):
        yield ("ablate", "blocks", index), partial(resolve_range, text, scale.depth)


def _first(texts: Sequence[str] | None) -> list[tuple[str, int]]:
    """Return every text once, with the place where it stands first."""
    places: dict[str, int] = {}
    for index, text in enumerate(texts or ()):
        places.setdefault(text, index)
    return list(places.items())


def _resolves(blocks: str, depth: int) -> bool:
    try:
        resolve_range(blocks, depth)
    except ConfigError:
        return False
    return True


def _check_placebo(sweep: Sweep, group: Group) -> Iterator[Problem]:
    """Check that the placebo's patch stays in its place, and is one of the image's."""
    places: list[FieldPath] = [
        *(("ablate", "tokens", index) for index, kind in enumerate(sweep.file.ablate.tokens) if kind == "placebo"),
        *(("controls", index) for index, text in enumerate(sweep.file.controls) if text.startswith("placebo")),
    ]
    if group.objective.drops_patches:
        rule = f"must not be 'placebo' with recipe {group.objective.name!r}, which drops patches: its row would move"
        yield from (Problem(place, rule) for place in places)
    position = sweep.file.ablate.placebo_position
    if position is None:
        return
    if not places:
        yield Problem(("ablate", "placebo_position"), "needs 'placebo' in ablate.tokens or controls")
        return
    side = group.data.image_size // group.model.patch_size
    if max(position) >= side:
        rule = f"must be [row, column] within the grid of patches, each from 0 to {side - 1}, not {list(position)}"
        yield Problem(("ablate", "placebo_position"), rule)


def _check_comparators(sweep: Sweep, group: Group) -> Iterator[Problem]:
    """Check that the recipe gives every comparator what it learns from."""
    for index, comparator in enumerate(sweep.file.ablate.comparators or ()):
        try:
            comparator.check_recipe(group.objective)
        except ConfigError as error:
            yield Problem(("ablate", "comparators", index), str(error))
        if sweep.file.keep_weights and comparator.changes_model:
            rule = f"must be false with comparator {comparator.name!r}, whose weights have no file format"
            yield Problem(("keep_weights",), rule)


def _check_registers(sweep: Sweep) -> Iterator[Problem]:
    has_registers = any(parse_high_norm(group.model.high_norm).num_registers for group in sweep.groups)
    if "patches" in sweep.file.ablate.registers_with and not has_registers:
        yield Problem(("ablate", "registers_with"), "needs registers, e.g. model.high_norm: registers:4")


def _with_scale(error: ConfigError, scale: str) -> str:
    """Return an error's text with the scale, where the depth is what a range breaks on."""
    return f"{error}, scale {scale!r}" if "the depth of the model" in str(error) else str(error)
