"""How right the language reward is: on texts in one language, on texts that switch between two, and on English mathematics.

    python experiments/bench/language_pairs.py [--data=../shared/data] [--texts=60] [--seed=0]

One language: each of MGSM's problems is scored for each of its eleven languages, once with these eleven told apart and once
with all that are known. It is identified if its own language has at least half of the words and more than any other one.

Two languages: problems of both are cut into sentences, or before every so many words (in Chinese, Japanese and Thai:
characters), and put together at a share drawn at random. The error is |measured share - true share|, a mean over texts and
both languages of a pair. Only the second half of the problems is used: constants were set on the first.

English: a false alarm is a text whose share is lower than by script alone.
"""

import argparse
import itertools
import json
import pathlib
import random
import re


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--data', type=pathlib.Path, default=pathlib.Path('../shared/data'))
    parser.add_argument('--texts', type=int, default=60, help='of two languages, for each pair and way of cutting')
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args()

    import numpy as np

    from r1jax.rewards import language_consistency
    from r1jax.rewards.language import _UNIT, _prose

    def rows(name: str) -> list[dict]:
        return [json.loads(line) for line in (args.data / name).open()]

    problems: dict[str, list[str]] = {}
    for row in sorted(rows('lang/mgsm.jsonl'), key=lambda row: row['lang']):
        problems.setdefault(row['lang'], []).append(row['problem'])
    languages = tuple(problems)
    for name, told in (('eleven', languages), ('all known', ())):
        right, own = 0, {language: [] for language in languages}
        for true in languages:
            for text in problems[true]:
                shares = {other: language_consistency(text, other, told) for other in languages}
                own[true].append(shares.pop(true))
                right += own[true][-1] >= 0.5 and own[true][-1] > max(shares.values())
        texts = sum(map(len, own.values()))
        lowest = min(own, key=lambda language: np.mean(own[language]))
        print(f'{name}: {right} of {texts} identified ({right / texts:.4f}); mean share of the right language '
              f'{np.mean(sum(own.values(), [])):.4f}, of {lowest} {np.mean(own[lowest]):.4f}')

    def counted(text: str) -> int:
        return sum(1 for _ in _UNIT.finditer(_prose(text)[0]))

    def cut(text: str, low: int, high: int, rng: random.Random) -> list[str]:
        if not low:
            return [part for part in re.split(r'(?<=[.?!।])\s+|(?<=[。？！])|\n', text) if counted(part)]
        starts, cuts = [unit.start() for unit in _UNIT.finditer(text)], [0]
        while len(starts) > (step := rng.randint(low, high)):
            starts = starts[step:]
            cuts.append(starts[0])
        return [text[a:b] for a, b in itertools.pairwise([*cuts, len(text)])]

    def error(pair: tuple[str, str], low: int, high: int, rng: random.Random) -> float:
        texts = [' '.join(rng.sample(problems[language][125:], 1 if low else 3)) for language in pair]
        lists, share, out, counts = [cut(text, low, high, rng) for text in texts], rng.random(), [], [0, 0]
        while all(lists):
            which = rng.random() > share
            piece = lists[which].pop(0)
            counts[which] += counted(piece)
            out.append(piece)
        true = [count / max(1, sum(counts)) for count in counts]
        found = [language_consistency(' '.join(out), language, languages) for language in pair]
        return np.abs(np.subtract(found, true)).mean()

    for name, low, high in (('sentences', 0, 0), ('2 to 8 words', 2, 8), ('1 to 3 words', 1, 3)):
        errors = {}
        for pair in itertools.combinations(languages, 2):
            rng = random.Random(f'{args.seed} {pair} {name}')
            errors[pair] = np.mean([error(pair, low, high, rng) for _ in range(args.texts)])
        latin = np.mean([value for pair, value in errors.items() if set(pair) <= {'de', 'en', 'es', 'fr', 'sw'}])
        worst = ', '.join(f'{a}-{b} {errors[a, b]:.3f}' for a, b in sorted(errors, key=errors.get)[:-6:-1])
        print(f'{name}: error {np.mean(list(errors.values())):.4f}, of pairs in Latin letters {latin:.4f}; worst {worst}')

    for file, field in (
            ('math/gsm8k_train.jsonl', 'solution'), ('math/gsm8k_train.jsonl', 'problem'), ('math/svamp.jsonl', 'problem'),
            ('mcq/aqua_rat.jsonl', 'rationale'), ('cot/misguided_attention_reasoning.jsonl', 'thinking')):
        texts = [row[field] for row in rows(file)]
        alarms = sum(language_consistency(text, 'en') < language_consistency(text, 'en', ('en',)) for text in texts)
        print(f'{file}, {field}: {alarms} false alarms in {len(texts)} English texts')


if __name__ == '__main__':
    main()
