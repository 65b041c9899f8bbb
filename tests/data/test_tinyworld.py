"""The tiny world's problems: every solution checked by an independent solver, clean splits, fixed text."""

import collections
import hashlib
import itertools
import random
import re

import pytest

from r1jax.data import tinyworld
from r1jax.data.tinyworld import problems
from r1jax.data.tinyworld.problems import logic, split, translation
from r1jax.data.tinyworld.words import NAMES
from r1jax.errors import UserError

EN_NAMES = [en for en, _ in NAMES]
KINDS = [(family, kind) for family, kinds in problems.KINDS.items() for kind in kinds]
EQUATION = re.compile(r'(\d+)([-+*])(\d+)=(\d+)')


def draw(family, kind, count, **more):
    rng = random.Random(f'{family} {kind} {more}')
    return [tinyworld.make_problem(family, rng, kind=kind, **more) for _ in range(count)]


def difficulties(family, kind):
    low, high = tinyworld.DIFFICULTY[family]
    harder = min(high + 2, tinyworld.LIMITS[family][1])
    return range(low, harder + 1)


def levels(family, kind):
    """Problems of every default difficulty and of two beyond."""
    for difficulty in difficulties(family, kind):
        yield from draw(family, kind, 60, difficulty=difficulty, language='en')


def apply(left, operator, right):
    return {'+': left + right, '-': left - right, '*': left * right}[operator]


# --- the solutions ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('family, kind', [(f, k) for f, k in KINDS if f in ('arithmetic', 'choice')])
def test_every_equation_is_right_and_uses_only_what_is_written(family, kind):
    sizes = {10, 24, 7, 12}  # of the units
    for problem in levels(family, kind):
        expression = problem.key.removeprefix('expression:').replace('|', '+').replace('+-', '-')
        known = collections.Counter(map(int, re.findall(r'\d+', re.split(r' \d+ \(A\)', problem.question)[0])))
        if kind == 'unit':
            known.update(sizes)
        steps = [step.en for step in problem.steps]
        equations = [EQUATION.fullmatch(step) for step in steps if '=' in step]
        assert len(equations) == len(re.findall(r'[-+*]', expression))
        for equation in equations:
            left, operator, right, result = equation.groups()
            assert apply(int(left), operator, int(right)) == int(result)
            known.subtract([int(left), int(right)])
            assert known[int(left)] >= 0 and known[int(right)] >= 0, (problem.question, steps)
            known.update([int(result)])
        assert int(result) == eval(expression)
        assert all(0 <= int(equation[4]) <= 99 for equation in equations)
        if family == 'arithmetic':
            assert expression in problem.question
            assert problem.answer == result
            assert len(re.findall(r'\d+', expression)) == problem.difficulty
            assert expression.count('*') == (kind == 'product')
        else:
            assert len(problem.options) == len(set(problem.options)) == problem.difficulty
            assert problem.options['ABCDEFGHIJKL'.index(problem.answer)] == result
            assert steps[-1] == f'{result} ({problem.answer})'
            for letter, option in zip('ABCDEFGHIJKL', problem.options, strict=False):
                assert f' {option} ({letter})' in problem.question and 0 <= int(option) <= 99


def test_arithmetic_running_totals_from_left_to_right_stay_within_two_digits():
    for problem in itertools.chain(levels('arithmetic', 'sum'), levels('arithmetic', 'product')):
        total = 0
        for sign, factors in problem.content:
            total += sign * (factors[0] if len(factors) == 1 else factors[0] * factors[1])
            assert 0 <= total <= 99
            assert 1 <= min(factors) and max(factors) <= (99 if len(factors) == 1 else 9)


def test_the_right_option_stands_everywhere_equally_often():
    count = collections.Counter(
        problem.answer for kind in ('unit', 'quantity')
        for problem in draw('choice', kind, 1500, difficulty=4))
    assert set(count) == set('ABCD') and min(count.values()) > 650


