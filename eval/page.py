"""The report as one HTML file: inline style, pictures inside, nothing fetched from anywhere."""

import base64
import dataclasses
import html
import itertools
import pathlib
from collections.abc import Sequence

from eval import report

STYLE = """
:root { color-scheme: light dark; }
body { font: 15px/1.45 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; padding: 0 1rem; }
h1 { font-size: 1.5rem; margin-bottom: .2rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .4rem; }
.facts { opacity: .8; } code { font-size: .9em; overflow-wrap: anywhere; }
.verdict { font-weight: 600; padding: .5rem .8rem; border-radius: .4rem; margin: 1rem 0; }
.good { background: #1a7f3733; } .bad { background: #cf222e33; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .88rem; width: 100%; }
th, td { padding: .25rem .6rem; text-align: right; border-bottom: 1px solid #8884; white-space: nowrap; }
th:first-child, td:first-child, td.note { text-align: left; } 
td.note { white-space: normal; opacity: .75; min-width: 12rem; }
td.PASS { color: #1a7f37; font-weight: 600; } td.FAIL { color: #fff; background: #cf222e; font-weight: 700; }
tr.empty td { opacity: .6; } figure { margin: 1rem 0; } figure img, video { max-width: 100%; background: #fff; }
figcaption { font-size: .88rem; opacity: .85; max-width: 60rem; }
"""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A PNG with the sentence that says what is seen."""

    title: str
    caption: str
    png: bytes


def render(
    content: report.Report, pictures: Sequence[Picture], *, before: Sequence[str] = (), after: Sequence[str] = ()
) -> str:
    """The whole page. Rows are grouped by suite in their own order; `before` and `after` are HTML around them."""
    suites = itertools.groupby(content.rows, key=lambda row: row.id.split(".")[0])
    tables = (_suite(name, list(rows)) for name, rows in suites)
    parts = [_head(content), *before, *tables, *map(_figure, pictures), *after]
    versions = ", ".join(f"{html.escape(name)} {html.escape(v)}" for name, v in sorted(content.versions.items()))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>sage-distill report</title><style>{STYLE}</style></head>\n<body>\n"
        + "\n".join(parts)
        + f'\n<p class="facts">{versions}</p>\n</body></html>\n'
    )


def write(
    folder: pathlib.Path,
    content: report.Report,
    pictures: Sequence[Picture],
    *,
    before: Sequence[str] = (),
    after: Sequence[str] = (),
) -> None:
    """`report.html` and `report.md`."""
    (folder / "report.html").write_text(render(content, pictures, before=before, after=after), encoding="utf-8")
    (folder / "report.md").write_text(report.markdown(content), encoding="utf-8")


def _head(content: report.Report) -> str:
    context = content.rows[0].context if content.rows else report.Context("none", "none", "", None, "", "", "")
    facts = {"teacher": context.teacher, "preset": context.preset, "device": context.device, "commit": context.commit}
    line = " · ".join(f"{name}: <b>{html.escape(value)}</b>" for name, value in facts.items())
    judged = [row for row in content.rows if row.passed is not None]
    failed = content.failures
    verdict = f"{len(judged) - len(failed)} of {len(judged)} bars met."
    if failed:
        verdict += " FAIL: " + ", ".join(failed) + "."
    if content.unjudged:
        count = sum(bool(row.needs) for row in content.rows)
        verdict += f" {count} {'; '.join(content.unjudged)}."
    return (
        f'<h1>sage-distill report</h1>\n<p class="facts">{line}<br><code>{html.escape(context.command)}</code></p>\n'
        f'<p class="verdict {"bad" if failed else "good"}">{html.escape(verdict)}</p>'
    )


def _suite(name: str, rows: Sequence[report.Row]) -> str:
    header = "".join(f"<th>{html.escape(text) or 'verdict'}</th>" for text in report.HEADER) + "<th>note</th>"
    body = "\n".join(map(_row, rows))
    return f'<h2>{html.escape(name)}</h2>\n<div class="scroll"><table><tr>{header}</tr>\n{body}\n</table></div>'


def _row(row: report.Row) -> str:
    *texts, verdict = map(html.escape, report.cells(row))
    filled = "".join(f"<td>{text}</td>" for text in texts)
    style = ' class="empty"' if row.value is None else ""
    note = "; ".join(filter(None, [f"needs {row.needs}" * bool(row.needs), row.note]))
    return (
        f'<tr{style}>{filled}<td class="{verdict[:4].strip()}">{verdict}</td>'
        f'<td class="note">{html.escape(note)}</td></tr>'
    )


def _figure(picture: Picture) -> str:
    data = base64.b64encode(picture.png).decode()
    title, caption = html.escape(picture.title), html.escape(picture.caption)
    image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    return f"<h2>{title}</h2>\n<figure>{image}<figcaption>{caption}</figcaption></figure>"
