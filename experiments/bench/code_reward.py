"""Programs a second of the sandbox that grades them, over slots, how long one takes, and how long a sandbox takes to start.

    python experiments/bench/code_reward.py [--slots=1,2,4] [--programs=200] [--rounds=5]

The isolation is what R1JAX_SANDBOX says, or the first that works. A program is a function of ten lines with three asserts
(two processes and seven messages), a script one that reads a line and prints one. Settings take turns, so that a machine
whose speed drifts treats them alike; the median counts.
"""

import argparse
import os
import statistics
import time

PROGRAM = '''
def primes(limit):
    found = []
    for number in range(2, limit):
        for prime in found:
            if number % prime == 0:
                break
        else:
            found.append(number)
    return found
'''
ASSERTS = 'assert primes(10) == [2, 3, 5, 7]\nassert len(primes(100)) == 25\nassert primes(2) == []'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--slots', default='1,2,4')
    parser.add_argument('--programs', type=int, default=200)
    parser.add_argument('--rounds', type=int, default=5)
    args = parser.parse_args()

    from r1jax.rewards.code import read_tests
    from r1jax.rewards.sandbox import Job, Sandbox, isolation

    kind, tests = isolation(), read_tests(ASSERTS)
    jobs = {
        'asserts': Job(PROGRAM, tests={'source': tests.source, 'names': tests.names, 'modules': tests.modules}),
        'script': Job('print(input()[::-1])', stdin='abc')}
    slots = [int(number) for number in args.slots.split(',')]
    starts, times, alone = [], {(name, number): [] for number in slots for name in jobs}, {name: [] for name in jobs}
    for _ in range(args.rounds):
        for number in slots:
            start = time.perf_counter()
            with Sandbox(number, kind) as sandbox:
                for run in sandbox.run([jobs['script']] * number):
                    assert run.output == b'cba\n', run
                if number == 1:
                    starts.append(time.perf_counter() - start)
                for name, job in jobs.items():
                    sandbox.run([job] * 2 * number)
                    start = time.perf_counter()
                    runs = sandbox.run([job] * args.programs)
                    times[name, number].append(time.perf_counter() - start)
                    assert all(run.status == 'ended' for run in runs)
                    if number == 1:
                        alone[name] += [run.wall_s for run in runs]
    print(f'{kind}, {os.cpu_count()} cores, {args.programs} programs a round')
    if starts:
        print(f'a sandbox starts and runs its first program in {1e3 * statistics.median(starts):.0f} ms')
    for (name, number), seconds in times.items():
        print(f'{name:8s} {number:2d} slots  {args.programs / statistics.median(seconds):7,.0f} programs/s'
              + (f'  median latency {1e3 * statistics.median(alone[name]):.1f} ms' if number == 1 else ''))


if __name__ == '__main__':
    main()
