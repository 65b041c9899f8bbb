"""The tiny world's documents: nothing held out in them, the shares of the recipes, guesses, slips, tags."""

import collections
import itertools
import random
import re

import pytest

from r1jax.data import tinyworld
from r1jax.data.tinyworld import facts, responses
from r1jax.data.tinyworld.problems import arithmetic, split
from r1jax.data.tinyworld.words import NAMES

DOCUMENTS = 20_000
EN_NAMES = [en for en, _ in NAMES]
STRICT = re.compile(r' <think> ((?!</?think>|</?answer>).)+ </think> <answer> [^<>]+ </answer>')
TAG = re.compile('</?(think|answer)')
EQUATION = re.compile(r'(\d+)([-+*])(\d+)=(\d+)')


@pytest.fixture(scope='module', params=['reflective', 'plain'])
def corpus(request):
    rng = random.Random(5)
    recipe = tinyworld.RECIPES[request.param]
    return request.param, recipe, [tinyworld.document_with_problems(rng, recipe) for _ in range(DOCUMENTS)]


def draw(family, kind, count, **more):
    rng = random.Random(f'{family} {kind} {more}')
    return [tinyworld.make_problem(family, rng, kind=kind, **more) for _ in range(count)]


def apply(left, operator, right):
    return {'+': left + right, '-': left - right, '*': left * right}[operator]


def test_no_document_holds_a_test_problem(corpus):
    _, _, documents = corpus
    seen = 0
    for document in documents:
        for problem in document.problems:
            assert problem.split == 'train'
        for text in re.findall(r'(?<![\d*+)x-])\d+(?:[-+*]\d+){2,}(?![\d*])', document.text):
            terms = tuple(
                (-1 if sign == '-' else 1, tuple(map(int, factors.split('*'))))
                for sign, factors in re.findall(r'([-+]?)(\d+(?:\*\d+)*)', text))
            assert split.split_of(arithmetic.key(terms)) == 'train', document.text
            seen += 1
    assert seen > 5000


def test_documents_hold_the_questions_of_their_problems(corpus):
    _, _, documents = corpus
    for document in documents:
        assert document.text == document.text.strip() and len(document.text) <= 700
        if document.kind == 'dialogue':
            problem = document.problems[0]
            start = tinyworld.prompt(problem.question)
            assert start == f'{tinyworld.HEADER}\nUser: {problem.question}\nAssistant:'
            assert document.text.startswith(start + ' ')
        else:
            assert not TAG.search(document.text) and 'Assistant' not in document.text
            for problem in document.problems:
                if problem.family == 'arithmetic':
                    assert arithmetic.expression(problem.content) in document.text
                else:
                    assert problem.question in document.text


def test_worksheets_and_questions_end_in_answers(corpus):
    _, _, documents = corpus
    right = collections.Counter()
    for document in documents:
        if document.kind == 'question_answer':
            assert document.text.endswith(document.problems[0].answer)
        elif document.kind == 'worksheet':
            right.update(
                problem.answer in line
                for problem, line in zip(document.problems, document.text.split('\n'), strict=True))
    assert right[True] > 0.8 * right.total() and right[False] > 0


def test_the_mixture_has_the_shares_of_its_recipe(corpus):
    name, recipe, documents = corpus
    kinds = collections.Counter(document.kind for document in documents)
    for kind, share in recipe.documents:
        assert abs(kinds[kind] / len(documents) - share) < 0.015
    chinese = sum(document.language == 'zh' for document in documents)
    assert abs(chinese / len(documents) - recipe.chinese) < 0.015
    dialogues = [document for document in documents if document.kind == 'dialogue']
    families = collections.Counter(document.problems[0].family for document in dialogues)
    for family, share in recipe.families:
        assert abs(families[family] / len(dialogues) - share) < 0.02
    reasoning = [document for document in dialogues if document.problems[0].family in tinyworld.REASONING]
    forms = collections.Counter(document.response for document in reasoning)
    for form, share in recipe.responses:
        assert abs(forms[form] / len(reasoning) - share) < 0.015
    others = [
        document.response for document in dialogues if document.problems[0].family not in tinyworld.REASONING]
    assert abs(others.count('tagged_thought') / len(others) - 0.15) < 0.04
    assert set(forms) | set(others) == set(tinyworld.RESPONSES)
    assert (forms['tagged_reflection'] > 3 * forms['tagged_steps']) == (name == 'reflective')
    assert (forms['tagged_steps'] > 3 * forms['tagged_reflection']) == (name == 'plain')


def test_tags_are_strict_where_they_should_be_and_nowhere_else(corpus):
    _, _, documents = corpus
    for document in documents:
        if document.kind == 'dialogue':
            text = document.text.removeprefix(tinyworld.prompt(document.problems[0].question))
            assert text.startswith(' ') and not text.startswith('  ') and text == text.rstrip()
            assert bool(STRICT.fullmatch(text)) == document.response.startswith('tagged')
            if document.response in ('bare', 'steps', 'reflection'):
                assert not TAG.search(text)
            if document.response == 'tagged_steps':
                lost = 'not there' in text or '没有' in text  # a carried slip that led to none of the options
                assert lost or not re.search('guess|maybe|let me|我猜|可能|一下', text)


