"""Texts a second of the language reward, by language and length: in one process, and with all of them in two workers.

    python experiments/bench/language_reward.py [--texts=../shared/data/lang/mgsm.jsonl] [--chars=10000] [--workers=2]

`texts` are JSON lines with 'problem' and 'lang'. A long chain is a language's texts in a row, up to so many characters
(10,000 are some 2,000 English words). All known languages are told apart, as by default. The model's first load is timed
alone; sets then take turns, so that a machine whose speed drifts treats them alike; the median counts. Seconds of one
process are its processor's, those of the workers are the clock's.
"""

import argparse
import collections
import json
import pathlib
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--texts', type=pathlib.Path, default=pathlib.Path('../shared/data/lang/mgsm.jsonl'))
    parser.add_argument('--chars', type=int, default=10_000, help='of a long chain')
    parser.add_argument('--workers', type=int, default=2)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()

    from r1jax.rewards import Completion, Example, RewardMix, WorkerPool, identify, language_consistency

    start = time.perf_counter()
    identify.identify(['words'], ('en', 'de'))
    print(f'first use, with the model: {time.perf_counter() - start:.2f} s')
    by_language = collections.defaultdict(list)
    for line in args.texts.open():
        row = json.loads(line)
        by_language[row['lang']].append(row['problem'])
    sets = {}
    for language, texts in by_language.items():
        sets[f'{language}, as they are'] = [(text, language) for text in texts]
    for language, texts in by_language.items():
        sets[f'{language}, {args.chars:,} characters'] = [(' '.join(texts)[:args.chars], language)] * 10
    everything = [pair for name, pairs in sets.items() if 'as they are' in name for pair in pairs]
    completions = [Completion(text) for text, _ in everything]
    examples = [Example('q', language=language) for _, language in everything]
    pooled = f'all, as they are, {args.workers} workers'
    times = collections.defaultdict(list)
    with WorkerPool(args.workers, 60.0) as pool:
        mix = RewardMix('language=1', pool=pool)
        for round_ in range(args.rounds + 1):
            for name, pairs in sets.items():
                start = time.process_time()
                for text, language in pairs:
                    language_consistency(text, language)
                times[name].append((time.process_time() - start) / len(pairs))
            start = time.perf_counter()
            mix(completions, examples)
            times[pooled].append((time.perf_counter() - start) / len(everything))
            if not round_:  # the first round builds tables, in the workers too
                times.clear()
    for name, seconds in times.items():
        median = statistics.median(seconds)
        print(f'{name:32s} {1e3 * median:8.3f} ms a text  {1 / median:9,.0f} texts/s')


if __name__ == '__main__':
    main()
