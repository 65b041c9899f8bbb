"""Problems drawn and answers graded a second, for each generator of reasoning-gym.

    python experiments/bench/gym.py [--generators=maze,gcd] [--problems=30] [--rounds=3]

Drawn: rows of 'train', as a task gives them (the worker, the draws that are passed over, the check of the gold answer).
Graded: each problem's gold answer and a wrong one, in this process. Generators and graders are loaded before the clock
starts. Printed are the median of all generators and the slowest ten of both.
"""

import argparse
import statistics
import time


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--generators', default='', help='with commas between; by default all')
    parser.add_argument('--problems', type=int, default=30, help='of each generator')
    parser.add_argument('--rounds', type=int, default=3, help='in which the same answers are graded; the median counts')
    args = parser.parse_args()

    from r1jax.data import gym
    from r1jax.rewards import Example
    from r1jax.rewards.gym import grade

    drawn, longest, graded = {}, {}, {}
    for generator in args.generators.split(',') if args.generators else gym.LEVELS:
        source = gym.Gym(generator)
        source.row('test', 0)
        seconds, examples = [], []
        for index in range(args.problems):
            start = time.perf_counter()
            row = source.row('train', index)
            seconds.append(time.perf_counter() - start)
            examples.append(Example(**{key: value for key, value in row.items() if key != 'options'}))
        drawn[generator], longest[generator] = statistics.mean(seconds), max(seconds)
        rounds = []
        for round_ in range(args.rounds + 1):
            start = time.perf_counter()
            for example in examples:
                grade(example.answer, example)
                grade(example.answer + '1', example)
            if round_:  # the first round checks the gold answers
                rounds.append((time.perf_counter() - start) / (2 * len(examples)))
        graded[generator] = statistics.median(rounds)

    for title, seconds in (('drawn', drawn), ('graded', graded)):
        median = 1 / statistics.median(seconds.values())
        print(f'{title}: median of {len(seconds)} generators {median:,.0f} a second; slowest:')
        for generator in sorted(seconds, key=seconds.get, reverse=True)[:10]:
            worst = f', longest {longest[generator]:.2f} s' if title == 'drawn' else ''
            print(f'  {generator:26s} {1e3 * seconds[generator]:8.2f} ms{worst}')


if __name__ == '__main__':
    main()