def test_reflection_is_a_guess_then_wait_then_steps():
    text = {}
    for language in ('en', 'zh'):
        rng = random.Random(2)
        recipe = tinyworld.Recipe(
            responses=(('tagged_reflection', 1.0),), slip=0.0, closing=0.0,
            switch_english=0.0, switch_chinese=0.0)
        problem = tinyworld.problem_at('arithmetic', 'train', 1, language=language, kind='sum', difficulty=3)
        text[language] = tinyworld.response(problem, rng, recipe)[1]
        first, second = (step.en for step in problem.steps)
        stop = {'en': r'\. ?', 'zh': '。'}[language]
        guess = {'en': r'(i guess|maybe) \d+', 'zh': r'(我猜|可能是)\d+'}[language]
        steps = (re.escape(first) + stop + re.escape(second) + stop).removesuffix(' ?')
        body = rf'{guess}{stop}[^<>\d]+{steps}'
        assert re.fullmatch(
            rf' <think> {body} </think> <answer> {problem.answer} </answer>', text[language])
        assert tinyworld.count_reflection_words(text[language]) >= 1


def test_vocabulary_is_small_and_both_languages_are_there(corpus):
    _, _, documents = corpus
    text = '\n'.join(document.text for document in documents)
    words, characters = set(re.findall('[A-Za-z]+', text)), set(re.findall('[\u4e00-\u9fff]', text))
    assert 150 < len(words) < 350 and 120 < len(characters) < 350
    marks = set(text) - set(''.join(words)) - characters
    assert marks <= set(' \n0123456789.,:?!+-*=()<>/_。，：？！'), marks


@pytest.mark.parametrize('language', ['en', 'zh'])
def test_facts_are_right(language):
    rng = random.Random(4)
    checked = 0
    for _ in range(2000):
        text = facts.facts(rng, tinyworld.LANGUAGES.index(language), 10, 400)
        assert len(text) <= 400
        for left, operator, right, result in EQUATION.findall(text):
            assert apply(int(left), operator, int(right)) == int(result)
            checked += 1
    assert checked > 5000


def test_facts_about_people_are_right_and_hold_no_held_out_chain():
    place = {en: str(index) for index, en in enumerate(EN_NAMES)}
    rng = random.Random(5)
    lengths, verdicts = collections.Counter(), collections.Counter()
    for _ in range(20_000):
        text = facts.facts(rng, 0, 1, 400)
        told = re.findall(r'(\w+) is (\w+) than (\w+)\.', text)
        if told:
            more = told[0][1] in ('taller', 'older', 'faster')
            below = {a: b for a, _, b in told} if more else {b: a for a, _, b in told}
            chain = [*(set(below) - set(below.values()))]
            while chain[-1] in below:
                chain.append(below[chain[-1]])
            assert len(chain) == len(told) + 1
            key = 'order:' + ','.join([place[name] for name in chain[:3]])
            assert split.split_of(key) == 'train', text
            sign = '>' if more else '<'
            links = dict(re.findall(rf'(\w+) {sign} (\w+)\.', text))
            assert links == {a: b for a, _, b in told} | {chain[-1 if more else 0]: 'none'}
            lengths[len(chain)] += 1
        elif ', says ' in text:
            known, said, judged, follows = text.removesuffix('.').split('. ')
            claim, speaker = said.split(', says ')
            assert judged == f"{claim}: {'true' if claim == known else 'false'}"
            assert follows == f"{speaker} {'is honest' if claim == known else 'lies'}"
            verdicts[follows.partition(' ')[2]] += 1
    assert set(lengths) == {3, 4, 5} and min(lengths.values()) > 400 and min(verdicts.values()) > 400


def test_facts_tell_no_held_out_conversion_of_units():
    rng = random.Random(6)
    told = {tuple(match) for _ in range(20_000)
            for match in re.findall(r'(\d+) \w+ is \d+ \w+\. \1\*(\d+)=', facts.facts(rng, 0, 4, 400))}
    assert len(told) > 10
    assert all(split.split_of(f'expression:{many}*{size}') == 'train' for many, size in told)


def test_the_two_worlds_differ_in_responses_only():
    same = 0
    for index in range(400):
        texts = [tinyworld.document_at(index, recipe=recipe) for recipe in ('reflective', 'plain')]
        starts = [text.partition('Assistant:')[0] for text in texts]
        assert starts[0] == starts[1]
        same += texts[0] == texts[1]
    assert 250 < same < 400


