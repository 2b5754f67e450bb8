"""What trains, as a table: part, tensors, parameters, bytes."""

from dataclasses import dataclass

from tintype.models.model import Model
from tintype.training.methods.method import Trained

HEAD = ("trains", "parameters", "of", "size", "learning rate")


@dataclass(frozen=True, kw_only=True)
class Line:
    """One group: how many of its part's parameters train, and the bytes of those."""

    name: str
    parameters: int
    of: int
    bytes: int
    learning_rate: float


def count(model: Model) -> dict[str, int]:
    """How many parameters each part has."""
    return {
        name: sum(parameter.numel() for parameter in part.parameters())
        for name, part in model.parts.items()
    }


def lines(trained: Trained, totals: dict[str, int]) -> list[Line]:
    """One line a group; `totals` are the parts' parameters before anything was added to them."""
    found = []
    for group in trained.groups:
        parts = {name.split(".")[0] for name in group.parameters}
        values = group.parameters.values()
        found.append(
            Line(
                name=group.name,
                parameters=sum(p.numel() for p in values),
                of=sum(totals[part] for part in parts),
                bytes=sum(p.numel() * p.element_size() for p in values),
                learning_rate=group.learning_rate,
            )
        )
    return found


def as_text(rows: list[Line]) -> str:
    """The table with a sum, in columns."""
    cells = [HEAD]
    cells += [
        (row.name, f"{row.parameters:,}", f"{row.of:,}", size(row.bytes), f"{row.learning_rate:g}")
        for row in rows
    ]
    if len(rows) > 1:
        parameters = sum(row.parameters for row in rows)
        cells.append(("in all", f"{parameters:,}", "", size(sum(row.bytes for row in rows)), ""))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in cells
    )


def size(bytes_: int) -> str:
    """Bytes as a person reads them."""
    return f"{bytes_ / 1e6:,.1f} MB" if bytes_ >= 100_000 else f"{bytes_ / 1e3:,.1f} kB"
