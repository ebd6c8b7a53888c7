"""Packing that gives the same in every turn of a loop moves in front of it: Region -> steps.

A recurrent network multiplies by the same weights in every turn: they are packed once for all. Loops hand their bodies
``shared`` operands, which no turn changes; what is packed of one becomes one operand more.
"""

from __future__ import annotations

from dataclasses import replace

from ..schedule import Buffer, Pack, Ref, Region, Step


def hoisted(loop: Region) -> list[Step]:
    """Packs of shared operands, then the loop that reads what they write."""
    packs: list[Step] = []
    reads, shared, parts = list(loop.reads), list(loop.shared), list(loop.parts)
    first = 0
    for number, part in enumerate(parts):
        known = dict(zip(part.inputs[: shared[number]], reads[first:], strict=False))
        kept: list[Step] = []
        panels: list[Buffer] = []
        for step in part.steps:
            outer = known.get(step.source.buffer) if isinstance(step, Pack) else None
            if outer is None:
                kept.append(step)
                continue
            assert isinstance(step, Pack)
            packs.append(_outside(step, outer))
            panels.append(step.target.buffer)
            reads.insert(first + shared[number], packs[-1].writes[0])
            shared[number] += 1
        at = len(known)
        inputs = (*part.inputs[:at], *panels, *part.inputs[at:])
        parts[number] = replace(part, inputs=inputs, steps=tuple(kept))
        first += shared[number]
    return [*packs, replace(loop, parts=tuple(parts), reads=tuple(reads), shared=tuple(shared))]


def _outside(step: Pack, operand: Ref) -> Pack:
    """The same packing of the operand that the loop is given, to memory outside of it."""
    layout = step.source.layout
    source = Ref(operand.buffer, replace(layout, offset=layout.offset + operand.layout.offset))
    held = step.target.buffer
    target = step.target._replace(buffer=Buffer(held.size, held.dtype))
    return replace(step, source=source, target=target)
