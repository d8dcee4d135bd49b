"""Equations as MathML, written at build time by docutils.

Browsers draw MathML themselves: no script, no fonts and no network are needed, on
the site or in a copy of it on a disk. See docs/decisions/0006-documentation.md.
"""

from docutils.nodes import SkipNode
from docutils.utils.math import MathError, latex2mathml
from sphinx.errors import SphinxError


def _mathml(node, as_block):
    try:
        return latex2mathml.tex2mathml(node.astext(), as_block=as_block)
    except MathError as error:
        raise SphinxError(f"{node.astext()!r} is no equation: {error}") from error


def write_inline(translator, node):
    """Write an equation inside a sentence."""
    translator.body.append(_mathml(node, as_block=False))
    raise SkipNode


def write_block(translator, node):
    """Write an equation on lines of its own."""
    equation = _mathml(node, as_block=True)
    translator.body.append(f'<div class="math">{equation}</div>\n')
    raise SkipNode


def setup(app):
    """Offer the renderer, for ``html_math_renderer = "mathml"``."""
    app.add_html_math_renderer("mathml", (write_inline, None), (write_block, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
