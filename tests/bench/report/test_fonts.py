"""Labels in scripts that the usual font lacks: another font draws them, or numbers replace them, and one line says so."""

import warnings
from dataclasses import replace

import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text
from synthetic import synthetic

from bench.records import sweep_json
from bench.report import plots
from bench.report.__main__ import main
from bench.report.plots import fonts, style

QUESTION = "中文 question ± 甲?"


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """``installed(characters)`` is a font of this machine, called Square, that has a square for each of them."""
    monkeypatch.setattr(font_manager.fontManager, "ttflist", list(font_manager.fontManager.ttflist))
    fonts._chosen.cache_clear()

    def install(characters):
        pen = TTGlyphPen(None)
        for place, point in enumerate([(0, 0), (0, 700), (700, 700), (700, 0)]):
            (pen.lineTo if place else pen.moveTo)(point)
        pen.closePath()
        made = FontBuilder(1000, isTTF=True)
        made.setupGlyphOrder([".notdef", "square"])
        made.setupCharacterMap({ord(character): "square" for character in characters})
        made.setupGlyf({".notdef": pen.glyph(), "square": pen.glyph()})
        made.setupHorizontalMetrics({".notdef": (800, 0), "square": (800, 0)})
        made.setupHorizontalHeader(ascent=800, descent=-200)
        made.setupNameTable({"familyName": "Square", "styleName": "Regular"})
        made.setupOS2(sTypoAscender=800)
        made.setupPost()
        made.save(tmp_path / "square.ttf")
        font_manager.fontManager.addfont(tmp_path / "square.ttf")

    yield install
    fonts._chosen.cache_clear()


def test_usual_texts_need_no_further_font(installed):
    installed("±中")
    usual = ["Größe ± 3 ≈ ●", "עברית العربية", "\x1b[2J\u202e\n"]
    assert fonts._chosen("".join(usual)) == ((), "") and plots.undrawable(usual) == ""


def test_a_font_that_has_the_characters_draws_them(installed):
    installed("中文")
    assert fonts._chosen(QUESTION) == (("Square",), "甲")
    with fonts.fonts_for([QUESTION]), style.house_style():
        text = Figure().text(0, 0, QUESTION)
    assert text.get_fontfamily()[-1] == "Square" and len(text.get_fontfamily()) == 2
    with fonts.fonts_for(["usual"]), style.house_style():
        assert "Square" not in Figure().text(0, 0, "usual").get_fontfamily()
    assert "has 甲; figures show their numbers, as in [U+7532]" in plots.undrawable([QUESTION])


@pytest.mark.parametrize("characters", ["", "中文甲"])
def test_no_figure_warns_and_one_line_says_what_is_lacking(installed, every_kind, tmp_path, capfd, characters):
    if characters:
        installed(characters)
    made = synthetic(rows=3, seeds=(0, 1), folder=tmp_path)
    sweep = made.sweep._replace(question=QUESTION, axes=tuple(axis._replace(name="甲") for axis in made.sweep.axes[:1]))
    labels = dict(zip(("1", "2", "4"), ("中", "文", "中文")))
    points = [(labels.get(trial.point[0], "甲"), *trial.point[1:]) for trial in made.trials]
    trials = [type(trial)(trial.config, point[:1]) for trial, point in zip(made.trials, points)]
    sweep_json.of(sweep, trials).save(tmp_path)
    for record in made.records.values():
        record.save(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert main([str(tmp_path)]) == 0
    out, err = capfd.readouterr()
    assert not [warning for warning in caught if "Glyph" in str(warning.message)] and not err
    lines = [line for line in out.splitlines() if "no font on this machine has" in line]
    assert len(lines) == (0 if characters else 1)
    assert (tmp_path / "figures" / "axis_甲.pdf").stat().st_size > 0


SCRIPTS = {"CJK": "中文甲", "Arabic": "محول", "Devanagari": "नमस्ते", "emoji": "🙂🚀", "Greek": "κλίση"}


@pytest.mark.parametrize("script", SCRIPTS)
def test_labels_of_every_script_are_drawn_or_replaced_without_a_box(installed, tmp_path, monkeypatch, script):
    """No text of a figure has a character without a glyph, and matplotlib never warns of one."""
    label = SCRIPTS[script]
    made = synthetic(rows=3, seeds=(0, 1), folder=tmp_path)
    labels = dict(zip(("1", "2", "4"), (label, f"{label} 2", f"{label} 3")))
    trials = [type(t)(t.config, (labels.get(t.point[0], t.point[0]), *t.point[1:])) for t in made.trials]
    results = replace(made, sweep=made.sweep._replace(question=label), trials=trials)
    board = results.board()
    texts = plots.texts_of(board)
    families, lacking = fonts._chosen("".join(texts))
    assert set(lacking) <= set(label)
    monkeypatch.setattr(style.warnings, "filterwarnings", lambda *given, **more: None)  # nothing is hidden
    with plots.fonts_for(texts), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        figures = plots.figures(results, board)
        for name, figure in figures.items():
            plots.save(figure, tmp_path / f"{name}.svg")
    assert [str(warning.message) for warning in caught if "Glyph" in str(warning.message)] == []
    for figure in figures.values():
        drawn = [text.get_text() for text in figure.findobj(Text)]
        assert not set("".join(drawn)) & set(lacking)
        assert ("characters that no font on this machine has" in " ".join(drawn)) == bool(lacking)
        if lacking:
            assert any(f"U+{ord(lacking[0]):04X}" in text for text in drawn)


def test_control_characters_are_escaped():
    assert fonts.drawable("a\x1b[2J\u202eb\n") == "a\\x1b[2J\\u202eb\n"
