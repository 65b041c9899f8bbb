"""Puts a pretrained tiny base into the package: bfloat16 safetensors, tokenizer, and the figures it was measured at.

    python -m experiments.tiny.ship --model=runs/tiny-pretrain/stages/pretrain --out=r1jax/assets/tiny_base

The figures in evaluation.json are those of the files written, after rounding to bfloat16; tests/test_assets.py measures its
'check' again.
"""

import argparse
import json
import pathlib


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--model', required=True, help='the stage or model folder to ship')
    parser.add_argument('--out', required=True, type=pathlib.Path, help='the folder to write')
    args = parser.parse_args()

    from experiments.tiny import suites
    from r1jax.config import from_dict
    from r1jax.interop import hf
    from r1jax.parallel.mesh import MeshConfig, make_mesh, split_cpu
    from r1jax.parallel.rules import DECODING, Sharding
    from r1jax.runtime.checkpoint import load_model
    from r1jax.stages import evaluate

    split_cpu(2)
    sharding = Sharding(make_mesh(MeshConfig()), DECODING)
    model = load_model(args.model, sharding)
    args.out.mkdir(parents=True, exist_ok=True)
    hf.write(
        args.out, model.params, model.cfg, eos=model.tokenizer.eos_id, bos=model.tokenizer.bos_id, dtype='bfloat16')
    model.tokenizer.save(args.out)

    shipped = load_model(str(args.out), sharding)
    figures = {}
    for name, config in (('paper', suites.paper()), ('check', suites.check())):
        evaluation = from_dict(evaluate.Evaluation, config, name)
        figures[name] = evaluate.evaluate(shipped, evaluation, sharding, 0, name)
    (args.out / 'evaluation.json').write_text(json.dumps(figures, indent=1) + '\n')


if __name__ == '__main__':
    main()
