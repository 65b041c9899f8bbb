"""A plan as a table and as JSON, and what to change where it does not fit."""

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from r1jax.models import transformer
from r1jax.parallel.mesh import AXES
from r1jax.plan import Planned, Subject
from r1jax.runtime.files import write_json

GIB = 2**30
# So many are compiled within a few minutes one by one.
MANY_LAYERS = 8


def show(what: Subject, programs: Iterable[Planned], out: pathlib.Path | None, console: Console | None = None) -> bool:
    """Prints each program as it is planned, writes JSON to `out`, and returns whether all fit."""
    console = console or Console(soft_wrap=True, highlight=False)
    console.print(heading(what), markup=False)
    if not what.cfg.scan_layers and what.cfg.n_layers > MANY_LAYERS:
        console.print(
            f'Each of {what.cfg.n_layers} layers is compiled, which takes long; --config.scan_layers=True compiles one.',
            markup=False)
    planned = []
    for program in programs:
        planned.append(program)
        console.print(f'{program.name}: {program.unit}, compiled in {program.compile_s:.0f} s', markup=False)
    for table in tables(planned):
        console.print(table)
    advice = [sentence for program in planned for sentence in helps(what, program)]
    for sentence in advice:
        console.print(sentence, markup=False)
    if out:
        write_json(out, to_json(what, planned, advice))
    return all(program.fits for program in planned)


def heading(what: Subject) -> str:
    mesh = ', '.join(f'{axis}={size}' for axis, size in what.mesh.shape.items() if size > 1) or 'one device'
    n = transformer.n_params(what.cfg)
    return (
        f'{what.experiment}, stage {what.stage}: {n / 1e9:,.1f} B parameters, {what.cfg.n_layers} layers, on '
        f'{what.topology}, {what.mesh.size} devices ({mesh}), remat={what.cfg.remat}')


def tables(planned: Sequence[Planned]) -> Iterable[Table]:
    """Memory by what it holds, what a device does, and what it sends; a column for each program."""
    kinds = dict.fromkeys(name for program in planned for name, size in program.memory.items() if size >= 0.005 * GIB)
    memory = _table('memory of a device, GiB', planned)
    for kind in kinds:
        memory.add_row(kind, *(
            f"{size / GIB:.2f}" if (size := program.memory.get(kind, 0)) >= 0.005 * GIB else "" for program in planned))
    memory.add_section()
    memory.add_row('total', *(f'{program.total / GIB:.1f}{"" if program.costs else " +"}' for program in planned))
    memory.add_row('it has', *(f'{program.chip.hbm / GIB:.1f}' for program in planned))
    memory.add_row('fits', *('yes' if program.fits else 'NO' for program in planned))
    yield memory
    planned = [program for program in planned if program.costs]
    work = _table('work of a device, and the least time for it', planned)
    work.add_row('TFLOP', *(f'{program.costs.flops / 1e12:,.4g}' for program in planned))
    work.add_row('GB read and written', *(f'{program.costs.hbm_bytes / 1e9:,.4g}' for program in planned))
    sent = [sum(size for _, size, _ in program.costs.collectives.values()) for program in planned]
    work.add_row('GB put into collectives', *(f'{size / 1e9:,.4g}' for size in sent))
    for bound in ('compute', 'memory', 'interconnect'):
        work.add_row(f'{bound}, s', *(f'{program.bounds[bound]:.3g}' for program in planned))
    work.add_row('bound', *(program.bound for program in planned))
    yield work
    collectives = Table(title='collectives', title_justify='left')
    for column in ('program', 'kind', 'devices', 'times', 'GB', 's'):
        collectives.add_column(column, justify='left' if column in ('program', 'kind') else 'right')
    for program in planned:
        for (kind, ways), (times, size, seconds) in sorted(
                program.costs.collectives.items(), key=lambda item: -item[1][2]):
            collectives.add_row(program.name, kind, str(ways), f'{times:,.4g}', f'{size / 1e9:,.3g}', f'{seconds:.3g}')
    yield collectives


def _table(title: str, planned: Sequence[Planned]) -> Table:
    table = Table(title=title, title_justify='left')
    table.add_column('')
    for program in planned:
        table.add_column(program.name, justify='right')
    return table


def helps(what: Subject, program: Planned) -> Iterable[str]:
    """Yields what helps a program that does not fit, the greatest first."""
    if program.fits:
        return
    over = program.total - program.chip.hbm
    ways = what.mesh.shape
    yield f'{program.name} does not fit: {over / GIB:.1f} GiB too much{"" if program.costs else " at least"}. What helps:'
    batch = ways['data'] * ways['fsdp'] * ways['expert']
    for name, size in sorted(program.memory.items(), key=lambda item: -item[1]):
        if name == 'activations' and program.name in ('gradients', 'scoring'):
            if program.name == 'gradients' and what.cfg.remat != 'full':
                yield "  - remat='full' keeps only what goes into each layer"
            if what.settings.micro_rows > batch:
                yield f'  - micro_rows={batch} instead of {what.settings.micro_rows}: one row a device'
            else:
                yield f'  - more tensor (now {ways["tensor"]}) splits each row; a shorter row_length helps too'
        elif name in ('weights', 'optimizer', 'gradients', 'reference') and size > 0.1 * program.chip.hbm:
            yield (f'  - {name} ({size / GIB:.1f} GiB): a mesh with more fsdp (now {ways["fsdp"]}) and less data '
                   f'(now {ways["data"]}), or more devices')
        elif name == 'cache':
            yield (f'  - cache ({size / GIB:.1f} GiB): fewer sampling.slots (now {what.settings.sampling.slots}), a smaller '
                   'sampling.max_tokens, or more tensor')
        elif name == 'decoding weights' and size > 0.1 * program.chip.hbm:
            yield (f'  - decoding weights ({size / GIB:.1f} GiB), which are whole over data and fsdp: more tensor (now '
                   f'{ways["tensor"]})' + (', experts over more of fsdp x expert' if what.cfg.experts else ''))


def to_json(what: Subject, planned: Sequence[Planned], advice: Sequence[str]) -> dict[str, Any]:
    """All figures: bytes, operations and seconds, of one device."""
    return {
        'experiment': what.experiment,
        'stage': what.stage,
        'topology': what.topology,
        'mesh': {axis: what.mesh.shape[axis] for axis in AXES},
        'model': dataclasses.asdict(what.cfg) | {'parameters': transformer.n_params(what.cfg)},
        'fits': all(program.fits for program in planned),
        'advice': list(advice),
        'programs': {program.name: _program(program) for program in planned},
    }


def _program(program: Planned) -> dict[str, Any]:
    found = {
        'unit': program.unit, 'fits': program.fits, 'memory': program.memory, 'memory_total': program.total,
        'hbm': program.chip.hbm, 'compile_s': program.compile_s}
    if program.costs is None:
        return found
    return found | {
        'flops': program.costs.flops,
        'hbm_bytes': program.costs.hbm_bytes,
        'collectives': [
            {'kind': kind, 'devices': ways, 'times': times, 'bytes': size, 'seconds': seconds}
            for (kind, ways), (times, size, seconds) in program.costs.collectives.items()],
        'seconds': program.bounds,
        'bound': program.bound}
