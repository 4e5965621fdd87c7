"""Confidence in C: `NAME_confidence`, per mille from integer logits by the table of `netsuke.confidence`."""

from __future__ import annotations

from netsuke.artifact import Artifact
from netsuke.confidence import confidence
from netsuke.errors import OptionError

HEADER = """\
/* How sure the answer is: per mille, from 500 (two classes are level) to 1000, that the class with the largest logit,
   and not the one with the second largest, is right. It is the softmax of these two, from the gap between their logits
   by a table of {count} values, whole numbers only. A unit of the logits is {scale:.6g} of the softmax's.
   netsuke.confidence gives the same in Python. */
int {name}_confidence(const int32_t *logits);
"""
SOURCE = """\
static const uint16_t confidences[{count}] FLASH = {{{table}}};

int {name}_confidence(const int32_t *logits)
{{
    uint32_t gap, place;
    int32_t here, there, best = logits[0], second = INT32_MIN;
    for (int k = 1; k < {upper}_CLASSES; k++) {{
        if (logits[k] > best) {{
            second = best;
            best = logits[k];
        }} else if (logits[k] > second) {{
            second = logits[k];
        }}
    }}
    gap = (uint32_t)best - (uint32_t)second;
    place = gap >> {shift};
    if ({upper}_CLASSES < 2 || place >= {last}) {{
        return {largest};
    }}
    here = (int32_t)flash_uint16_t(confidences + place);
    there = (int32_t)flash_uint16_t(confidences + place + 1);
    return (int)(here + (((there - here) * (int32_t)(gap & {mask}u) + {half}) >> {shift}));
}}
"""


def header(artifact: Artifact, name: str) -> str:
    """The lines of NAME.h. Raises OptionError for a map: no class is the largest."""
    if len(artifact.shape) == 3:
        raise OptionError(
            f"no confidence: the model gives a map {list(artifact.shape)}, not one logit a class"
        )
    scale, count = artifact.graph.ops[-1].attrs.get("scale", 0), len(confidence(artifact.graph).table)
    return HEADER.format(name=name, count=count, scale=scale)


def source(artifact: Artifact, name: str) -> str:
    """The lines of NAME.c. Raises OptionError where the graph does not tell the scale of its logits."""
    found = confidence(artifact.graph)
    one = 1 << found.shift
    return SOURCE.format(
        name=name,
        upper=name.upper(),
        count=len(found.table),
        table=", ".join(map(str, found.table)),
        last=len(found.table) - 1,
        largest=found.table[-1],
        shift=found.shift,
        mask=one - 1,
        half=one >> 1,
    )
