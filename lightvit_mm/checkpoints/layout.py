"""Key layouts: detecting the one that weights are in, and converting them to ours.

The names of the weights are compared with every known layout under every usual wrapper prefix. The
one with the fewest unmatched names is used, and then every tensor must fit.
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

# Prefixes that training loops, data-parallel wrappers and detectors add to a backbone's names.
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
# Keys under which training scripts store the weights, in order of preference.
WRAPPER_KEYS = ('state_dict', 'model', 'model_ema', 'state_dict_ema')
MOST_WRAPPERS = 4


class WeightsError(UserError):
    """Weights that do not fit the backbone they were meant for; nothing has been loaded."""


@dataclass(frozen=True)
class Layout:
    """How the names of one release map to ours.

    Attributes:
        name: its name in messages, e.g. ``'official'``.
        renames: pairs of a pattern and a replacement for re.sub, applied to each name in order.
        dropped: pattern for re.match of the names that no backbone has, such as the classifier's.
        convert: for releases that store some tensors differently: takes the renamed tensors and
            the state dict to be filled, and returns the tensors in our form. It must not change
            tensors that it does not know, since it is tried on files of any origin.
        mark: a name that every file of the release has, for releases that differ from another by
            it alone; without it, the layout is not tried.
    """

    name: str
    renames: tuple[Rename, ...] = ()
    dropped: str = r'(?!)'
    convert: Convert | None = None
    mark: str = ''

    def rename(self, key: str) -> str:
        """Translate a name in the file into ours."""
        for pattern, replacement in self.renames:
            key = re.sub(pattern, replacement, key)
        return key


OURS = Layout('lightvit_mm')
# In a checkpoint of `ImageClassifier`, beside the backbone's names.
CLASSIFIER_MARK = 'head.fc.weight'


@dataclass
class Match:
    """Weights read as one layout, compared with the names that a backbone expects.

    Attributes:
        layout: the layout.
        prefix: the wrapper prefix.
        tensors: the tensors, by our names.
        origins: the names in the file, by our names.
        left_out: names in the file that the backbone does not use.
        absent: prefixes of the parts that the file lacks because no published file has them.
        kept: expected names in those parts, which keep their values.
        missing: other expected names that the file lacks.
        unexpected: our names of tensors that are not expected.
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
        """Translate one of our names into the name in the file."""
        return self.origins.get(name, name)

    @property
    def fits_at_all(self) -> bool:
        """Whether at least one name is expected."""
        return len(self.unexpected) < len(self.tensors)

    @property
    def rank(self) -> tuple[bool, int]:
        """Sort key, lower is better: whether nothing fits, then the number of unmatched names."""
        unmatched = len(self.missing) + len(self.kept) + len(self.unexpected)
        return not self.fits_at_all, unmatched

    @property
    def complete(self) -> bool:
        """Whether no name is missing and none is unexpected."""
        return not self.missing and not self.unexpected

    def summary(self) -> str:
        """List what was left out and what was left as initialised, for the end of a sentence."""
        # Counted by their first part, which says nothing if it is a wrapper's.
        left_out = [
            key.removeprefix(self.prefix).removeprefix('backbone.') for key in self.left_out
        ]
        lists = {
            'not part of the backbone': left_out,
            'in no published file, so left as initialised': self.kept,
        }
        return ''.join(f'; {what}: {_parts(names)}' for what, names in lists.items() if names)


def unwrap(weights: Mapping) -> Mapping:
    """Find the mapping of names to tensors in what a training script saved.

    Raises:
        WeightsError: the weights are wrapped too deep (a file can even contain itself).
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
        layouts: the layouts of the family; ours is always tried as well, with a conversion if it is
            among them.
        not_built: prefixes, in our names, of parts that this backbone does not have.
        unpublished: prefixes, in our names, of parts that no published file has. A file in
            another layout may lack such a part entirely, and so may a classifier's; another file
            in ours may not.
    """
    matches = []
    layouts = tuple(layouts)
    ours = () if any(layout.name == OURS.name for layout in layouts) else (OURS,)
    for prefix in WRAPPER_PREFIXES:
        inside = [key for key in weights if key.startswith(prefix)]
        for layout in (*ours, *layouts) if inside or not prefix else ():
            if layout.mark and prefix + layout.mark not in weights:
                continue
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
            # If no name was translated, the file is one of ours, whatever layout was tried.
            translated = any(match.origins[name] != prefix + name for name in match.origins)
            if translated or CLASSIFIER_MARK in match.left_out:
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
    """Check that the tensors of ``match`` fit ``expected``.

    Args:
        match: result of `find_match`.
        expected: the state dict to be filled.
        owner: the backbone, for the message.
        source: the file, for the message.

    Returns:
        A tensor per name of ``expected``; those that the file may lack come from ``expected``.

    Raises:
        WeightsError: a tensor is missing or unexpected, has another shape or kind, has no values
            or values that are not finite, or is not a tensor.
    """
    tensors = match.tensors
    misfits, without_values = [], []
    for name in expected:
        if name not in tensors:
            continue
        if misfit := form_misfit(tensors[name], expected[name]):
            misfits.append(f'{match.origin(name)}: {misfit}')
        elif not has_values(tensors[name]):
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


def form_misfit(value: object, expected: torch.Tensor) -> str | None:
    """Compare shape and kind of number of a value in a file with those of a model's tensor.

    Returns:
        Both, for a message; None if they are alike, whatever their precision.
    """
    there, here = _form(value), _form(expected)
    return None if there == here else f'{there} in the file, {here} here'


def has_values(tensor: torch.Tensor) -> bool:
    """Whether a tensor has values, and all are finite in single precision."""
    return not tensor.is_meta and bool(tensor.float().isfinite().all())


def _parts(names: Iterable[str], most: int = 5) -> str:
    counts = Counter(name.split('.')[0] for name in names)
    listed = ', '.join(f'{part} ({count})' for part, count in counts.most_common(most))
    return listed + (f', and {len(counts) - most} more' if len(counts) > most else '')


def _counter(name: str) -> bool:
    return name.endswith('num_batches_tracked')


def _form(value: object) -> str:
    """Shape and kind of number, regardless of the precision."""
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    if value.is_nested:
        return 'nested tensor'
    kind = '' if value.is_floating_point() else f' {"complex" if value.is_complex() else "integer"}'
    layout = '' if value.layout is torch.strided else f' {value.layout}'
    return f'{tuple(value.shape)}{kind}{layout}'


def _listed(what: str, names: list[str], most: int = 4) -> str:
    if not names:
        return ''
    return f'{len(names)} {what} ({", ".join(names[:most])}{", …" if len(names) > most else ""})'
