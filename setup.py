"""Describes the package r1jax; constraints.txt beside this file has the versions it was tested with."""

import setuptools

setuptools.setup(
    name='r1jax',
    version='0.1.0',
    description='DeepSeek-R1 in JAX: reasoning models by reinforcement learning, from a laptop to a pod',
    license='Apache-2.0',
    python_requires='>=3.11,<3.14',
    # experiments/ is not installed: its files are run from a checkout, where users copy and change them.
    packages=setuptools.find_packages(include=['r1jax', 'r1jax.*']),
    package_data={'r1jax': ['assets/**/*', '**/*.j2', '**/*.css', '**/*.js']},
    entry_points={'console_scripts': ['r1jax = r1jax.__main__:main']},
    install_requires=[
        'chex>=0.1.90',
        'flax>=0.12',
        'jax>=0.10,<0.13',
        'jinja2>=3.1',
        # Its parser, for sums, integrals and limits; the ANTLR that its grammar was made with. It brings sympy.
        'math-verify[antlr4-13-2]>=0.9,<0.10',
        'ml-collections>=1.0,<2',  # config.py needs the order in which keys were set, private to 1.x
        'ml-dtypes>=0.5',
        'mpmath>=1.3',
        'numpy>=2.0',
        'optax>=0.2.5',
        'orbax-checkpoint>=0.11.20',
        'plotly>=5.24',  # for the JavaScript it brings, which makes report.html self-contained
        'py3langid>=0.4,<0.5',  # identify.py walks its automaton
        'pyarrow>=17',
        'rich>=13',
        'safetensors>=0.5',
        'sentencepiece>=0.2',
        'tensorboardX>=2.6',
        'tokenizers>=0.21',
    ],
    extras_require={
        # Only r1jax/data/tasks.py needs these; the rest runs without TensorFlow.
        'data': ['seqio>=0.0.20', 'tensorflow>=2.18', 'tensorflow-datasets>=4.9.9'],
        'gguf': ['gguf>=0.19'],  # brings pyyaml, requests and tqdm
        # Scores and problems change with its versions; data/gym.py and rewards/gym.py are written for this one.
        'gym': ['reasoning-gym==0.1.25'],
        'judge': ['openai>=1.60'],  # for judges behind an endpoint
        'tpu': ['jax[tpu]'],
        'cuda': ['jax[cuda12]'],
        # torch and transformers are references that models and losses are compared with, nothing more.
        # libtpu is the compiler that plans are made with; it is there for Linux alone.
        'test': [
            'gguf>=0.19', 'ipykernel>=6.29', 'libtpu>=0.0.42; sys_platform == "linux" and platform_machine == "x86_64"',
            'matplotlib>=3.9', 'nbclient>=0.10', 'nbformat>=5.10', 'openai>=1.60', 'pytest>=8', 'pytest-xdist>=3.6',
            'reasoning-gym==0.1.25', 'torch>=2.5', 'transformers>=4.50'],
        'notebook': ['ipykernel>=6.29', 'jupyterlab>=4', 'matplotlib>=3.9', 'nbclient>=0.10', 'nbformat>=5.10'],
    },
)