def test_order_is_the_only_order_that_fits_the_facts():
    words = {}
    for more, less, most, least, second in (
            ('taller', 'shorter', 'tallest', 'shortest', 'second tallest'),
            ('older', 'younger', 'oldest', 'youngest', 'second oldest'),
            ('faster', 'slower', 'fastest', 'slowest', 'second fastest')):
        words |= {more: 1, less: -1, most: 0, least: -1, second: 1}
    for problem in levels('logic', 'order'):
        *told, asked = problem.question.split('. ')
        pairs = []
        for fact in told:
            first, word, second = re.fullmatch(r'(\w+) is (\w+) than (\w+)', fact).groups()
            pairs.append((first, second) if words[word] > 0 else (second, first))
        people = {person for pair in pairs for person in pair}
        assert len(people) == problem.difficulty and len(pairs) == problem.difficulty - 1
        fitting = [
            order for order in itertools.permutations(people)
            if all(order.index(more) < order.index(less) for more, less in pairs)
        ]
        place = words[re.fullmatch(r'who is (.+)\?', asked)[1]]
        assert [order[place] for order in fitting] == [problem.answer]
        # The walk goes on from the person reached, in the direction in which all is told.
        links = [re.fullmatch(r'(\w+) ([<>]) (\w+)', step.en).groups() for step in problem.steps]
        assert {sign for _, sign, _ in links} == {'>' if place == -1 else '<'}
        told_pairs = [re.fullmatch(r'(\w+) is \w+ than (\w+)', fact).groups() for fact in told]
        assert all((first, second) in told_pairs for first, _, second in links[:-1])
        assert links[-1][2] == 'none' and links[0][::2] == told_pairs[0]
        assert all(reached == start for (_, _, reached), (start, _, _) in itertools.pairwise(links))


def test_chinese_order_is_what_the_facts_say():
    for problem in draw('logic', 'order', 300, language='zh'):
        told = re.findall(r'(阿.)比(阿.)(.)。', problem.question)
        pairs = [(a, b) if word in '高大快' else (b, a) for a, b, word in told]
        ask, word = re.search('谁(最|第二)(.)？', problem.question).groups()
        fitting = [
            order for order in itertools.permutations({person for pair in pairs for person in pair})
            if all(order.index(a) < order.index(b) for a, b in pairs)]
        place = 1 if ask == '第二' else 0 if word in '高大快' else -1
        assert [order[place] for order in fitting] == [problem.answer]


def test_chinese_truth_is_what_is_said():
    for problem in draw('logic', 'truth', 300, language='zh'):
        *sentences, _ = problem.question.split('。')
        lies = {}
        for sentence in sentences:
            said, _, speaker = sentence.partition('，')
            person, accused = re.fullmatch('(阿.)(说谎|诚实)', said).groups()
            if speaker:
                lies[speaker.removesuffix('说')] = lies[person] != (accused == '说谎')
            else:
                lies[person] = accused == '说谎'
        assert str(sum(lies.values())) == problem.answer


def test_truth_has_one_solution():
    for problem in levels('logic', 'truth'):
        sentences = problem.question.removesuffix(' how many lie?').removesuffix('.').split('. ')
        facts_, claims = {}, []
        for sentence in sentences:
            said, _, speaker = sentence.partition(', says ')
            person, lies = re.fullmatch(r'(\w+) (lies|is honest)', said).groups()
            if speaker:
                claims.append((speaker, person, lies == 'lies'))
            else:
                facts_[person] = lies == 'lies'
        people = sorted({name for name in re.findall(r'\w+', problem.question) if name in EN_NAMES})
        assert len(people) == len(sentences) == problem.difficulty
        fitting = []
        for lies in itertools.product((False, True), repeat=len(people)):
            world = dict(zip(people, lies, strict=False))
            if all(world[who] == fact for who, fact in facts_.items()) and all(
                    world[speaker] == (world[person] != claim) for speaker, person, claim in claims):
                fitting.append(world)
        assert [str(sum(world.values())) for world in fitting] == [problem.answer]
        for step in problem.steps:
            told = re.fullmatch(r'(\w+) (lies|is honest): (\d)', step.en)
            assert told is None or fitting[0][told[1]] == (told[2] == 'lies')
        assert problem.steps[-1].en.endswith(f': {problem.answer}')


