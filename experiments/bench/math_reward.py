"""Mathematical answers a second of the accuracy reward, and how long the first one takes.

    python experiments/bench/math_reward.py [--answers=2000] [--processes=1,2] [--math-verify]

Responses to a made mixture of questions: of twelve gold answers four are integers, one a decimal, two fractions, and
five roots, polynomials, intervals, sets or matrices; half of the answers are right, in another spelling, a third wrong,
the rest hedges and prose. Gold answers and answers are other texts each time, so that hardly anything comes from a cache.
Extraction, parsing and comparing are timed; the first answer's figure holds the imports that it waits for.

--math-verify compares the pairs of tests/rewards/math_pairs.txt by that library alone, too, and counts the verdicts that
differ from the table's.
"""

import argparse
import pathlib
import random
import statistics
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor

ROOT = pathlib.Path(__file__).parents[2]


def mixture(n: int, seed: int) -> list[tuple[str, str]]:
    """n pairs of (gold answer, response)."""
    rng = random.Random(seed)
    made = []
    for _ in range(n):
        a, b, c = rng.randint(2, 99), rng.randint(2, 99), rng.randint(2, 99)
        gold, right, wrong = rng.choice([
            *[(str(a * b), f'{a * b:,}', str(a * b + c))] * 4,
            (f'{a}.{b:02}', f'{a}.{b:02} cm', f'{a}.{c:02} cm'),
            (rf'\frac{{{a}}}{{{b}}}', f'{a}/{b}', f'{b}/{a}'),
            (rf'\frac{{{a}}}{{{b}}}', rf'\dfrac{{{2 * a}}}{{{2 * b}}}', rf'\frac{{{a}}}{{{c}}}'),
            (rf'{a}\sqrt{{{b}}}', rf'\sqrt{{{a * a * b}}}', rf'{a}\sqrt{{{c}}}'),
            (f'x^2+{a + b}x+{a * b}', f'(x+{a})(x+{b})', f'(x+{a})(x+{c})'),
            (rf'[{a},\infty)', rf'x \ge {a}', rf'({a},\infty)'),
            (rf'\{{{a},{b},{c}\}}', f'{c}, {a}, {b}', f'{c}, {a}'),
            (rf'\begin{{pmatrix}}{a}\\{b}\end{{pmatrix}}', rf'\begin{{bmatrix}} {a} \\ {b} \end{{bmatrix}}', f'({b}, {a})')])
        answer = rng.choices([right, wrong, f'{right} or {wrong}', f'I think that it is {wrong}'], [15, 10, 2, 3])[0]
        # A thought of some hundred words, as answers have before them.
        made.append((gold, f'{"so we get this and then that. " * 60}</think> The answer is $\\boxed{{{answer}}}$.'))
    return made


def seconds(job: tuple[int, int]) -> float:
    """How long the accuracy reward takes for n responses, imports and the first response left out."""
    n, seed = job
    sys.path.insert(0, str(ROOT))
    from r1jax.rewards import Completion, Example, get

    pairs = mixture(n, seed)
    completions = [Completion(response) for _, response in pairs]
    examples = [Example('q', gold, 'math') for gold, _ in pairs]
    reward = get('accuracy')
    reward(completions[:1], [Example('q', r'\sqrt{2}', 'math')])
    start = time.perf_counter()
    reward(completions, examples)
    return time.perf_counter() - start


def imports(code: str) -> float:
    """Median seconds of a fresh interpreter's statement."""
    program = f'import time; t = time.perf_counter(); {code}; print(time.perf_counter() - t)'
    return statistics.median(
        float(subprocess.run([sys.executable, '-c', program], capture_output=True, text=True, check=True, cwd=ROOT).stdout)
        for _ in range(3))


def against_math_verify() -> None:
    import logging

    logging.disable(logging.CRITICAL)
    import math_verify

    sys.path.insert(0, str(ROOT))
    from r1jax.rewards.equivalence import equal
    from tests.rewards.test_equivalence import PAIRS

    def verify(gold: str, answer: str) -> bool:
        parsed = [math_verify.parse(text if text.startswith('\\boxed') else f'${text.replace("$", "")}$') for text in (gold,
        answer)]
        return math_verify.verify(*parsed)

    for name, compare in (('r1jax', equal), ('math-verify', verify)):
        start, wrong = time.perf_counter(), {True: 0, False: 0}
        asked = [(first, second, relation in ('==', '<-')) for _, relation, first, second in PAIRS]
        asked += [(second, first, relation == '==') for _, relation, first, second in PAIRS if relation in ('==', '!=')]
        for gold, answer, expected in asked:
            verdict = compare(gold, answer)
            wrong[verdict] += verdict != expected
        print(f'{name:12s} {len(asked)} verdicts on the table: {wrong[True]} wrongly equal, {wrong[False]} wrongly '
              f'different, {time.perf_counter() - start:.1f} s')


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--answers', type=int, default=2000, help='for each process')
    parser.add_argument('--processes', default='1,2')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--math-verify', action='store_true')
    args = parser.parse_args()
    for n in map(int, args.processes.split(',')):
        with ProcessPoolExecutor(n) as pool:
            rates = []
            for round_ in range(args.rounds):
                jobs = [(args.answers, round_ * n + i) for i in range(n)]
                rates.append(n * args.answers / max(pool.map(seconds, jobs)))
        print(f'{n} process(es)  {statistics.median(rates):9,.0f} answers/s')
    print(f'import r1jax.rewards            {imports("import r1jax.rewards"):6.2f} s')
    print('the first answer with a root    {:6.2f} s'.format(imports(
        'import r1jax.rewards.equivalence as e; t = time.perf_counter(); e.equal("\\\\sqrt{8}", "2\\\\sqrt2")')))
    if args.math_verify:
        against_math_verify()


if __name__ == '__main__':
    main()
