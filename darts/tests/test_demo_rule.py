import numpy as np

from darts.demo import Rule, RuleScene, apply_rule, tune_rule


def plain_scene() -> RuleScene:
    """A bare, steep slump of 100 pixels, a bare flat patch of 100, and a bare steep one of 36."""
    ndvi, slope, truth = np.full((60, 60), 0.7), np.full((60, 60), 1.0), np.zeros((60, 60), "int32")
    for place in (np.s_[5:15, 5:15], np.s_[30:40, 5:15], np.s_[30:36, 40:46]):
        ndvi[place] = 0.15
    slope[:20] = 10.0
    slope[30:36, 40:46] = 10.0
    truth[5:15, 5:15] = 1
    full, none = np.ones((60, 60), bool), np.zeros((60, 60), bool)
    return RuleScene(ndvi, slope, np.full((60, 60), 5), full, truth, none, none)


def test_the_grid_search_finds_thresholds_sign_and_size() -> None:
    rule, score = tune_rule([plain_scene()])
    assert score.f1 == 1
    assert rule.ndvi_below
    assert rule.slope_above
    assert 0.15 < rule.ndvi < 0.7
    assert 1 <= rule.slope < 10
    assert 36 < rule.min_size_px <= 100


def test_the_rule_leaves_out_what_cannot_be_seen() -> None:
    scene = plain_scene()
    rule = Rule(ndvi=0.3, slope=4.0)
    assert set(np.unique(apply_rule(scene.ndvi, scene.slope, scene.scl, scene.extent, rule))) == {0, 1, 2}
    scl = scene.scl.copy()
    scl[:20] = 9
    assert apply_rule(scene.ndvi, scene.slope, scl, scene.extent, rule)[:20].max() == 0
    assert apply_rule(scene.ndvi, scene.slope, scene.scl, ~scene.extent, rule).max() == 0


def test_missing_values_are_no_slump() -> None:
    scene = plain_scene()
    ndvi = np.full(scene.ndvi.shape, np.nan)
    assert apply_rule(ndvi, scene.slope, scene.scl, scene.extent, Rule(ndvi=0.3, slope=4.0)).max() == 0