def test_code_answers_pass_their_tests_and_mean_what_was_asked():
    for problem in levels('code', 'function'):
        scope = {}
        exec(f'{problem.answer}\n{problem.tests}', scope)
        assert problem.tests.count('assert') >= 3
        for x in (-3, 0, 4, 11):
            value = x
            for word, number in re.findall(r'(add|subtract|multiply)(?: x)?(?: by)? (\d)', problem.question):
                value = apply(value, {'add': '+', 'subtract': '-', 'multiply': '*'}[word], int(number))
            assert scope['f'](x) == value
        assert len(problem.steps) == problem.difficulty
        assert problem.answer == f'def f(x): return {problem.steps[-1].en}'
        with pytest.raises(AssertionError):
            exec(f'{problem.full(problem.miss(random.Random(1))[0])}\n{problem.tests}', {})


def test_translations_are_those_of_their_words():
    for problem in levels('translation', 'sentence'):
        assert ''.join(step.en.split(': ')[1] for step in problem.steps) == problem.answer
        english = problem.question.split(': ')[1]
        words = [word for step in problem.steps for word in step.en.split(': ')[0].split()]
        assert sorted(english.split()) == sorted(['the', *words])
        assert len(problem.steps) == problem.difficulty


def test_translation_keeps_the_word_order_of_each_language():
    english, chinese = translation.sentence(((3, 0), 0, 0, 0, 0))
    assert english == 'the big red cat sleeps at home today' and chinese == '今天大的红色的猫在家睡觉'


def test_everyday_talk_has_no_gold_answer_and_an_honest_self_description():
    for kind in ('greeting', 'self', 'advice', 'thanks', 'request'):
        for problem in levels('everyday', kind):
            assert problem.answer == '' and problem.steps == ()
    rng = random.Random(3)
    for problem in draw('everyday', 'self', 300):
        text = tinyworld.response(problem, rng, tinyworld.RECIPES['plain'])[1]
        assert not re.search(r'human|person|gpt|claude|deepseek|qwen|llama|gemini', text)


@pytest.mark.parametrize('family, kind', KINDS)
def test_both_languages_ask_the_same_problem(family, kind):
    for seed in range(40):
        en, zh = (tinyworld.make_problem(family, random.Random(seed), kind=kind, language=language)
                  for language in ('en', 'zh'))
        assert en.key == zh.key and en.content == zh.content and en.split == zh.split
        assert not re.search('[\u4e00-\u9fff]', en.question) and re.search('[\u4e00-\u9fff]', zh.question)
        assert len(en.steps) == len(zh.steps)
        if family == 'logic' and kind == 'order':
            assert dict(NAMES)[en.answer] == zh.answer
        elif family in ('arithmetic', 'choice', 'code', 'logic'):
            assert en.answer == zh.answer
        elif family == 'translation':
            assert en.question.endswith(zh.answer) and zh.question.endswith(en.answer)


# --- the split ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize('family, kind', KINDS)
def test_each_split_has_problems_of_every_difficulty_and_none_is_in_both(family, kind):
    keys = {}
    for name in ('train', 'test'):
        keys[name] = set()
        for difficulty in difficulties(family, kind):
            for problem in draw(family, kind, 40, split=name, difficulty=difficulty):
                assert problem.split == name and problem.difficulty == difficulty
                keys[name].add(problem.key)
    assert not keys['train'] & keys['test']


def test_a_fifth_is_held_out():
    for family in ('arithmetic', 'logic', 'choice'):
        drawn = draw(family, None, 4000)
        assert 0.17 < sum(problem.split == 'test' for problem in drawn) / len(drawn) < 0.23


def test_the_key_ignores_the_order_of_facts_and_options_and_the_wording():
    seen = collections.defaultdict(set)
    for problem in draw('logic', None, 3000, difficulty=3) + draw('choice', 'unit', 3000, difficulty=4):
        seen[problem.key].add(problem.question)
    repeated = [questions for questions in seen.values() if len(questions) > 1]
    assert len(repeated) > 300


