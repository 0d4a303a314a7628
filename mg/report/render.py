"""Tables: CSV for programs; for people one description, as Markdown, LaTeX and a page."""

import csv
import io
import os
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined

from mg.files import write_text
from mg.report.names import controls_note

UNDEFINED = "–"
COUNTS = {1: "", 1e3: "thousand", 1e6: "million", 1e9: "billion"}
TIMES = {1: "s", 60: "min", 3600: "h"}


@dataclass(frozen=True)
class Column:
    """A heading; `unit` is shown under it, numbers are flushed right."""

    title: str
    unit: str = ""
    numeric: bool = True


@dataclass(frozen=True)
class Cell:
    """What is shown, and the number it is sorted by if that is not the text.

    `kind` is `best` (bold), `missing`, `good` or `bad` (a verdict), or nothing.
    """

    text: str
    value: float | None = None
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Rows under columns, with a heading and notes."""

    title: str
    columns: list[Column]
    rows: list[list[Cell]]
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls, title: str, rows: list[list[tuple[Column, Cell]]], notes: Iterable[str] = ()
    ) -> "Table":
        """Of rows whose cells have their columns beside them, the same in each; at least one."""
        columns = [column for column, _ in rows[0]]
        return cls(title, columns, [[cell for _, cell in row] for row in rows], [*notes])


def number(value: float | None, digits: int = 3, scale: float = 1, best: bool = False) -> Cell:
    """A number divided by `scale` with `digits` decimals; thousands are grouped."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value / scale:,.{digits}f}", value, "best" if best else "")


def signed(value: float | None, digits: int = 2) -> Cell:
    """A difference, with its sign."""
    return Cell(UNDEFINED) if value is None else Cell(f"{value:+.{digits}f}", value)


def spread(
    mean: float | None, sd: float | None, digits: int = 3, scale: float = 1, best: bool = False
) -> Cell:
    """mean ± sd; the mean alone if there is no deviation (one seed)."""
    if mean is None or sd is None:
        return number(mean, digits, scale, best)
    text = f"{mean / scale:,.{digits}f} ± {sd / scale:,.{digits}f}"
    return Cell(text, mean, "best" if best else "")


class Unit(NamedTuple):
    """The unit of a column: numbers are divided by `divisor` and shown with `digits` decimals."""

    divisor: float
    name: str
    digits: int

    @classmethod
    def of(cls, values: Iterable[float | None], units: dict[float, str]) -> "Unit":
        """One unit for a column: the largest of `units` that leaves the median above 1."""
        found = [v for v in values if v]
        median = statistics.median(found) if found else 0
        divisor = max((d for d in units if median >= d), default=1)
        digits = 0 if divisor == 1 else 1 if median >= 10 * divisor else 2
        return cls(divisor, units[divisor], digits)

    def cell(self, mean: float | None, sd: float | None = None) -> Cell:
        return spread(mean, sd, self.digits, self.divisor)


def write_csv(path: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file; None becomes an empty field."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(["" if value is None else value for value in row] for row in rows)
    write_text(path, text.getvalue())


def write(prefix: str | os.PathLike, tables: list[Table], title: str, caption: str) -> None:
    """Write `prefix`.md, `prefix`.tex and `prefix`.html."""
    write_text(f"{prefix}.md", markdown(tables, caption))
    write_text(f"{prefix}.tex", latex(tables, caption))
    write_text(f"{prefix}.html", page(tables, title, caption))


# ------------------------------------------------------------------------------ Markdown


def markdown(tables: list[Table], caption: str) -> str:
    """GitHub-flavoured Markdown."""
    parts = []
    for table in tables:
        heads = [_joined(c) for c in table.columns]
        lines = [
            f"**{_md(table.title)}**",
            "",
            _md_row(map(_md, heads)),
            _md_row("---:" if c.numeric else ":---" for c in table.columns),
            *(_md_row(map(_md_cell, row)) for row in table.rows),
        ]
        parts.append("\n".join(lines))
        parts += ["\n".join(f"* {_md(note)}" for note in table.notes)] if table.notes else []
    return "\n\n".join([*parts, _md(caption)]) + "\n"


def _joined(column: Column) -> str:
    return f"{column.title} ({column.unit})" if column.unit else column.title


def _md_row(cells) -> str:
    return "| " + " | ".join(cells) + " |"


def _md(text: str) -> str:
    for mark in "\\|*_`<>":
        text = text.replace(mark, "\\" + mark)
    return " ".join(text.split())


def _md_cell(cell: Cell) -> str:
    text = _md(cell.text)
    return {"best": f"**{text}**", "missing": f"*{text}*"}.get(cell.kind, text)


# ------------------------------------------------------------------------------ LaTeX

_LATEX = {
    "\\": r"\textbackslash{}",
    **{c: "\\" + c for c in "&%$#_{}"},
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "±": r"$\pm$",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "≤": r"$\leq$",
    "√": r"$\surd$",
    "²": r"$^2$",
    "₁": "$_1$",
    "₂": "$_2$",
    "−": "$-$",
    "–": "--",
    "<": r"$<$",
    ">": r"$>$",
    "“": "``",
    "”": "''",
    "…": r"\dots{}",
}


def latex(tables: list[Table], caption: str) -> str:
    """A table environment per table; needs the package booktabs."""
    parts = ["% \\usepackage{booktabs} in the preamble"]
    for table in tables:
        wide = any(len(cell.text) > 60 for row in table.rows for cell in row)
        columns = "".join(_tex_column(c, table, i, wide) for i, c in enumerate(table.columns))
        heads = [_tex(c.title) for c in table.columns]
        units = [f"({_tex(c.unit)})" if c.unit else "" for c in table.columns]
        parts += [
            r"\begin{table}",
            r"  \centering\footnotesize",
            rf"  \caption{{{_tex(table.title)}. {_tex(caption)}}}",
            rf"  \begin{{tabular}}{{{columns}}}",
            r"    \toprule",
            f"    {' & '.join(heads)} \\\\",
            *([f"    {' & '.join(units)} \\\\"] if any(units) else []),
            r"    \midrule",
            *(f"    {' & '.join(map(_tex_cell, row))} \\\\" for row in table.rows),
            r"    \bottomrule",
            r"  \end{tabular}",
            *(rf"  \par\smallskip {{\scriptsize {_tex(note)}}}" for note in table.notes),
            r"\end{table}",
        ]
    return "\n".join(parts) + "\n"


def _tex_column(column: Column, table: Table, index: int, wide: bool) -> str:
    if wide and any(len(row[index].text) > 25 for row in table.rows):
        return r"p{0.2\linewidth}"
    return "r" if column.numeric else "l"


def _tex(text: str) -> str:
    return "".join(_LATEX.get(c, c) for c in " ".join(text.split()))


def _tex_cell(cell: Cell) -> str:
    text = _tex(cell.text)
    return {"best": rf"\textbf{{{text}}}", "missing": rf"\emph{{{text}}}"}.get(cell.kind, text)


# ------------------------------------------------------------------------------ page

_TEMPLATES = Environment(
    loader=PackageLoader("mg.report"),
    autoescape=True,
    trim_blocks=True,
    lstrip_blocks=True,
    undefined=StrictUndefined,
)
_TEMPLATES.globals["controls_note"] = controls_note


def fill(template: str, **values: Any) -> str:
    """A page that needs nothing but itself, from a template of `mg/report/templates`."""
    return _TEMPLATES.get_template(template).render(values)


def page(tables: list[Table], title: str, caption: str) -> str:
    """The tables as a page; a click on a heading sorts by it."""
    return fill("tables.html", tables=tables, title=title, caption=caption)
