"""A page holds its data as data, runs its own script alone and fetches nothing."""

import base64
import hashlib
import json
import re

from report.pictures.page import page_of


def data_of(page: str):
    (stored,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page)
    return json.loads(stored)


def test_data_comes_back_whatever_its_text_is():
    data = {"token": "</script><script>alert(1)</script>", "other": "<!-- \u2028 é \" \\ & '"}
    page = page_of("a <b> & c", "<p>body</p>", data, "p { color: red }", "show(data);")
    assert data_of(page) == data
    assert page.count("<script") == 2 and "alert(1)</script>" not in page
    assert "<title>a &lt;b&gt; &amp; c</title>" in page


def test_only_the_pages_own_script_may_run_and_nothing_is_fetched():
    page = page_of("x", "<p></p>", [1], "", "show(data);")
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'unsafe-inline'; script-src 'sha256-{digest}'" in page
    assert not re.search(r"(src|href)\s*=|https?://|@import|url\(", page)
