"""Counting prose: what counts as a word, a line, a sentence and a phrase."""

from __future__ import annotations

from lab.prose import PHRASES, code_text, prose, sentences, summaries_without_verb, words

PAGE = """# Title

First sentence. Second one,
with `code`.

| a | table |
|---|---|

```
not prose
```

<!-- default: begin -->
generated
<!-- default: end -->

- An item.
"""


def test_a_word_has_a_letter_or_a_digit():
    assert words("| two | words | 0.85 |") == 3


def test_prose_is_outside_of_tables_code_and_generated_parts(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE, encoding="utf-8")
    lines = [line for _, line in prose(page) if line]
    assert lines == ["# Title", "First sentence. Second one,", "with `code`.", "- An item."]
    assert [sentence for sentence in sentences(page) if sentence] == [
        "First sentence.", "Second one, with `code`.", "An item."
    ]  # fmt: skip


def test_phrases_are_whole_words():
    assert PHRASES.search("so that nobody asks")
    assert PHRASES.search("It holds the scans")
    assert not PHRASES.search("alone, households")


def test_docstrings_and_comments_are_text(tmp_path):
    module = tmp_path / "module.py"
    module.write_text(
        '"""A module."""\n\nSIZE = 3  # a comment\n"""Its unit."""\n\n\ndef size():\n    """The size."""\n'
        '    return "no text"\n\n\ndef grow():\n    """Grow the size."""\n',
        encoding="utf-8",
    )
    assert sorted(code_text(module)) == [
        (1, "A module."), (3, "# a comment"), (4, "Its unit."), (8, "The size."), (13, "Grow the size.")
    ]  # fmt: skip
    assert list(summaries_without_verb(module)) == [(7, "The size.")]
