"""Names of the package, in docstrings and on pages, lead to their page.

numpydoc has one kind of quotes for parameters, attributes and names of the package;
Markdown has one for all code. Only public names have a page.
"""

import functools
import inspect
import pkgutil
from importlib import import_module

from docutils import nodes
from sphinx import addnodes
from sphinx.util.docutils import SphinxRole

import sklearn_vad


@functools.cache
def public_names():
    """Return the full name of everything in an ``__all__``, by object."""
    modules = [sklearn_vad] + [
        import_module(f"sklearn_vad.{info.name}")
        for info in pkgutil.iter_modules(sklearn_vad.__path__)
        if not info.name.startswith("_")
    ]
    found = {}
    for module in modules:  # the package comes first: `sklearn_vad.Bags`
        for name in getattr(module, "__all__", ()):
            found.setdefault(id(getattr(module, name)), f"{module.__name__}.{name}")
    return list(found.values())


@functools.cache
def _targets():
    """Return what may stand between backticks, and the full name it means."""
    names = public_names()
    short = [name.rpartition(".")[2] for name in names]
    targets = {name: name for name in names}
    for own, name in zip(short, names, strict=True):
        if own == "load":  # a method, too
            continue
        targets[own] = name
        public = getattr(import_module(name.rpartition(".")[0]), own)
        if inspect.isclass(public):
            targets |= {f"{own}.{m}": f"{name}.{m}" for m in dir(public) if m[0] != "_"}
    return targets


class NameRole(SphinxRole):
    """The role of single backticks: code, as with two of them."""

    def run(self):
        """Return literal text; `link_names` sees to the rest."""
        return [nodes.literal(self.text, self.text)], []


def link_names(app, doctree):
    """Let code that is a public name lead to its page, on all pages."""
    for code in list(doctree.findall(nodes.literal)):
        target = _targets().get(code.astext().removesuffix("()"))
        inside = (nodes.reference, nodes.title, addnodes.pending_xref)
        if target is None or isinstance(code.parent, inside):
            continue
        link = addnodes.pending_xref("", refdomain="py", reftype="obj")
        link.update_all_atts({"reftarget": target, "refexplicit": True})
        link["refdoc"] = app.env.docname
        code.replace_self(link)
        link += nodes.literal("", code.astext(), classes=["xref", "py"])


def find_in_package(app, env, node, content):
    """Give names under See Also the page that they have anywhere in the package."""
    target = _targets().get(node.get("reftarget"))
    if node.get("refdomain") != "py" or target in (None, node["reftarget"]):
        return None
    return env.get_domain("py").resolve_xref(
        env, node["refdoc"], app.builder, "obj", target, node, content
    )


def skip_foreign(app, what, name, member, skip, options):
    """Leave out what scikit-learn gives to every estimator."""
    if skip or what != "class" or not inspect.isroutine(member):
        return skip
    return not (getattr(member, "__module__", None) or "").startswith("sklearn_vad")


def setup(app):
    """Make it the default role, and find names wherever they stand."""
    app.add_role("public", NameRole())
    app.config.default_role = "public"
    app.connect("doctree-read", link_names)
    app.connect("missing-reference", find_in_package)
    app.connect("autodoc-skip-member", skip_foreign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
