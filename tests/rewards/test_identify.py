"""Which language each word is in, of languages that share a script."""

import itertools

import numpy as np
import pytest

from r1jax.rewards.identify import EVIDENCE, SWITCH, _scores, _viterbi, identify

FOUR = ('en', 'es', 'fr', 'de')


def test_words_are_told_apart_in_the_order_they_stand_in():
    words = 'we add the numbers sumamos los números que quedan and then we divide them'.split()
    assert identify(words, FOUR).tolist() == [0] * 4 + [1] * 5 + [0] * 5
    assert identify([word.upper() for word in words], FOUR).tolist() == [0] * 4 + [1] * 5 + [0] * 5
    assert identify([], FOUR).tolist() == [] and identify(['sumamos'], ('en',)).tolist() == [0]


@pytest.mark.parametrize('presumed', FOUR)
def test_a_few_words_are_in_the_presumed_language(presumed):
    languages = (presumed, *(language for language in FOUR if language != presumed))
    for words in ('Tom', 'total', 'los', 'Marie Dupont', 'the sum'):
        assert not identify(words.split(), languages).any()
    found = identify('wir ziehen die Äpfel ab die gestern gegessen wurden'.split(), languages)
    assert (found == languages.index('de')).all()


def test_what_a_word_does_not_show_its_neighbours_do():
    words = 'luego Tom Marie come dos manzanas rojas de la cesta then Tom Marie eats two green apples of the basket'.split()
    assert identify(words, FOUR).tolist() == [1] * 10 + [0] * 10


def test_long_texts_are_told_as_well_as_short_ones():
    # float16, as which the table comes, would lose the end of it.
    words = 'we add the numbers and then we divide them by two'.split() * 300 + 'sumamos los números que quedan'.split() * 5
    assert identify(words, FOUR).tolist() == [0] * 3300 + [1] * 25


def test_scores_are_of_the_words_own_letters():
    scores = _scores(['sumamos', 'los', 'números'], ('en', 'es'), ' ')
    assert scores.shape == (3, 2) and (scores[:, 1] > scores[:, 0]).all()
    assert (scores[:, 1] - scores[:, 0]).sum() > EVIDENCE / 2 > SWITCH


def test_characters_of_scripts_without_spaces():
    text = '首先数一数苹果' + 'まずリンゴを数える'
    found = identify(list(text), ('zh', 'ja'), spaced=False).tolist()
    assert found[:6] == [0] * 6 and found[7:] == [1] * 9  # the last one of the first sentence is of either


def test_viterbi_is_the_best_of_all_paths():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores, costs = rng.normal(0, 2, (6, 3)).tolist(), rng.uniform(0, 4, 3).tolist()

        def total(path, scores=scores, costs=costs):
            jumps = [path[0], *(b for a, b in itertools.pairwise(path) if a != b)]
            return sum(scores[i][k] for i, k in enumerate(path)) - sum(costs[k] for k in jumps)

        best = max(itertools.product(range(3), repeat=6), key=total)
        assert _viterbi(scores, costs) == list(best)
