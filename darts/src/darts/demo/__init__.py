"""The demo: a synthetic Arctic landscape with thaw slumps, its files, and how well they were found."""

from darts.demo.bundled import bundled_models, peel_model
from darts.demo.landscape import Landscape, generate_landscape
from darts.demo.rule import RULE, Rule, apply_rule
from darts.demo.rule_search import RuleScene, tune_rule
from darts.demo.score import DemoScore, edge_zone, rasterize_truth, score_demo, score_objects, score_pixels
from darts.demo.write import demo_paths, load_demo_tile, write_demo_data

__all__ = [
    "RULE",
    "DemoScore",
    "Landscape",
    "Rule",
    "RuleScene",
    "apply_rule",
    "bundled_models",
    "demo_paths",
    "edge_zone",
    "generate_landscape",
    "load_demo_tile",
    "peel_model",
    "rasterize_truth",
    "score_demo",
    "score_objects",
    "score_pixels",
    "tune_rule",
    "write_demo_data",
]
