"""The data card's counts."""

import json

import pytest

from r1jax.runtime.datacard import family_of, make_card, source_of, write_card


def row(task, language, n_tokens, source='reasoning'):
    return {'task': task, 'language': language, 'source': source, 'n_tokens': n_tokens}


def test_counts_lengths_and_reasons_are_by_family_and_in_all(tmp_path):
    kept = [row('logic', 'en', 10), row('logic', 'en', 30), row('everyday', '', 5, 'general')]
    sampled = ['logic/en'] * 8 + ['logic/zh'] * 2
    dropped = [('logic/en', 'wrong')] * 2 + [('logic/en', 'enough')] * 3 + [('logic/en', 'duplicate'), ('logic/zh', 'wrong'),
               ('logic/zh', 'format')]
    card = make_card({'stage': 'rejection'}, kept, sampled, dropped)
    assert card['stage'] == 'rejection' and card['examples'] == {'all': 3, 'reasoning': 2, 'general': 1}
    assert card['dropped'] == {'wrong': 3, 'enough': 3, 'duplicate': 1, 'format': 1}
    english = card['families']['logic/en']
    assert (english['sampled'], english['kept'], english['acceptance']) == (8, 2, 0.75)  # what is surplus was accepted
    assert english['tokens'] == pytest.approx({'mean': 20, 'p5': 11, 'median': 20, 'p95': 29})
    chinese = card['families']['logic/zh']
    assert (chinese['kept'], chinese['acceptance'], chinese['tokens']) == (0, 0.0, None)
    assert card['families']['everyday'] == {
        'source': 'general', 'sampled': 0, 'kept': 1, 'dropped': {}, 'tokens': {'mean': 5, 'p5': 5, 'median': 5, 'p95': 5},
        'acceptance': None}
    write_card(tmp_path, card)
    assert json.loads((tmp_path / 'card.json').read_text()) == card
    lines = (tmp_path / 'card.md').read_text().splitlines()
    assert '| logic/en | reasoning | 8 | 2 | 0.750 | 11, 20, 29 | enough 3, wrong 2, duplicate 1 |' in lines
    assert '| everyday | general | 0 | 1 | - | 5, 5, 5 | - |' in lines


def test_a_family_without_a_language_is_its_task():
    assert family_of('math', '') == 'math' and family_of('math', 'fr') == 'math/fr'


def test_a_card_names_a_model_of_the_same_run_by_its_place_there(tmp_path):
    folder = tmp_path / 'run' / 'stages' / 'rejection'
    assert source_of(str(tmp_path / 'run' / 'stages' / 'rl' / 'model'), folder) == 'stages/rl/model'
    assert source_of('package:tiny_base', folder) == 'package:tiny_base'
    assert source_of(str(tmp_path / 'other' / 'model'), folder) == str(tmp_path / 'other' / 'model')
