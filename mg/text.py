"""Text in columns, for a terminal."""

from collections.abc import Collection, Sequence


def aligned(
    rows: Sequence[Sequence[str]], right: Collection[int] = (), *, headed: bool = True
) -> list[str]:
    """Rows of equally many cells as lines; the columns `right` are flushed right.

    `headed`: a rule follows the first row.
    """
    sizes = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.rjust(size) if i in right else cell.ljust(size)
            for i, (cell, size) in enumerate(zip(row, sizes, strict=True))
        ).rstrip()
        for row in rows
    ]
    if headed:
        lines.insert(1, "-" * max(map(len, lines)))
    return lines
