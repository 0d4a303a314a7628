"""Tables for people: one description, rendered as Markdown, LaTeX and a self-contained page."""

import html
import os
from dataclasses import dataclass, field

from mg.files import write_text

UNDEFINED = "–"


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


def number(value: float | None, digits: int = 3, scale: float = 1, best: bool = False) -> Cell:
    """A number divided by `scale` with `digits` decimals; thousands are grouped."""
    if value is None:
        return Cell(UNDEFINED)
    return Cell(f"{value / scale:,.{digits}f}", value, "best" if best else "")


def spread(
    mean: float | None, sd: float | None, digits: int = 3, scale: float = 1, best: bool = False
) -> Cell:
    """mean ± sd; the mean alone if there is no deviation (one seed)."""
    if mean is None or sd is None:
        return number(mean, digits, scale, best)
    text = f"{mean / scale:,.{digits}f} ± {sd / scale:,.{digits}f}"
    return Cell(text, mean, "best" if best else "")


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

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
  body {{ font: 14px/1.5 system-ui, "Segoe UI", "Helvetica Neue", Arial, sans-serif;
    color: #1a1a1a; background: #fff; max-width: 78rem; margin: 2rem auto; padding: 0 1.25rem; }}
  h1 {{ font-size: 1.45rem; margin: 0 0 .25rem; }}
  h2 {{ font-size: 1.08rem; margin: 2rem 0 .5rem; }}
  .scroll {{ overflow-x: auto; }}
  table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; min-width: 50%;
    border-top: 2px solid #1a1a1a; border-bottom: 2px solid #1a1a1a; }}
  th, td {{ padding: .36rem .65rem; text-align: left; vertical-align: top; }}
  td:first-child {{ white-space: nowrap; }}
  th {{ border-bottom: 1px solid #1a1a1a; vertical-align: bottom; white-space: nowrap; }}
  th small {{ display: block; font-weight: normal; color: #666; }}
  th button {{ font: inherit; font-weight: 600; color: inherit; background: none; border: 0;
    padding: 0; margin: 0; cursor: pointer; text-align: inherit; }}
  th button:hover, th button:focus-visible {{ color: #0072b2; }}
  th[aria-sort] button::after {{ content: " ▴"; color: #0072b2; }}
  th[aria-sort=descending] button::after {{ content: " ▾"; }}
  .n {{ text-align: right; white-space: nowrap; }}
  tbody tr:nth-child(even) {{ background: #f6f7f8; }}
  tbody tr:hover {{ background: #e8f1f8; }}
  .best {{ font-weight: 700; }}
  .missing {{ color: #777; font-style: italic; }}
  .good {{ color: #00664b; font-weight: 600; }}
  .bad {{ color: #a94400; font-weight: 600; }}
  ul {{ color: #444; font-size: .88rem; padding-left: 1.1rem; margin: .6rem 0 0; }}
  footer {{ color: #444; font-size: .88rem; margin-top: 1.5rem; max-width: 60rem; }}
</style>
</head>
<body>
<h1>{title}</h1>
{tables}
<footer>{caption}</footer>
<script>
for (const table of document.querySelectorAll("table")) {{
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  const key = (row, i) => row.cells[i].dataset.value ?? row.cells[i].textContent;
  heads.forEach((head, i) => head.querySelector("button").addEventListener("click", () => {{
    const first = head.classList.contains("n") ? "descending" : "ascending";
    const other = first === "ascending" ? "descending" : "ascending";
    const order = head.getAttribute("aria-sort") === first ? other : first;
    heads.forEach(h => h.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", order);
    const sign = order === "ascending" ? 1 : -1;
    const numeric = head.classList.contains("n");
    const rows = [...body.rows].sort((a, b) => {{
      const [x, y] = [key(a, i), key(b, i)];
      if (!numeric) return sign * x.localeCompare(y);
      const [u, v] = [parseFloat(x), parseFloat(y)];
      return isNaN(u) || isNaN(v) ? isNaN(u) - isNaN(v) : sign * (u - v);
    }});
    body.append(...rows);
  }}));
}}
</script>
</body>
</html>
"""


def page(tables: list[Table], title: str, caption: str) -> str:
    """One HTML page that needs nothing but itself; a click on a heading sorts by it."""
    parts = []
    for table in tables:
        heads = "".join(map(_html_head, table.columns))
        rows = "\n".join(
            "<tr>" + "".join(map(_html_cell, row, table.columns)) + "</tr>" for row in table.rows
        )
        heading = f"<h2>{html.escape(table.title)}</h2>\n" if len(tables) > 1 else ""
        notes = "".join(f"<li>{html.escape(note)}</li>" for note in table.notes)
        parts.append(
            f"<section>\n{heading}<div class='scroll'><table>\n"
            f"<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}\n</tbody>\n</table></div>\n"
            + (f"<ul>{notes}</ul>\n" if notes else "")
            + "</section>"
        )
    return _PAGE.format(
        title=html.escape(title), tables="\n".join(parts), caption=html.escape(caption)
    )


def _html_head(column: Column) -> str:
    unit = f"<small>{html.escape(column.unit)}</small>" if column.unit else ""
    kind = " class='n'" if column.numeric else ""
    return (
        f"<th scope='col'{kind}><button type='button'>{html.escape(column.title)}</button>"
        f"{unit}</th>"
    )


def _html_cell(cell: Cell, column: Column) -> str:
    classes = " ".join(filter(None, ("n" if column.numeric else "", cell.kind)))
    attributes = f" class='{classes}'" if classes else ""
    if cell.value is not None:
        attributes += f" data-value='{cell.value!r}'"
    return f"<td{attributes}>{html.escape(cell.text)}</td>"
