"""Sphinx settings. The site: ``sphinx-build -n -W fastconv/docs site`` with ``pip install "fastconv[docs]"``.

Pages that follow from the code are written when the build begins: one for each family of networks, from the catalogue
and the layers' shapes, and the reference, from ``__all__`` of each module. Everything else is text beside this file.
"""

import inspect
import re
import sys
from importlib import import_module
from pathlib import Path

import fastconv

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parent / "gallery"))

from architectures import write_architectures

project = "fastconv"
copyright = "the fastconv developers"
version = release = fastconv.__version__
extensions = ["sphinx.ext.autodoc", "numpydoc", "sphinx_gallery.gen_gallery"]
html_theme = "alabaster"
html_theme_options = {"description": fastconv.__doc__.splitlines()[0], "page_width": "70em", "fixed_sidebar": True}
exclude_patterns = ["gallery"]
autodoc_typehints = "none"  # the docstrings say shapes and dtypes, which the types do not
autodoc_member_order = "bysource"
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "pictures",
    "filename_pattern": r"\.py$",
    "ignore_pattern": r"digits_network\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "abort_on_example_error": True,
    "capture_repr": (),
    "remove_config_comments": True,
    "min_reported_time": 5,
    "show_signature": False,
}

# What a module takes over from another one is described where it comes first.
_REFERENCE = (
    "fastconv.nn.functional",
    "fastconv.nn",
    "fastconv.nn.init",
    "fastconv.nn.utils",
    "fastconv.optim",
    "fastconv.optim.lr_scheduler",
    "fastconv.data",
    "fastconv.data.transforms",
    "fastconv.training",
    "fastconv.distributed",
    "fastconv.transfer",
    "fastconv.models",
    "fastconv.onnx",
    "fastconv.visualize",
    "fastconv",
)


def _write_reference(folder: Path) -> None:
    """One page a module: a directive for each public function and class."""
    folder.mkdir(exist_ok=True)
    described: set[int] = set()
    for name in _REFERENCE:
        module = import_module(name)
        lines = [name, "=" * len(name), "", f".. module:: {name}", ""]
        lines += [inspect.getdoc(module) or "", ""] if name != "fastconv" else []
        for member in sorted(module.__all__, key=str.lower):
            value = getattr(module, member)
            if not (inspect.isclass(value) or inspect.isroutine(value)) or id(value) in described:
                continue
            described.add(id(value))
            kind = "class" if inspect.isclass(value) else "function"
            lines += [f".. auto{kind}:: {name}.{member}", *(["   :members:"] if kind == "class" else []), ""]
        (folder / f"{name}.rst").write_text("\n".join(lines))
    tree = "\n".join(f"   {name}" for name in _REFERENCE)
    (folder / "index.rst").write_text(f"Reference\n=========\n\n.. toctree::\n   :maxdepth: 1\n\n{tree}\n")


def _write_examples(path: Path) -> None:
    """The programs of fastconv.examples, by what they say of themselves."""
    import fastconv.examples

    page = ["Programs", "========", "", inspect.getdoc(fastconv.examples), ""]
    for file in sorted(Path(fastconv.examples.__file__).parent.glob("[a-z]*.py")):
        text = inspect.getdoc(import_module(f"fastconv.examples.{file.stem}"))
        page += [file.stem, "-" * len(file.stem), ""]
        for paragraph in text.split("\n\n"):
            page += [*(["::", ""] if paragraph.startswith("    ") else []), paragraph, ""]
    path.write_text("\n".join(page))


# A star before a word, a bar around a word, an underscore after a word.
_MARKS = re.compile(r"(?<=[ (])\*(?=[,)A-Za-z])|(?<=[ (])\|(?=\w+\|)|(?<=\w)_(?=[\s.,;)]|$)")


def _escape(app, what, name, obj, options, lines):
    """Shapes (N, *), absolute values |d| and names_ mean themselves in a docstring, not emphasis or references."""
    example = False
    for i, line in enumerate(lines):
        example = line.lstrip().startswith(">>>") or (example and bool(line.strip()))
        if not example:
            parts = line.split("``")
            parts[::2] = [_MARKS.sub(r"\\\g<0>", part) for part in parts[::2]]
            lines[i] = "``".join(parts)


def setup(app):
    """Write the generated pages before Sphinx looks for pages."""
    app.connect("autodoc-process-docstring", _escape, priority=900)
    _write_examples(Path(app.srcdir) / "examples.rst")
    _write_reference(Path(app.srcdir) / "reference")
    write_architectures(Path(app.srcdir) / "architectures")