def test_a_recipe_may_be_harder_than_the_default():
    recipe = tinyworld.Recipe(difficulty=(('arithmetic', (7, 8)), ('logic', (6, 7)), ('code', (4, 5))))
    rng = random.Random(9)
    for _ in range(300):
        for problem in tinyworld.document_with_problems(rng, recipe).problems:
            low, high = dict(recipe.difficulty).get(problem.family, tinyworld.DIFFICULTY[problem.family])
            assert low <= problem.difficulty <= high


def test_reflection_words_are_counted_once_each():
    count = tinyworld.count_reflection_words
    assert count('Wait, that is WRONG. but no: check.') == 4
    assert count('the waiter checks a button') == 0
    assert count('等等，不对。重新检查') == 4
    assert count('等等wait') == 2
    assert count('') == 0


# --- guesses, slips, languages ------------------------------------------------------------------------------


@pytest.mark.parametrize('family', tinyworld.REASONING)
def test_guesses_get_worse_with_difficulty_and_are_of_the_right_type(family):
    recipe = tinyworld.RECIPES['reflective']
    rng = random.Random(6)
    low, high = tinyworld.DIFFICULTY[family]
    shares = []
    for difficulty in (low, high, high + 1):
        right = 0
        for problem in draw(family, None, 1500, difficulty=difficulty, language='en'):
            guessed = problem.full(responses.guess(problem, rng, recipe)[0])
            right += guessed == problem.answer
            if problem.kind == 'order':
                assert guessed in problem.question and guessed in EN_NAMES
            elif problem.kind == 'truth':
                assert 0 <= int(guessed) <= difficulty
            elif family == 'arithmetic':
                assert 0 <= int(guessed) <= 99
            elif family == 'choice':
                assert f'({guessed})' in problem.question
        shares.append(right / 1500)
    assert abs(shares[0] - 0.5) < 0.05 and abs(shares[1] - 0.2) < 0.05 and abs(shares[2] - 0.2) < 0.05


@pytest.mark.parametrize('family', tinyworld.REASONING)
def test_slips_have_their_rate_and_the_carried_ones_end_in_a_wrong_answer(family):
    rng = random.Random(7)
    slips, chances, outcomes = collections.Counter(), 0, collections.Counter()
    for problem in draw(family, None, 3000, language='en'):
        pen = tinyworld.Pen(rng, slip=0.1, noticed=0.5)
        answer = problem.full(problem.solve(pen)[0])
        chances += pen.chances
        kinds = [step.slip for step in pen.steps]
        slips.update(kinds)
        if kinds.count('carried') == 1:
            outcomes[answer != problem.answer] += 1
        elif 'carried' not in kinds:
            assert answer == problem.answer
            assert [step for step in pen.steps if not step.slip] == list(problem.steps)
        for step in pen.steps:
            equation = EQUATION.fullmatch(step.en)
            if equation:
                left, operator, right, result = equation.groups()
                assert (apply(int(left), operator, int(right)) == int(result)) == (step.slip == '')
    rate = (slips['noticed'] + slips['carried']) / chances
    assert 0.085 < rate < 0.115
    assert abs(slips['noticed'] / (slips['noticed'] + slips['carried']) - 0.5) < 0.07
    assert outcomes[True] > 0.8 * outcomes.total()


def test_a_noticed_slip_is_followed_by_the_right_step():
    problem = tinyworld.problem_at('arithmetic', 'train', 0, language='en', kind='sum', difficulty=3)
    recipe = tinyworld.Recipe(responses=(('steps', 1.0),), slip=1.0, noticed=1.0, switch_english=0.0)
    text = tinyworld.response(problem, random.Random(1), recipe)[1]
    first, second = (re.escape(step.en) for step in problem.steps)
    notice = r'wait, that is (?:wrong|a mistake)\.'
    steps = rf' \S+=\d+\. {notice} {first}\. \S+=\d+\. {notice} {second}\.'
    assert re.fullmatch(rf'{steps} so the answer is {problem.answer}\.', text)


@pytest.mark.parametrize('language, share', [('en', 0.04), ('zh', 0.45)])
def test_some_worked_responses_change_language_and_still_end_right(language, share):
    recipe = tinyworld.Recipe(responses=(('tagged_reflection', 1.0),), slip=0.0)
    rng = random.Random(8)
    ending = 'so the answer is' if language == 'zh' else '所以答案是'
    switched = 0
    drawn = [draw(family, None, 2000, language=language) for family in ('arithmetic', 'logic')]
    for problem in itertools.chain(*drawn):
        text = tinyworld.response(problem, rng, recipe)[1]
        assert text.endswith(f' <answer> {problem.answer} </answer>')
        thought = text.removeprefix(' <think>').partition('</think>')[0]
        closing = f'{ending} {problem.answer}.' if language == 'zh' else f'{ending}{problem.answer}。'
        assert ending not in thought or thought.endswith(closing + ' ')
        other = re.search('[a-z]' if language == 'zh' else '[\u4e00-\u9fff]', thought)
        assert bool(other) == (ending in text)
        switched += bool(other)
    assert abs(switched / 4000 - share) < 0.025
