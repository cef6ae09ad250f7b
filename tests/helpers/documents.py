"""
Markdown pages and docstrings, taken apart into blocks, links and names.
"""

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path

from attrs import frozen

ROOT = Path(__file__).parent.parent.parent
PACKAGE = ROOT / "exponea_async"

_FENCE = re.compile(
    r"^(?:<!-- (?:not run: (?P<reason>.+?)|from (?P<source>\S+)) -->\n)?"
    r"```(?P<kind>\S*)\n(?P<code>.*?)^```$",
    re.DOTALL | re.MULTILINE,
)
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_INLINE = re.compile(r"`([^`\n]+)`")
_PICTURE = re.compile(r"[─│├└▲►→]")
_COMMAND = re.compile(r"^ +(exponea-async (?:.*\\\n)*.*)$", re.MULTILINE)


@frozen
class Block:
    """
    A block of code.

    Attributes:
        place: The file and the line.
        kind: The language, such as ``"python"``.
        code: The content.
        reason: Why it is not run; empty if it is.
        source: The example of which it is an excerpt; empty if it is none.
    """

    place: str
    kind: str
    code: str
    reason: str = ""
    source: str = ""

    def __str__(self) -> str:
        return self.place


@frozen
class Page:
    """
    A Markdown page.

    Attributes:
        path: The file.
        text: Its content.
    """

    path: Path
    text: str

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    def blocks(self) -> list[Block]:
        """Return the blocks, in their order."""
        return [
            Block(
                f"{self}:{self.text[: found.start()].count(chr(10)) + 1}",
                found["kind"],
                found["code"],
                found["reason"] or "",
                found["source"] or "",
            )
            for found in _FENCE.finditer(self.text)
        ]

    def prose(self) -> str:
        """Return the page without its blocks."""
        return _FENCE.sub("", self.text)

    def anchors(self) -> set[str]:
        """Return the anchors of the headings, as GitHub and MyST make them."""
        return {_slug(heading) for heading in _HEADING.findall(self.prose())}

    def links(self) -> list[str]:
        """Return the targets of all links."""
        return _LINK.findall(self.prose())

    def inline_code(self) -> list[str]:
        """Return everything in backticks."""
        return _INLINE.findall(self.prose())


def _slug(heading: str) -> str:
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def pages() -> list[Page]:
    """Return all pages of the documentation."""
    paths = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
    return [Page(path, path.read_text(encoding="utf-8")) for path in paths]


@cache
def nodes() -> Mapping[Path, list[ast.AST]]:
    """Return all syntax nodes of the package, by file."""
    return {path: list(ast.walk(ast.parse(path.read_text("utf-8")))) for path in sorted(PACKAGE.rglob("*.py"))}


def docstrings() -> Iterator[tuple[str, str]]:
    """Yield the place and the text of each docstring of the package."""
    for path, inside in nodes().items():
        for node in inside:
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                text = ast.get_docstring(node)
                if text:
                    yield f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 1)}", text


def defined_names() -> set[str]:
    """Return the names of all functions, classes, parameters, fields and members of the package."""
    names: set[str] = set()
    for inside in nodes().values():
        for node in inside:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                names.add(node.name)
            elif isinstance(node, ast.arg):
                names.add(node.arg)
            elif isinstance(node, ast.AnnAssign | ast.Assign):
                targets = [node.target] if isinstance(node, ast.AnnAssign) else node.targets
                names |= {each.id for each in targets if isinstance(each, ast.Name)}
    return names


def docstring_blocks() -> list[Block]:
    """Return the literal blocks of all docstrings: pictures are of the kind ``"text"``, all others ``"python"``."""
    return [
        Block(place, "text" if _PICTURE.search(code) else "python", code)
        for place, text in docstrings()
        for code in _literal_blocks(text)
    ]


def _literal_blocks(text: str) -> Iterator[str]:
    lines = iter(text.splitlines())
    for line in lines:
        if line.endswith("::"):
            indent = len(line) - len(line.lstrip())
            block = []
            for inner in lines:
                if inner.strip() and len(inner) - len(inner.lstrip()) <= indent:
                    break
                block.append(inner)
            yield inspect.cleandoc("\n".join(block)) + "\n"


def shell_commands(code: str) -> list[str]:
    """Return the commands of a shell block, each on one line."""
    return [line for line in code.replace("\\\n", " ").splitlines() if line.strip() and not line.startswith("#")]


def commands_in_strings() -> Iterator[str]:
    """Yield the commands that the help texts of the command line show."""
    for path, inside in nodes().items():
        for node in inside if path.is_relative_to(PACKAGE / "cli") else ():
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
                yield from (found.replace("\\\n", " ") for found in _COMMAND.findall(node.value))
