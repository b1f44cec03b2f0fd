"""Key layouts: finding out in which one weights come, and bringing them into ours.

A layout knows names only. The weights of a backbone are compared with every known layout under
every usual wrapper prefix; the one that leaves the fewest names over is taken, and then every
tensor must fit.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch

from lightvit_mm.errors import UserError

Tensors = dict[str, torch.Tensor]
Convert = Callable[[Tensors, Mapping[str, torch.Tensor]], Tensors]
Rename = tuple[str, str | Callable[[re.Match[str]], str]]

# What training loops, data-parallel wrappers and detectors put before the names of a backbone.
WRAPPER_PREFIXES = (
    '',
    'backbone.',
    'model.',
    'module.',
    'model.backbone.',
    'module.backbone.',
    'module.model.',
    'encoder.',
)
# Under which a training script keeps the weights in its file, in order of preference.
WRAPPER_KEYS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
MOST_WRAPPERS = 4


class WeightsError(UserError):
    """Weights that do not fit the backbone they were meant for; nothing has been loaded."""


@dataclass(frozen=True)
class Layout:
    """How the names of one release map to ours.

    Attributes:
        name: what messages call it, e.g. ``'official'``.
        renames: regular expressions and what re.sub puts in their place, applied to each name in
            this order.
        dropped: matches (from the start) the names that no backbone has, such as the classifier.
        convert: given the renamed tensors and the state dict to be filled, the tensors as ours,
            where a release stores something otherwise. It must leave alone what it does not
            know, since it is tried on files of any origin.
    """

    name: str
    renames: tuple[Rename, ...] = ()
    dropped: str = r'(?!)'
    convert: Convert | None = None

    def rename(self, key: str) -> str:
        """Our name of ``key``."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


OURS = Layout('lightvit_mm')


@dataclass
class Match:
    """Weights read as one layout, compared with the names that a backbone expects.

    Attributes:
        layout: the layout.
        prefix: the wrapper prefix.
        tensors: by our names.
        origins: of our names, the names in the file.
        left_out: names in the file that are not wanted.
        absent: prefixes of parts that the file lacks, as every published one does.
        kept: expected names in those parts, which keep their values.
        missing: other expected names that the file lacks.
        unexpected: names, as ours, that are not expected.
    """

    layout: Layout
    prefix: str
    tensors: Tensors = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    absent: tuple[str, ...] = ()
    kept: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)

    def origin(self, name: str) -> str:
        """The name in the file of what is called ``name`` here."""
        return self.origins.get(name, name)

    @property
    def fits_at_all(self) -> bool:
        """Whether one name or more is an expected one."""
        return len(self.unexpected) < len(self.tensors)

    @property
    def rank(self) -> tuple[bool, int]:
        """Lower is better: something fits at all, then the fewest names left over."""
        left_over = len(self.missing) + len(self.kept) + len(self.unexpected)
        return not self.fits_at_all, left_over

    @property
    def complete(self) -> bool:
        """Whether every expected name is there and no other."""
        return not self.missing and not self.unexpected

    def summary(self) -> str:
        """What was not wanted and what was not there, for the end of a sentence."""
        lists = {
            'not part of the backbone': self.left_out,
            'in no published file, so left as initialised': self.kept,
        }
        return ''.join(f'; {what}: {_parts(names)}' for what, names in lists.items() if names)


def unwrap(weights: Mapping) -> Mapping:
    """The mapping of names to tensors inside what a training script saved.

    Raises:
        WeightsError: it is wrapped deeper than any script does it; a file can contain itself.
    """
    for _ in range(MOST_WRAPPERS):
        inner = [weights[key] for key in WRAPPER_KEYS if isinstance(weights.get(key), Mapping)]
        if not inner:
            return weights
        weights = inner[0]
    raise WeightsError(f'the weights are wrapped in more than {MOST_WRAPPERS} dicts')


