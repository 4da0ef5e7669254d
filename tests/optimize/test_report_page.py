from __future__ import annotations

import json
import math
import re
from html.parser import HTMLParser

import pytest
from report_sample import bare_report, comparison, sample_report, size_report

from taut.errors import ArtefactError
from taut.optimize._report import (
    LARGEST_PAGE_BYTES,
    Candidate,
    Layer,
    ModelSummary,
    OperatorTime,
    Quality,
    Recipe,
    RecipeStep,
    Report,
    render_report,
)

VOID = {"meta", "link", "br", "col"}
LEAVES = {"path", "rect"}
BLOCKS = {"dt", "dd", "td", "th", "p", "li", "h1", "h2", "h3", "div", "span", "caption", "small"}
HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</style><script>alert(1)</script>",
    "<!-- --><![CDATA[ ]]>",
    "{{ 7 * 7 }}{% raw %}{{ report }}",
    "javascript:alert(1)",
    "https://example.invalid/beacon",
    "\u202egnp.exe\u202c",
    "nul\x00bell\x07escape\x1b[31m",
    "&lt;b&gt; & &amp;",
    "\U0001f600" * 50,
    "module." * 400,
]


class Page(HTMLParser):
    """Checks nesting, and gathers text, elements and attributes."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(source)
        self.close()
        assert self.open == [], f"never closed: {self.open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        assert len(attrs) == len(dict(attrs)), f"an attribute twice in <{tag}>"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        assert tag in LEAVES, f"<{tag}/> is not closed in HTML"
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open, f"</{tag}> closes nothing"
        assert self.open.pop() == tag
        if tag in BLOCKS:
            self.text += " "

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.text += data

    def words(self) -> str:
        return " ".join(self.text.split())

    def tags(self) -> set[str]:
        return {tag for tag, _ in self.elements}


def hostile_report(text: str, *, candidates: int = 8, operators: int = 8) -> Report:
    return bare_report(
        created=text,
        status="partial",
        partial_reason=text,
        model=ModelSummary(name=text, source=text),
        goal=text,
        warnings=(text,) * 8,
        candidates=tuple(
            Candidate(
                name=text,
                title=text,
                options={text: [text, {text: text}]},
                on_top_of=(text, text),
                status="kept",
                reason=text,
                predicted=1e300,
                comparison=comparison(1e-300, 1e-305, 1e300, "faster").model_copy(update={"clock": text}),
                quality=Quality(baseline=-1e300, candidate=1e-300, change=None, within_limit=False),
                change_summary=text,
            )
            for _ in range(candidates)
        ),
        operators=tuple(
            OperatorTime(module_path=text, op=text, before_seconds=1e308, after_seconds=5e-324)
            for _ in range(operators)
        ),
        layers=tuple(
            Layer(
                path=text,
                kind=text,
                format=text,
                runs="kernel",
                elements=0,
                bytes_before=2**62,
                bytes_after=0,
                sqnr_db=-1e300,
                error=1e300,
            )
            for _ in range(operators)
        ),
        host={text: {"x" + text: text}},
        quietness={text: text},
        recipe=Recipe(steps=(RecipeStep(name=text, options={text: text}),), command=text),
    )


@pytest.fixture(scope="module")
def sample() -> Page:
    return Page(render_report(sample_report()))


def test_headline_names_speed_interval_quality_and_size(sample: Page):
    words = sample.words()
    assert "1.92× faster end to end" in words
    assert "95 % interval of the speed-up measured 1.86× to 1.98×" in words
    assert "against the best eager setting; 48 pairs, wall clock" in words
    assert "12.3 ms → 6.41 ms" in words
    assert "0.8203 → 0.8189 change −0.0035 to +0.0006 (95 % interval), higher is better" in words
    assert "90.9 MB → 58.9 MB" in words


def test_the_size_goal_leads_with_bytes_and_still_says_that_it_is_slower():
    words = Page(render_report(size_report())).words()
    assert "35.2 % smaller" in words
    assert "90,852,864 bytes of parameters and buffers became 58,912,000." in words
    assert words.index("90.9 MB → 58.9 MB") < words.index("0.790× to 0.810×")
    assert "taut quantize" in words
    grown = Page(render_report(size_report(size_bytes={"before": 100, "after": 101}))).words()
    assert "Not smaller" in grown


def test_every_weight_is_listed_with_bits_and_error():
    words = Page(render_report(size_report())).words()
    assert (
        "linear encoder.layer.0.attention.self.query before 590 kB after 79.9 kB vsq4-v16-s4 kernel 4.33 21.30" in words
    )
    assert "embedding embeddings.word_embeddings before 46.9 MB after 46.9 MB float32 unchanged 32.00 – –" in words
    assert "0.000031" in words
    assert "How each weight is stored" not in Page(render_report(sample_report())).words()


def test_every_candidate_appears_with_its_decision_and_reason(sample: Page):
    words = sample.words()
    decisions = {"kept": "Kept.", "rejected": "Rejected.", "peer": "Peer.", "not_applicable": "Not applicable."}
    for candidate in sample_report().candidates:
        assert f"{decisions.get(candidate.status, 'Not tried.')} {candidate.reason}" in words
        assert candidate.title in words


def test_measured_and_modelled_never_share_a_column():
    page = render_report(sample_report())
    columns = re.findall(r'<th scope="col"[^>]*>.*?</th>', page)
    assert any(">modelled<" in column for column in columns)
    assert not any(">modelled<" in column and ">measured<" in column for column in columns)
    labels = set(re.findall(r'data-label="([^"]*)"', page))
    assert {"Predicted (modelled)", "Speed-up (measured)", "Quality (measured)"} <= labels


def test_host_settings_and_recipe_are_there_to_replay(sample: Page):
    words = sample.words()
    for expected in (
        "AMD EPYC 9R45, Zen 5",
        "avx2, avx512f, avx512_vnni, avx512_bf16",
        "versions.torch 2.13.0+cpu",
        "1379 samples in 87 batches",
        "--recipe recipe.yaml",
        "activation=per_token",
        "at most 0.5 % of the baseline worse",
        "300 s, 287 s spent",
    ):
        assert expected in words


def test_page_is_static_accessible_and_asks_for_nothing(sample: Page):
    assert sample.tags().isdisjoint({"script", "img", "iframe", "object", "embed", "form", "base", "a"})
    for tag, attributes in sample.elements:
        assert not any(name.startswith("on") or name in {"src", "style", "xlink:href"} for name in attributes)
        if "href" in attributes:
            assert (tag, attributes["href"]) == ("link", "data:,")
    page = render_report(sample_report())
    assert not re.search(r"https?:|//[a-z]|url\(|@import|@font-face", page)
    assert "default-src 'none'" in page
    tables = page.split("<table")[1:]
    assert all("<caption>" in table and 'scope="col"' in table for table in tables)
    assert ("html", {"lang": "en"}) in sample.elements


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
    channels = [int(digits[place : place + 2], 16) / 255 for place in (0, 2, 4)]
    linear = [value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4 for value in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("scheme", [0, 1], ids=["light", "dark"])
def test_colours_have_the_contrast_that_wcag_asks_for(scheme: int):
    block = re.findall(r":root \{(.*?)\}", render_report(bare_report()), re.DOTALL)[scheme]
    colours = dict(re.findall(r"--([\w-]+): (#\w+);", block))

    def contrast(one: str, other: str) -> float:
        dark, light = sorted((luminance(colours[one]), luminance(colours[other])))
        return (light + 0.05) / (dark + 0.05)

    for background in ("page", "raised"):
        for text in ("text", "muted", "faster", "slower", "none"):
            assert contrast(text, background) >= 4.5, (text, background)
    for bar in ("before", "after", "warn-line"):
        assert contrast(bar, "page") >= 3, bar
    assert contrast("text", "warn-page") >= 4.5


def test_page_has_one_top_heading_and_unique_ids(sample: Page):
    identifiers = [attributes["id"] for _, attributes in sample.elements if "id" in attributes]
    assert len(identifiers) == len(set(identifiers))
    assert [tag for tag, _ in sample.elements].count("h1") == 1


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_hostile_text_changes_no_element_and_stays_readable(text: str):
    source = render_report(hostile_report(text))
    page = Page(source)
    harmless = Page(render_report(hostile_report("harmless")))
    assert page.elements[0:3] == harmless.elements[0:3]
    assert [tag for tag, _ in page.elements] == [tag for tag, _ in harmless.elements]
    assert [sorted(attributes) for _, attributes in page.elements] == [
        sorted(attributes) for _, attributes in harmless.elements
    ]
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069]", source)
    shown = re.sub("[\x00-\x1f\u202a-\u202e]", "\ufffd", text)[:1000]
    assert shown[:900] in page.text


def test_partial_report_says_so_first():
    words = Page(render_report(sample_report(status="partial", partial_reason="Interrupted after 83 s."))).words()
    assert "Partial report. Interrupted after 83 s." in words
    assert words.index("Partial report.") < words.index("Kept: Thread count")
    assert "Partial report." not in Page(render_report(sample_report())).words()


def test_nothing_paid_is_a_proper_outcome():
    turned_down = tuple(candidate.model_copy(update={"status": "rejected"}) for candidate in sample_report().candidates)
    words = Page(render_report(sample_report(candidates=turned_down, headline=None, recipe=Recipe()))).words()
    assert "Nothing paid on this host" in words
    assert "8 candidates measured; none was kept. The bundle holds the model unchanged." in words
    assert "The recipe is empty" in words


@pytest.mark.parametrize(
    ("ratio", "low", "high", "verdict", "title"),
    [
        (1.004, 0.997, 1.011, "no evidence", "1.004×: no evidence of a speed-up"),
        (0.5, 0.4, 0.6, "slower", "0.50× the speed of the baseline: slower"),
        (1.006, 1.001, 1.012, "faster", "1.006× faster end to end"),
    ],
)
def test_headline_claims_no_more_than_its_verdict(ratio, low, high, verdict, title):
    words = Page(render_report(sample_report(headline=comparison(ratio, low, high, verdict)))).words()
    assert title in words
    assert f"{low:.3f}×" in words or f"{low:.2f}×" in words


@pytest.mark.parametrize("status", ["complete", "partial"])
def test_a_report_with_nothing_optional_still_renders(status: str):
    page = Page(render_report(bare_report(status=status)))
    assert "No baseline was measured." in page.words()
    assert "None" not in page.words().replace("None was", "")


def test_page_stays_small_with_many_candidates_and_operators():
    one = sample_report().candidates[1]
    report = sample_report(
        candidates=tuple(one.model_copy(update={"title": f"technique {index}"}) for index in range(60)),
        operators=tuple(
            OperatorTime(module_path=f"encoder.layer.{index}.output.dense", op="linear", before_seconds=1e-3 * index)
            for index in range(400)
        ),
    )
    source = render_report(report)
    words = Page(source).words()
    assert len(source.encode()) < LARGEST_PAGE_BYTES
    assert all(f"technique {index}" in words for index in range(60))
    assert "The 20 most expensive of 400 operators" in words
    assert "encoder.layer.399.output.dense" in words
    assert "encoder.layer.379.output.dense" not in words
    assert f"380 other operators {sum(range(380)) / 1000:.1f} s" in words


@pytest.mark.parametrize("character", ["&", '"', "\U0001f600", "x"])
def test_page_stays_small_whatever_the_file_holds(character: str):
    report = hostile_report(character * 3000, candidates=300, operators=300)
    source = render_report(report)
    assert len(source.encode()) < LARGEST_PAGE_BYTES
    words = Page(source).words()
    assert "300 candidates;" in words
    assert re.search(r"2[248]0 more in report\.json", words)


def test_render_accepts_the_stored_mapping_and_refuses_another():
    report = sample_report()
    assert render_report(json.loads(report.to_json())) == render_report(report)
    with pytest.raises(ArtefactError, match="taut_version"):
        render_report({"format_version": 1})
    with pytest.raises(ArtefactError, match="not plain JSON"):
        render_report({"format_version": 1, "created": {1, 2}})
    with pytest.raises(ArtefactError, match="max_drop"):
        render_report(json.loads(report.to_json()) | {"max_drop": math.nan})


def test_scatter_puts_a_right_prediction_on_the_diagonal_and_a_better_result_above_it():
    one = sample_report().candidates[0]
    frame = one.model_copy(update={"predicted": 4.0, "comparison": comparison(0.25, 0.25, 0.25, "slower")})

    def height_above_diagonal(predicted: float, measured: float) -> float:
        point = one.model_copy(
            update={"predicted": predicted, "comparison": comparison(measured, measured, measured, "no evidence")}
        )
        page = render_report(sample_report(candidates=(point, frame)))
        marker = re.search(r'class="marker no-evidence" d="M([\d.]+) ([\d.]+)a4 4', page)
        diagonal = re.search(r'class="diagonal" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', page)
        assert marker is not None
        assert diagonal is not None
        left, y_left, right, y_right = map(float, diagonal.groups())
        x, y = float(marker[1]) + 4, float(marker[2])
        return y_left + (y_right - y_left) * (x - left) / (right - left) - y

    for value in (0.5, 1.0, 2.0, 3.0):
        assert height_above_diagonal(value, value) == pytest.approx(0, abs=0.2)
    assert height_above_diagonal(2.0, 3.0) > 5
    assert height_above_diagonal(2.0, 1.5) < -5
