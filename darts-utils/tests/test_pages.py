import json
import re

import pytest

from darts_utils.pages import fill_template, render_page

HOSTILE = "</script><script>{{data}}<!-- &amp;"


def page(**parts):
    empty = {"title": "", "facts": "", "style": "", "body": "", "data": None, "script": ""}
    return render_page(**(empty | parts))


def test_parts_are_not_taken_for_the_names_of_others():
    assert fill_template("{{a}} and {{b}}", {"a": "{{b}}", "b": "2"}) == "{{b}} and 2"


def test_a_part_that_nobody_gives_is_an_error():
    with pytest.raises(KeyError, match="b"):
        fill_template("{{b}}", {"a": ""})


def test_titles_and_facts_are_text():
    made = page(title=HOSTILE, facts=HOSTILE)
    assert HOSTILE not in made
    assert made.count("&lt;/script&gt;&lt;script&gt;{{data}}&lt;!-- &amp;amp;") == 3


def test_data_comes_back_and_cannot_end_its_element():
    data = {"text": HOSTILE, "numbers": [1, 2.5]}
    found = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page(data=data), re.DOTALL)
    assert [json.loads(text) for text in found] == [data]


def test_numbers_that_json_does_not_have_are_refused():
    with pytest.raises(ValueError, match="JSON"):
        page(data=[float("nan")])


def test_a_page_may_load_nothing():
    assert "default-src 'none'" in page()
