"""The page is one file, escapes what it is given and hides no failure."""

import dataclasses
import html.parser

import numpy as np

from eval import page, report

CONTEXT = report.Context("stand-in", "none", "tiny", 1, "<cpu & co>", "abc", "python -m eval.benchmark --quick")
MISSED = report.Row("vision.student.r2_p10.test", 0.5, "R²", CONTEXT, bar=0.85, note="a <b> & c")
MET = report.Row("vision.student.r2_mean.test", 0.96, "R²", CONTEXT, bar=0.95)
EMPTY = report.Row("speed.teacher_float32_eager.image_tokens_p50", None, "ms", CONTEXT, note="torch is not installed")
PICTURE = page.Picture("Token maps", "left: teacher", b"\x89PNG fake")


def rendered():
    return page.render(report.Report((MET, MISSED, EMPTY), {"jax": "0.10"}), [PICTURE])


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.tags = [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.found += [value for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]


def test_nothing_is_fetched():
    text, links = rendered(), Links()
    links.feed(text)
    assert links.found
    assert all(link.startswith("data:image/png;base64,") for link in links.found)
    assert not {"script", "link", "iframe"} & set(links.tags)
    assert "://" not in text
    assert "@import" not in text


def test_a_missed_bar_is_shown_in_the_row_and_at_the_top():
    text = rendered()
    assert '<td class="FAIL">FAIL</td>' in text
    assert "1 of 2 bars met. FAIL: vision.student.r2_p10.test" in text


def test_a_bar_that_is_not_judged_is_counted_apart_and_its_row_says_what_it_needs():
    row = dataclasses.replace(MISSED, needs=">= 8 tasks")
    text = page.render(report.Report((MET, row), {}), [])
    assert "1 of 1 bars met. 1 not judged: needs &gt;= 8 tasks." in text
    assert '<td class="not">not judged</td><td class="note">needs &gt;= 8 tasks; a &lt;b&gt;' in text
    assert '<p class="verdict good">' in text


def test_text_is_escaped():
    text = rendered()
    assert "a &lt;b&gt; &amp; c" in text
    assert "&lt;cpu &amp; co&gt;" in text


def test_an_empty_cell_stays_empty_and_says_why():
    line = next(line for line in rendered().splitlines() if "image_tokens_p50" in line)
    assert "<td>speed.teacher_float32_eager.image_tokens_p50</td><td></td><td>ms</td>" in line
    assert "torch is not installed" in line


def test_page_is_the_same_for_the_same_report():
    assert rendered() == rendered()
    assert np.frombuffer(rendered().encode(), np.uint8).size < 10_000
