"""The command line: `python -m r1jax COMMAND`, also installed as `r1jax`.

This file reads flags and prints; the work is done by what the handlers import. Those imports stand inside the
handlers, so that --help and a mistyped flag answer at once, before jax is loaded.
"""

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from r1jax.errors import UserError, nearest


class _Parser(argparse.ArgumentParser):
    """An ArgumentParser whose complaints are UserErrors: one sentence, without the usage text."""

    def __init__(self, *args, **kwargs):
        formatter = argparse.RawDescriptionHelpFormatter
        super().__init__(*args, formatter_class=formatter, allow_abbrev=False, **kwargs)

    def error(self, message: str):
        raise UserError(f'{message} (see {self.prog} --help)')

    def flags(self) -> list[str]:
        return [flag for action in self._actions for flag in action.option_strings if flag.startswith('--')]


# ---- commands ----


def _run(args: argparse.Namespace) -> None:
    if args.workdir is None and not args.dry_run:
        raise UserError('the following arguments are required: --workdir (see r1jax run --help)')
    from r1jax.config import load_experiment
    config = load_experiment(args.config, args.overrides)
    if args.dry_run:
        from r1jax.dry_run import describe
        describe(config)
        return
    from r1jax.parallel import distributed, mesh
    if isinstance(config.get('cpu_devices'), int):  # anything else is left to the run, which refuses it and says where
        mesh.split_cpu(config.cpu_devices)
    from r1jax.pipeline import run_experiment
    distributed.start()
    rerun = [name for names in args.rerun for name in names.split(',')]
    report = run_experiment(config, args.workdir, only=args.only, start=args.start, rerun=rerun)
    if distributed.is_leader():
        print(f'report: {report}')


def _eval(args: argparse.Namespace) -> None:
    from r1jax.stages.evaluate import evaluate_checkpoint
    result = evaluate_checkpoint(
        checkpoint=args.checkpoint, task=args.task, samples=args.samples, temperature=args.temperature,
        top_p=args.top_p, problems=args.problems, max_tokens=args.max_tokens, seed=args.seed, out=args.out)
    print(json.dumps(result, indent=2, ensure_ascii=False))


def _sample(args: argparse.Namespace) -> None:
    from r1jax.data import templates
    prompt = templates.apply(args.template, args.prompt)
    from r1jax.stages.evaluate import sample_checkpoint
    completions = sample_checkpoint(
        checkpoint=args.checkpoint, prompts=[prompt], n=args.n, temperature=args.temperature,
        top_p=args.top_p, top_k=args.top_k, min_p=args.min_p, max_tokens=args.max_tokens, seed=args.seed)
    for i, completion in enumerate(completions, start=1):
        cut = '' if completion.finished else ', cut at --max_tokens'
        print(f'--- {i} of {args.n}: {completion.n_tokens} tokens{cut}\n{completion.text}', flush=True)


def _import(args: argparse.Namespace) -> None:
    from r1jax.interop.convert import import_model
    from r1jax.models.transformer import n_params
    from r1jax.parallel import distributed
    distributed.start()
    cfg = import_model(args.source, args.out)
    if distributed.is_leader():
        print(f'{args.out}: {n_params(cfg) / 1e6:,.1f} M parameters, {cfg.n_layers} layers, a vocabulary of '
              f'{cfg.vocab_size:,}')


def _export(args: argparse.Namespace) -> None:
    from r1jax.interop.convert import export_model
    from r1jax.parallel import distributed
    distributed.start()
    written = export_model(args.checkpoint, args.out, args.dtype, int(args.shard_gb * 1e9))
    for path in written if distributed.is_leader() else ():
        print(f'{path} ({path.stat().st_size / 1e6:,.1f} MB)')