def find_match(
    weights: Mapping[str, torch.Tensor],
    expected: Mapping[str, torch.Tensor],
    layouts: Iterable[Layout],
    not_built: tuple[str, ...] = (),
    unpublished: tuple[str, ...] = (),
) -> Match:
    """Read ``weights`` as the layout and under the wrapper prefix that fit ``expected`` best.

    Args:
        weights: names to tensors, of a backbone or of a whole model.
        expected: the state dict to be filled.
        layouts: those of the family; ours is always tried.
        not_built: prefixes (in our names) of parts that this backbone does without.
        unpublished: prefixes (in our names) of parts that no published file has. A file of
            another layout may lack such a part altogether; one of ours may not.
    """
    matches = []
    for prefix in WRAPPER_PREFIXES:
        inside = [key for key in weights if key.startswith(prefix)]
        for layout in (OURS, *layouts) if inside or not prefix else ():
            match = Match(layout, prefix)
            match.left_out = [key for key in weights if not key.startswith(prefix)]
            for key in inside:
                name = layout.rename(key[len(prefix) :])
                if re.match(layout.dropped, key[len(prefix) :]) or name.startswith(not_built):
                    match.left_out.append(key)
                else:
                    match.tensors[name] = weights[key]
                    match.origins[name] = key
            if layout.convert:
                match.tensors = layout.convert(match.tensors, expected)
            # Without a name of its own, a file is one of ours whatever layout it was tried as.
            if any(match.origins[name] != prefix + name for name in match.origins):
                match.absent = tuple(
                    part
                    for part in unpublished
                    if not any(name.startswith(part) for name in match.tensors)
                )
            match.kept = [name for name in expected if name.startswith(match.absent)]
            match.missing = [
                name
                for name in expected
                if not (name in match.tensors or name in match.kept or _counter(name))
            ]
            match.unexpected = [k for k in match.tensors if k not in expected]
            matches.append(match)
    return min(matches, key=lambda match: match.rank)


def fit(match: Match, expected: Mapping[str, torch.Tensor], owner: str, source: str) -> Tensors:
    """The tensors of ``match``, every one of which fits ``expected``.

    Args:
        match: what `find_match` gave.
        expected: the state dict to be filled.
        owner: the backbone, for the message.
        source: the file, for the message.

    Returns:
        A tensor for each name of ``expected``, whose own values stand in for what may be absent.

    Raises:
        WeightsError: a tensor is missing, unexpected, of another shape or kind, without values or
            with values that are not finite; or something is not a tensor.
    """
    tensors = match.tensors
    misfits, without_values = [], []
    for name in expected:
        if name not in tensors:
            continue
        there, here = _form(tensors[name]), _form(expected[name])
        if there != here:
            misfits.append(f'{match.origin(name)}: {there} in the file, {here} here')
        elif tensors[name].is_meta or not tensors[name].float().isfinite().all():
            without_values.append(match.origin(name))
    problems = [
        _listed('missing', match.missing),
        _listed('unexpected', [match.origin(name) for name in match.unexpected]),
        _listed('of another shape or kind', misfits),
        _listed('without finite values', without_values),
    ]
    if any(problems):
        raise WeightsError(
            f'{owner}: {source} does not fit, read as the {match.layout.name} layout'
            + (f' under {match.prefix!r}' if match.prefix else '')
            + f': {"; ".join(filter(None, problems))}. Nothing was loaded. '
            'Is it the file of this family and arch, and is it whole?'
        )
    # Old releases and other frameworks lack the counters, which have no effect on the outputs.
    unchanged = {name: expected[name] for name in expected if name not in tensors}
    return {**tensors, **unchanged}


def _parts(names: Iterable[str]) -> str:
    counts = Counter(name.split('.')[0] for name in names)
    return ', '.join(f'{part} ({count})' for part, count in counts.items())


def _counter(name: str) -> bool:
    return name.endswith('num_batches_tracked')


def _form(value: object) -> str:
    """Shape and kind of number; the precision is free."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    kind = '' if value.is_floating_point() else f' {"complex" if value.is_complex() else "integer"}'
    layout = '' if value.layout is torch.strided else f' {value.layout}'
    return f'{tuple(value.shape)}{kind}{layout}'


def _listed(what: str, names: list[str], most: int = 4) -> str:
    if not names:
        return ''
    return f'{len(names)} {what} ({", ".join(names[:most])}{", …" if len(names) > most else ""})'