@pytest.mark.parametrize('family', ['arithmetic', 'logic', 'code'])
def test_a_longer_problem_is_on_the_side_of_the_problem_it_begins_with(family):
    for problem in draw(family, None, 500, difficulty=5):
        kind = problems.KINDS[family][problem.kind]
        if problem.kind == 'order':
            relation, path, told, asked = problem.content
            begin = (relation, path[:3] if asked == logic.LEAST else path[-3:], told, asked)
        elif problem.kind == 'truth':
            begin = (problem.content[0][:3], problem.content[1][:3])
        elif family == 'code':
            begin = problem.content[:2]
        else:
            begin = problem.content[:2 if any(len(factors) == 2 for _, factors in problem.content[:2]) else 3]
        assert split.split_of(kind.key(begin)) == problem.split and kind.key(begin) != problem.key


# --- fixed text, difficulty, mistakes of the user -----------------------------------------------------------


def test_text_is_the_same_in_every_process_and_on_every_python():
    texts = [
        tinyworld.document_at(index, recipe=recipe) for recipe in tinyworld.RECIPES for index in range(200)]
    assert digest(texts) == '054e119d7cf2f11c'
    documented = ('arithmetic', 'logic', 'choice', 'code', 'translation', 'everyday')
    assert digest_of_problems(*documented) == '97d0e170ad0dd0ed'
    assert digest_of_problems('knowledge', 'safety') == 'db6775cfe71056fd'


def digest_of_problems(*families):
    drawn = [
        tinyworld.problem_at(family, name, index)
        for family in families for name in ('train', 'test') for index in range(20)]
    return digest([f'{p.key} {p.question} {p.answer} {p.steps}' for p in drawn])


def digest(texts):
    return hashlib.blake2b('\n'.join(texts).encode(), digest_size=8).hexdigest()


def test_random_access_depends_on_all_of_its_arguments():
    def questions(**more):
        arguments = {'family': 'arithmetic', 'split': 'train', **more}
        return [tinyworld.problem_at(index=index, **arguments).question for index in range(5)]

    assert questions() == questions() and len(set(questions())) == 5
    for change in ({'seed': 1}, {'language': 'en'}, {'difficulty': 4}, {'kind': 'sum'}, {'split': 'test'}):
        assert questions(**change) != questions()
    assert questions(difficulty=[3, 4]) == questions(difficulty=(3, 4))
    assert tinyworld.document_at(0) != tinyworld.document_at(1)
    assert tinyworld.document_at(0) != tinyworld.document_at(0, seed=1)


@pytest.mark.parametrize('family, kind', KINDS)
def test_harder_problems_are_longer(family, kind):
    least, most = tinyworld.LIMITS[family]
    lengths = []
    for difficulty in sorted({least, *tinyworld.DIFFICULTY[family], most}):
        drawn = draw(family, kind, 60, language='en', difficulty=difficulty)
        texts = [problem.question + ' '.join(step.en for step in problem.steps) for problem in drawn]
        lengths.append(sum(map(len, texts)) / len(texts))
    assert lengths == sorted(lengths) and lengths[-1] > 1.2 * lengths[0]


@pytest.mark.parametrize('arguments, message', [
    ({'family': 'arithmetics'}, "did you mean 'arithmetic'"),
    ({'family': 'logic', 'kind': 'ordr'}, "did you mean 'order'"),
    ({'family': 'logic', 'language': 'fr'}, "unknown tiny-world language 'fr'"),
    ({'family': 'logic', 'split': 'tests'}, "did you mean 'test'"),
    ({'family': 'logic', 'difficulty': 9}, '2..8'),
    ({'family': 'logic', 'difficulty': (5, 3)}, '2..8'),
])
def test_mistakes_are_told_with_the_valid_choice(arguments, message):
    with pytest.raises(UserError, match=re.escape(message)):
        tinyworld.make_problem(rng=random.Random(0), **arguments)


def test_an_unknown_recipe_is_told():
    with pytest.raises(UserError, match="did you mean 'plain'"):
        tinyworld.document_at(0, recipe='plane')