def _plan(args: argparse.Namespace) -> None:
    from r1jax.config import load_experiment
    config = load_experiment(args.config, args.overrides)
    # Programs are compiled for a TPU; where there is one, it is none of this command's business.
    import jax
    jax.config.update('jax_platforms', 'cpu')
    from r1jax.plan import plan, report, subject
    what = subject(config, args.stage, args.topology, args.model)
    if not report.show(what, plan(what), args.out):
        raise SystemExit(1)


def _reward_options(text: str) -> dict[str, dict]:
    try:
        options = json.loads(text)
    except ValueError as error:
        raise UserError(f'--reward_options is not valid JSON: {error}') from error
    if not isinstance(options, dict) or not all(isinstance(value, dict) for value in options.values()):
        raise UserError('--reward_options must look like {"overlong": {"max_length": 512, "cache": 64}}')
    return options


def _score(args: argparse.Namespace) -> None:
    from r1jax.rewards.score import score_file
    scored = score_file(
        args.source, args.out, args.rewards, options=_reward_options(args.reward_options), prefilled=args.prefilled,
        workers=args.workers, timeout_s=args.timeout_s)
    for error in scored.errors:
        print(f'r1jax: {error}', file=sys.stderr)
    print(json.dumps({
        'rows': scored.rows, 'failed': scored.failed, 'reward': scored.reward, 'rewards': dict(scored.rewards)}, indent=2))
    if scored.failed == scored.rows:
        raise UserError(f"none of the {scored.rows} rows of '{args.source}' could be scored; '{args.out}' says why")


def _audit(args: argparse.Namespace) -> None:
    from r1jax.rewards import audit
    from r1jax.rewards.mix import RewardMix
    from r1jax.rewards.pool import WorkerPool
    with WorkerPool(args.workers, args.timeout_s) as pool:
        mix = RewardMix(
            args.rewards, options=_reward_options(args.reward_options), prefilled=audit.opens_thought(args.template),
            pool=pool)
        findings = audit.audit(mix, args.template, audit.tasks_here())
    print(audit.table(findings))
    if 'code' not in {finding.task for finding in findings}:
        print('Programs were left out: no sandbox works here, or the template asks for none.')
    if args.out:
        audit.write(args.out, findings)
    if any(finding.pays for finding in findings):
        raise SystemExit(1)


def _tasks(args: argparse.Namespace) -> None:
    from r1jax.data import tasks
    from r1jax.models.presets import PRESETS
    from r1jax.rewards import base
    lists = {'tasks and mixtures': tasks.names(), 'rewards': base.names(), 'models': PRESETS}
    for title, found in lists.items():
        print(f'{title}:', *sorted(found), sep='\n  ')


def _report(args: argparse.Namespace) -> None:
    if not args.workdir.is_dir():
        raise UserError(f"there is no run in '{args.workdir}': --workdir is the folder that `run` wrote to")
    from r1jax.runtime.report import build_report
    print(f'report: {build_report(args.workdir)}')


# ---- flags ----


def _at_least(kind: type, low: float, high: float = float('inf')) -> Callable[[str], float]:
    """A converter for argparse: text -> `kind` within [low, high]."""
    limits = f'at least {low}' + (f' and at most {high}' if high < float('inf') else '')

    def convert(text: str) -> float:
        value = kind(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f'must be {limits}, got {text}')
        return value

    convert.__name__ = {int: 'integer', float: 'number'}[kind]  # argparse says "invalid integer value"
    return convert


