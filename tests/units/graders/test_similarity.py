"""Similarity metrics give the numbers their libraries publish, and hold for any text."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from stillroom.graders import similarity
from stillroom.graders.order import Metric
from stillroom.graders.similarity import TooLong, score, tokens, words

# From the docstrings of nltk.translate (3.10): bleu_score, gleu_score, meteor_score.
GUIDE = "It is a guide to action which ensures that the military always obeys the commands of the party"
TROOPS = "It is to insure the troops forever hearing the activity guidebook that party direct"
FOREVER = "It is a guide to action that ensures that the military will forever heed Party commands"
SYMMETRIC = (
    Metric.FUZZY_MATCH,
    Metric.GLEU,
    Metric.COSINE,
    Metric.ROUGE_1,
    Metric.ROUGE_2,
    Metric.ROUGE_5,
    Metric.ROUGE_L,
)
ROUGE = {
    Metric.ROUGE_1: "rouge1",
    Metric.ROUGE_2: "rouge2",
    Metric.ROUGE_3: "rouge3",
    Metric.ROUGE_4: "rouge4",
    Metric.ROUGE_5: "rouge5",
    Metric.ROUGE_L: "rougeL",
}
ascii_text = st.text(alphabet="abc ABC.,!_12\n", max_size=60)
sentence = st.lists(
    st.sampled_from(["the", "cat", "cats", "sat", "on", "a", "mat", "naïve", "東京", "は", "12", "."]), max_size=12
).map(" ".join)


@pytest.mark.parametrize(
    ("metric", "given_text", "reference", "published"),
    [
        # bleu_score.SmoothingFunction: method1, hypothesis1 against reference1
        (Metric.BLEU, GUIDE, FOREVER, 0.4118),
        # gleu_score.sentence_gleu
        (Metric.GLEU, "the the the the the the the", "the cat is on the mat", 0.0909),
        (Metric.GLEU, GUIDE, FOREVER, 0.4393),
        (Metric.GLEU, TROOPS, FOREVER, 0.1206),
        # meteor_score.single_meteor_score: no pair of words here needs a synonym
        (Metric.METEOR, GUIDE, FOREVER, 0.6944),
        (Metric.METEOR, "non matching hypothesis", "this is a cat", 0.0),
        # rouge_score 0.1.2: rouge_scorer_test.py
        (Metric.ROUGE_1, "testing", "testing one two", 1 / 2),
        (Metric.ROUGE_1, "testing one", "testing one two", 4 / 5),
        (Metric.ROUGE_2, "testing one", "testing one two", 2 / 3),
        (Metric.ROUGE_L, "testing one", "testing one two", 4 / 5),
        (Metric.ROUGE_L, "testing two", "testing one two", 4 / 5),
        (Metric.ROUGE_1, "", "testing one two", 0.0),
        (Metric.ROUGE_L, "text first", "first text", 0.5),
        # RapidFuzz's README: fuzz.ratio
        (Metric.FUZZY_MATCH, "this is a test", "this is a test!", 0.9655),
        (Metric.FUZZY_MATCH, "fuzzy wuzzy was a bear", "wuzzy fuzzy was a bear", 0.9091),
    ],
)
def test_published_numbers_come_out(metric: Metric, given_text: str, reference: str, published: float) -> None:
    assert score(metric, given_text, reference) == pytest.approx(published, abs=1e-4)


@pytest.mark.parametrize("metric", ROUGE)
@settings(max_examples=60, deadline=None)
@given(ours=ascii_text, theirs=ascii_text)
def test_rouge_is_rouge_scores_on_english(metric: Metric, ours: str, theirs: str) -> None:
    if words(ours) and words(theirs):
        expected = RougeScorer([ROUGE[metric]]).score(theirs, ours)[ROUGE[metric]].fmeasure
        assert score(metric, ours, theirs) == pytest.approx(expected)


@pytest.mark.parametrize("metric", Metric)
@settings(max_examples=40, deadline=None)
@given(ours=sentence | st.text(max_size=30), theirs=sentence | st.text(max_size=30))
def test_a_score_is_between_0_and_1_and_equal_texts_are_best(metric: Metric, ours: str, theirs: str) -> None:
    found = score(metric, ours, theirs)
    assert 0.0 <= found <= 1.0
    # Against the reference itself nothing scores better than the reference.
    assert found <= score(metric, theirs, theirs) + 1e-9 or metric in ROUGE or metric is Metric.METEOR
    if metric in SYMMETRIC:
        assert score(metric, theirs, ours) == pytest.approx(found)


@pytest.mark.parametrize("metric", Metric)
@settings(max_examples=40, deadline=None)
@given(text=sentence | st.text(max_size=30))
def test_equal_texts_score_what_the_metric_gives_at_most(metric: Metric, text: str) -> None:
    count = len(tokens(text))
    expected = 1.0
    if words(text) and metric is Metric.METEOR:
        expected = 1 - 0.5 / count**3  # one chunk among so many matches
    elif words(text) and metric in ROUGE and metric is not Metric.ROUGE_L:
        expected = float(len(words(text)) >= int(metric.value[-1]))
    assert score(metric, text, text) == pytest.approx(expected)


@pytest.mark.parametrize("metric", [metric for metric in Metric if metric is not Metric.FUZZY_MATCH])
def test_texts_without_a_common_word_score_0(metric: Metric) -> None:
    assert score(metric, "alpha beta gamma delta epsilon", "one two three four five") == 0.0
    assert score(metric, "東京は暑い", "犬走猫眠鳥") == 0.0


@pytest.mark.parametrize("metric", Metric)
def test_an_empty_text_is_like_an_empty_text_alone(metric: Metric) -> None:
    assert score(metric, "", "") == 1.0
    assert score(metric, "word", "") == 0.0
    assert score(metric, "", "word") == 0.0
    assert score(metric, "!!!", "!!!") == 1.0
    assert score(metric, "!!!", "???") == 0.0


@pytest.mark.parametrize("metric", Metric)
def test_japanese_is_compared_by_its_characters(metric: Metric) -> None:
    reference = "東京は日本の首都であり、人口が最も多い都市です。"
    close = "東京は日本の首都で、人口が最も多い都市です。"
    far = "昨日の夕食はカレーライスを食べました。"
    assert 1 > score(metric, close, reference) > score(metric, far, reference)


def test_one_common_word_does_not_make_unrelated_texts_alike() -> None:
    answer = "The harbour was closed for three days because of the storm in the north."
    assert score(Metric.FUZZY_MATCH, answer, "Pay the invoice by Friday") < 0.5


def test_words_are_split_as_told() -> None:
    assert words("Hello, World! It's fine_x 3.5") == ["hello", "world", "it", "s", "fine", "x", "3", "5"]
    assert words("コーヒーを1杯 Tokyo東京") == ["コ", "ー", "ヒ", "ー", "を", "1", "杯", "tokyo", "東", "京"]
    assert words("नमस्ते दुनिया") == ["नमस्ते", "दुनिया"]
    assert tokens("It's 3.5%") == ["It", "'", "s", "3", ".", "5", "%"]


def test_cosine_counts_words() -> None:
    # (1, 1, 1) and (2, 1, 0): 3 / sqrt(3 * 5)
    assert score(Metric.COSINE, "a b c", "A a, b") == pytest.approx(3 / 15**0.5)


def test_stems_match_in_meteor_and_synonyms_do_not() -> None:
    assert score(Metric.METEOR, "the cats were running", "the cat were run") > 0.9
    assert score(Metric.METEOR, "feline", "cat") == 0.0


@pytest.mark.parametrize("metric", Metric)
def test_long_texts_take_bounded_time_or_are_refused(metric: Metric) -> None:
    limit = similarity.MOST_LETTERS
    long = " ".join(f"w{i * i % 7919}" for i in range(limit))[:limit]
    other = " ".join(f"w{i * 31 % 7907}" for i in range(limit))[: limit // 5]
    began = time.monotonic()
    assert 0 <= score(metric, long, other) < 1
    assert time.monotonic() - began < 20
    with pytest.raises(TooLong, match=f"compares at most {limit:,}"):
        score(metric, long + "x", "short")
    with pytest.raises(TooLong, match="The reference has"):
        score(metric, "short", long + "x")


def test_the_libraries_are_imported_when_they_are_needed() -> None:
    program = (
        "import sys; from stillroom.graders import grade, similarity\n"
        "assert not {'nltk', 'rapidfuzz', 'regex', 'numpy'} & set(sys.modules)\n"
        "similarity.score(similarity.Metric.ROUGE_L, 'a b', 'a c')\n"
        "assert 'rapidfuzz' in sys.modules and 'nltk' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_two_threads_never_compare_and_so_never_import_a_library_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen once: rapidfuzz, imported by two threads at the same moment, was half there for one of them."""
    inside: list[int] = []
    most = 0

    def slow(given: str, reference: str) -> float:
        nonlocal most
        inside.append(1)
        most = max(most, len(inside))
        time.sleep(0.01)
        inside.pop()
        return 1.0

    monkeypatch.setitem(similarity.METRICS, Metric.COSINE, slow)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _: similarity.score(Metric.COSINE, "a", "a"), range(16)))
    assert most == 1
