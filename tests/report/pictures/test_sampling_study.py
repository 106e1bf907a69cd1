"""The study's picture: temperatures in order, the human level as a line, every setting named."""

from typing import Any

from report.pictures.sampling_study import SettingPoint, study_figure


def point(name, temperature, repeated, log_p, drift=(-1.0, -2.0, -3.0, -4.0)) -> SettingPoint:
    return SettingPoint(
        name=name,
        temperature=temperature,
        repeated_4=repeated,
        repeated_4_error=0.01,
        log_probability=log_p,
        log_probability_error=0.02,
        log_probability_by_quarter=drift,
    )


SETTINGS = [
    point("T 1", 1.0, 0.05, -3.0),
    point("greedy", 0.0, 0.7, -1.0, None),
    point("top-k 10", None, 0.2, -2.0),
]
PEOPLE = point("people", None, 0.1, -3.1)


def test_temperatures_are_in_order_beside_the_human_level():
    panels: list[Any] = study_figure("x", SETTINGS, PEOPLE).axes
    repeated, likelihood = panels[:2]
    assert repeated.lines[0].get_xydata().tolist() == [[0, 0.7], [1, 0.05]]
    assert likelihood.lines[0].get_xydata().tolist() == [[0, -1.0], [1, -3.0]]
    assert set(repeated.lines[-1].get_ydata()) == {0.1}
    assert set(likelihood.lines[-1].get_ydata()) == {-3.1}


def test_every_setting_is_named_once_in_the_plane():
    plane = study_figure("x", SETTINGS, PEOPLE).axes[2]
    assert sorted(t.get_text() for t in plane.texts) == ["T 1", "greedy", "people", "top-k 10"]
    assert len(plane.collections) == 4


def test_drift_is_of_texts_long_enough_and_there_may_be_no_people():
    drift: Any = study_figure("x", SETTINGS, None).axes[3]
    assert [text.get_text() for text in drift.texts] == ["T 1"]
    assert drift.lines[0].get_ydata().tolist() == [-1, -2, -3, -4]