def _add_sampling_flags(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add('--checkpoint', required=True, metavar='DIR',
        help='a checkpoint folder, or package:NAME for a model that is shipped')
    add('--temperature', type=_at_least(float, 0), default=0.6, metavar='T',
        help='0 is greedy (default %(default)s)')
    add('--top_p', type=_at_least(float, 0, 1), default=0.95, metavar='P',
        help='sample from the likeliest tokens that hold this share (default %(default)s)')
    add('--max_tokens', type=_at_least(int, 1), metavar='N',
        help="longest completion, in tokens (default 512, at most half of the model's positions)")
    add('--seed', type=_at_least(int, 0, 2**32 - 1), default=0, metavar='N',
        help='same seed, same text (default %(default)s)')


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    """The parser of the whole command line, and that of each command."""
    parser = _Parser(
        prog='r1jax', description='Train reasoning models the way DeepSeek-R1 was trained, in JAX.',
        epilog='Every command explains itself: r1jax COMMAND --help')
    commands = parser.add_subparsers(title='commands', dest='command', metavar='COMMAND')

    def command(name: str, handler: Callable, about: str, more: str, example: str) -> _Parser:
        added = commands.add_parser(
            name, help=about, description=f'{about[0].upper()}{about[1:]}.\n{more}',
            epilog=f'Example:\n  {example}')
        added.set_defaults(handler=handler)
        return added

    run = command(
        'run', _run, 'run an experiment file, or go on with a run that was interrupted',
        'Any value of the experiment can be set with --config.KEY=VALUE, where KEY is its path with dots.\n'
        'Stages that are done are skipped; the same command goes on where the run stopped. A stage that was run with\n'
        'other settings is refused until --rerun names it.',
        'python -m r1jax run --config=experiments/tiny/r1_zero.py:seed=1 --workdir=runs/r1_zero \\\n'
        '      --config.stages.r1_zero.lr=1e-5')
    run.add_argument('--config', required=True, metavar='FILE[:ARG]', help='the experiment, and its argument')
    run.add_argument('--workdir', metavar='DIR', type=Path, help='the folder to write to')
    which = run.add_mutually_exclusive_group()
    which.add_argument('--only', metavar='STAGE', help='run this stage alone; what it is given must be done')
    which.add_argument('--from', metavar='STAGE', dest='start', help='leave the stages before this one alone')
    run.add_argument(
        '--rerun', metavar='STAGE', action='append', default=[],
        help='run this stage again, and all that depends on it: what they had made is removed')
    run.add_argument(
        '--dry_run', action='store_true', help='print the stages with their settings, and what is missing; run nothing')

    evaluate = command(
        'eval', _eval, 'measure a checkpoint on the test problems of a task',
        'Prints pass@1 over all samples, cons@N (majority), pass@N, format and length, as JSON.',
        'python -m r1jax eval --checkpoint=package:tiny_base --task=tiny_arithmetic --out=eval.json')
    _add_sampling_flags(evaluate)
    add = evaluate.add_argument
    add('--task', required=True, metavar='NAME', help='a task or mixture, see `r1jax tasks`')
    add('--samples', type=_at_least(int, 1), default=16, metavar='N',
        help='completions of each problem (default %(default)s)')
    add('--problems', type=_at_least(int, 1), default=512, metavar='N',
        help='how many problems of the test split (default %(default)s)')
    add('--out', metavar='FILE', type=Path, help='also write the result to this file')

    sample = command(
        'sample', _sample, 'print completions of a prompt, each as soon as it is finished',
        'The same seed gives the same text.',
        'python -m r1jax sample --checkpoint=package:tiny_base --template=tiny --prompt="17+25-8=?" --n=4')
    _add_sampling_flags(sample)
    add = sample.add_argument
    add('--prompt', required=True, metavar='TEXT', help='the prompt, or the question for --template')
    add('--template', default='none', metavar='NAME',
        help="what to put around the prompt: 'r1_zero' is the paper's (default %(default)s)")
    add('--n', type=_at_least(int, 1), default=1, metavar='N', help='completions (default %(default)s)')
    add('--top_k', type=_at_least(int, 0), default=0, metavar='K',
        help='sample from this many likeliest tokens; 0: from all (default %(default)s)')
    add('--min_p', type=_at_least(float, 0, 1), default=0.0, metavar='P',
        help='leave out tokens below this share of the likeliest one (default %(default)s)')

    imported = command(
        'import', _import, 'turn a model of others into a model folder',
        'Reads a Hugging Face folder (config.json, safetensors, tokenizer) of Llama, Qwen2, Qwen3 or DeepSeek-V3, float8\n'
        'blocks included, or a GGUF file of the first three. Parameters stay in the types in which they are stored; float8\n'
        'becomes bfloat16, what GGUF has quantised float32. Nothing is written if anything is missing or damaged.',
        'python -m r1jax import --from=Qwen2.5-Math-1.5B --out=checkpoints/qwen2.5-math-1.5b')
    imported.add_argument('--from', required=True, dest='source', metavar='DIR_OR_FILE', type=Path, help='what to read')
    imported.add_argument('--out', required=True, metavar='DIR', type=Path, help='the folder to write')

    export = command(
        'export', _export, 'write a model as a Hugging Face folder',
        'transformers loads it, reward models as classifiers with one label.',
        'python -m r1jax export --checkpoint=runs/r1/stages/all_scenario_rl --out=r1-tiny')
    add = export.add_argument
    add('--checkpoint', required=True, metavar='DIR', help='a checkpoint folder, or package:NAME for a shipped model')
    add('--out', required=True, metavar='DIR', type=Path, help='the folder to write')
    add('--dtype', choices=('float32', 'bfloat16', 'float16'),
        help='of the weights (default: that of the checkpoint, which is float32 for what was trained here)')
    add('--shard_gb', type=_at_least(float, 0.00001), default=5.0, metavar='GB', help='largest file (default %(default)s)')

    plan = command(
        'plan', _plan, 'see whether a stage fits on TPUs, and how long it takes at least, without any TPU',
        'Compiles what the stage runs with the TPU compiler that `pip install "r1jax[tpu]"` brings, on any machine, and\n'
        'prints memory, operations, traffic and a lower bound of the time for each program. Exits with 1 where one does\n'
        'not fit.',
        'python -m r1jax plan --config=experiments/r1_zero.py --topology=v5p:8x8x8')
    add = plan.add_argument
    add('--config', required=True, metavar='FILE[:ARG]', help='the experiment, and its argument')
    add('--stage', metavar='NAME', help='the stage, where the experiment has several')
    add('--topology', metavar='TPU:SHAPE',
        help="as in v5e:16x16, v5p:8x8x8, v6e:16x16 or tpu7x:4x4x4 (default: the experiment's)")
    add('--model', metavar='NAME', help='a shape that ships by name, in place of the base (see `r1jax tasks`)')
    add('--out', metavar='FILE', type=Path, help='also write the figures to this file, as JSON')

    score = command(
        'score', _score, 'score stored completions with any rewards',
        'Reads JSON lines or Parquet: `completion` and what the rewards need (`prompt`, `answer`, `task`, `language`,\n'
        '`tests`, `options`, `n_tokens`), and writes every row back in order with `reward`, `rewards` and `error`. A row\n'
        'that cannot be scored is told with its number, and has no reward. The same command goes on where it was stopped.',
        'python -m r1jax score --in=completions.jsonl --rewards="accuracy=1,format=0.5" --out=scored.jsonl')
    add = score.add_argument
    add('--in', required=True, dest='source', metavar='FILE', type=Path, help='a .jsonl or .parquet file')
    add('--out', required=True, metavar='FILE', type=Path, help='the file to write, of either kind')
    add('--prefilled', action='store_true', help='the prompts ended with <think>, which completions therefore lack')
    _add_rewards(add)

    audit = command(
        'audit', _audit, 'see whether a mix of rewards pays for tricks',
        'Scores honest responses and adversarial ones (several answers, the question as the answer, spam of tags, programs\n'
        'that attack their tests, ...) to a few problems of every sort, and prints the most that each trick earned. Exits\n'
        'with 1 where one earns more than an honest wrong answer does.',
        'python -m r1jax audit --rewards="accuracy=1,format=0.5"')
    _add_rewards(audit.add_argument)
    add = audit.add_argument
    add('--template', default='r1_zero', metavar='NAME', help='whose prompts and responses are tried (default %(default)s)')
    add('--out', metavar='FILE', type=Path, help='also write each completion and what it earned to this file, as JSON lines')

    command('tasks', _tasks, 'list the tasks, rewards and models that experiments can name', '',
            'python -m r1jax tasks')

    report = command(
        'report', _report, 'write report.html anew from what a run has logged so far', '',
        'python -m r1jax report --workdir=runs/r1_zero')
    report.add_argument('--workdir', required=True, metavar='DIR', type=Path, help="the run's folder")
    return parser, dict(commands.choices)


def _add_rewards(add: Callable) -> None:
    """The flags of commands that compute rewards."""
    add('--rewards', required=True, metavar='NAME=WEIGHT,...',
        help="as in 'accuracy=1,format=0.5,my_rewards.py:brevity=0.1' or 'accuracy*format + 0.1*language'; for names see "
             '`r1jax tasks`')
    add('--reward_options', default='{}', metavar='JSON',
        help='options of single rewards: {"overlong": {"max_length": 512, "cache": 64}}')
    add('--workers', type=_at_least(int, 1), default=2, metavar='N', help='processes (default %(default)s)')
    add('--timeout_s', type=_at_least(float, 0.01), default=5.0, metavar='S',
        help='the longest that rewards may take for a completion (default %(default)s)')


def _take_overrides(argv: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """Splits --config.KEY=VALUE and --config.KEY VALUE off the other arguments."""
    rest, overrides, words = [], [], iter(argv)
    for word in words:
        if not word.startswith('--config.'):
            rest.append(word)
            continue
        key, equals, value = word.removeprefix('--config.').partition('=')
        value = value if equals else next(words, None)
        if not key or value is None:
            raise UserError(f"'{word}' needs a key and a value, as in --config.seed=1")
        overrides.append((key, value))
    return rest, overrides


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Reads a command line.

    Returns:
        The flags of the command, with `handler`, the function that carries it out, and `overrides`, pairs
        (key, value) of --config.KEY=VALUE.

    Raises:
        UserError: no or an unknown command, an unknown flag, a bad or missing value.
        SystemExit: --help was asked for and has been printed.
    """
    parser, commands = _parsers()
    if not argv:
        raise UserError(f'no command given (known: {", ".join(commands)}; see r1jax --help)')
    if not argv[0].startswith('-') and argv[0] not in commands:
        raise UserError(f"unknown command '{argv[0]}'{nearest(argv[0], commands)}")
    rest, overrides = _take_overrides(argv) if argv[0] in ('run', 'plan') else (list(argv), [])
    command = commands.get(argv[0], parser)
    # Flags first: a mistyped one should be named even where another is missing because of it.
    known = command.flags()
    for word in rest:
        flag = word.partition('=')[0]
        if flag.startswith('--') and len(flag) > 2 and flag not in known:
            raise UserError(f"unknown flag '{flag}' of {command.prog}{nearest(flag, known)}")
    args = parser.parse_args(rest)
    args.overrides = overrides
    return args


def main(argv: Sequence[str] | None = None) -> int:
    """Carries out a command line (the process's own by default).

    Returns:
        The exit code: 0; 2 after a user's mistake, told in one sentence on stderr; 130 when interrupted.
    """
    argv = sys.argv[1:] if argv is None else argv
    try:
        args = parse(argv)
        args.handler(args)
    except UserError as error:
        print(f'r1jax: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on = {'run': 'from the last checkpoint', 'score': 'from here'}
        then = f'; the same command goes on {goes_on[argv[0]]}' if argv[0] in goes_on else ''
        print(f'\nr1jax: interrupted{then}', file=sys.stderr)
        return 130
    except BrokenPipeError:  # `r1jax tasks | head`: nobody reads on, and the flush at exit must not complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


if __name__ == '__main__':
    sys.exit(main())
