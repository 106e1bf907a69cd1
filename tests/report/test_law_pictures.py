"""Pictures of a fit hold every run, stay well-formed on poor input, and escape their text."""

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from configs.errors import InputError
from planner.coefficients import Coefficients
from planner.fit import fit_parametric
from planner.isoflop import fit_isoflop
from planner.law_file import FitResult
from planner.runs import Runs
from planner.uncertainty import bootstrap
from report.law_pictures import write_pictures

TRUTH = Coefficients(E=1.8, A=300.0, B=500.0, alpha=0.4, beta=0.35)
SVG = "{http://www.w3.org/2000/svg}"


def result_of(budgets=(1e15, 1e16, 1e17), sizes=7, span=5.0, noise=0.002) -> FitResult:
    generator = np.random.default_rng(0)
    flops = np.repeat(budgets, sizes)
    params = TRUTH.frontier(flops)[0] * np.tile(np.geomspace(1 / span, span, sizes), len(budgets))
    tokens = flops / 6 / params
    loss = TRUTH.loss(params, tokens) * np.exp(noise * generator.standard_normal(len(flops)))
    runs = Runs(params=params, tokens=tokens, loss=loss, flops=flops)
    fit = fit_parametric(runs)
    try:
        isoflop = fit_isoflop(runs)
    except InputError:
        isoflop = None
    samples = bootstrap(runs, fit, samples=40)
    return FitResult(runs=runs, fit=fit, samples=samples, isoflop=isoflop, left_out=1)


@pytest.fixture(scope="module")
def result():
    return result_of()


def drawn(result, folder, meaning="matmul parameters"):
    paths = write_pictures(result, folder, params_meaning=meaning)
    return {path.stem: ElementTree.parse(path).getroot() for path in paths}  # noqa: S314  our own


def count(root, name, style):
    return sum(style in part.get("class", "").split() for part in root.iter(SVG + name))


def coordinates(root):
    """Every number a shape is drawn at."""
    for part in root.iter():
        for name in ("x", "y", "x1", "x2", "y1", "y2", "cx", "cy"):
            if name in part.attrib:
                yield float(part.attrib[name])
        for number in re.findall(r"-?[\d.]+|nan|inf", part.get("d", "")):
            yield float(number)


def test_every_run_and_every_minimum_is_drawn(result, tmp_path):
    pictures = drawn(result, tmp_path)
    assert set(pictures) == {"isoflop", "frontier", "residuals"}
    budgets = 3
    # The legend repeats one dot a budget, and one diamond.
    assert count(pictures["isoflop"], "circle", "dot") == len(result.runs) + budgets
    assert count(pictures["isoflop"], "path", "diamond") == budgets + 1
    assert count(pictures["residuals"], "circle", "dot") == len(result.runs) + budgets
    assert count(pictures["frontier"], "path", "band") == 2
    text = "".join(pictures["residuals"].itertext())
    assert f"run {result.goodness.max_run}" in text


def test_everything_lies_inside_the_figure(result, tmp_path):
    for root in drawn(result, tmp_path).values():
        assert (root.get("width"), root.get("height")) == ("800", "480")
        marks = [part for part in root.iter(SVG + "circle")]
        assert all(0 <= float(mark.attrib["cx"]) <= 800 for mark in marks)
        assert all(0 <= float(mark.attrib["cy"]) <= 480 for mark in marks)


def test_without_profiles_an_older_picture_of_them_is_removed(result, tmp_path):
    drawn(result, tmp_path)
    pictures = drawn(replace(result, isoflop=None), tmp_path)
    assert set(pictures) == {"frontier", "residuals"}
    assert not (tmp_path / "isoflop.svg").exists()


@pytest.mark.parametrize(
    "poor",
    [
        {"noise": 0.0},
        {"budgets": (1e15, 1e16), "sizes": 4},
        {"budgets": tuple(np.geomspace(1e14, 1e18, 15)), "sizes": 3},
        {"span": 1.6, "noise": 0.03},
    ],
    ids=["no noise", "few", "many budgets", "noisy"],
)
def test_poor_runs_still_give_finite_pictures(poor, tmp_path):
    for root in drawn(result_of(**poor), tmp_path).values():
        assert all(np.isfinite(number) for number in coordinates(root))


def test_text_is_escaped(result, tmp_path):
    meaning = "<script>alert(1)</script> & more"
    for root in drawn(result, tmp_path, meaning).values():
        assert root.find(f".//{SVG}script") is None
        assert meaning in "".join(root.itertext())
